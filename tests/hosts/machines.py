"""Debian hosts on one machine: systemd-nspawn over one common tree, on a switch that nothing else is on.

A host is all that a small server is to a playbook: systemd as its first process, sshd, an account that may
become root, a disk that survives a power cut. It has no way to the internet. Everything of it lives in
namespaces that end with the process that holds them, so a killed test leaves nothing that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

BOOT = Path(__file__).with_name("boot.sh")
SNIFF = Path(__file__).with_name("sniff.py")
CACHE = Path(os.environ.get("QD_HOSTS_CACHE", "/var/cache/qd-hosts"))
"""Where the common tree and the wheels are, for the next run."""
PACKAGES = (
    "systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,sudo,python3,python3-venv,python3-apt,"
    "python3-packaging,iproute2,iputils-ping,nftables,ca-certificates,procps,less"
)
SUITE, MIRROR = "bookworm", os.environ.get("QD_HOSTS_MIRROR", "http://deb.debian.org/debian")
USER = "admin"
"""The account on every host that a playbook logs in as; it may use sudo."""
_ROOM = 10 << 30
"""Bytes: disks take 1 GB for each release on each of three hosts, and what runs there takes 3."""
_HOLD = ["setpriv", "--pdeathsig", "KILL", "unshare"]
"""Dies with the thread that started it. pytest's main thread lives as long as pytest."""


def cannot() -> str:
    """Why hosts cannot be made here; "" when they can."""
    if os.geteuid() != 0:
        return "hosts need root"
    for tool in ("debootstrap", "systemd-nspawn", "ip", "unshare", "setpriv", "ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            return f"there is no `{tool}` (debootstrap, systemd-container, openssh-client)"
    probe = (
        "mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && mkdir /mnt/a /mnt/b /mnt/c /mnt/d &&"
        "mount -t overlay overlay -o lowerdir=/mnt/a,upperdir=/mnt/b,workdir=/mnt/c /mnt/d &&"
        "ip link add v0 type veth peer name v1 && ip link add br0 type bridge"
    )
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--uts", "--ipc", "sh", "-c", probe]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return f"this machine makes no namespaces, overlays or links: {done.stderr.strip()}" * bool(
        done.returncode
    )


def base() -> Path:
    """The common tree, made with debootstrap unless it is there: one to two minutes."""
    name = hashlib.sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:10]
    tree, part = CACHE / f"debian-{name}", CACHE / f"debian-{name}.part"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            shutil.rmtree(part, ignore_errors=True)
            words = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(part)]
            done = subprocess.run([*words, MIRROR], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"debootstrap failed:\n{done.stdout[-3000:]}"
            _prepare(part)
            part.replace(tree)
    return tree


def _prepare(tree: Path) -> None:
    """An account, a small journal, and no clock service or console that would wait for hardware."""

    def inside(*words: str) -> None:
        subprocess.run(["chroot", str(tree), *words], check=True, capture_output=True)

    inside("useradd", "--create-home", "--shell", "/bin/bash", USER)
    (tree / "etc/sudoers.d/admin").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/resolv.conf").write_text("")
    journal = tree / "etc/systemd/journald.conf.d/small.conf"
    journal.parent.mkdir(parents=True)
    journal.write_text("[Journal]\nSystemMaxUse=16M\nRateLimitBurst=0\n")
    inside("systemctl", "mask", "console-getty.service", "getty.target")


class Machine:
    """One host. `pid` is the process whose end is its power cut."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name, self.address = name, f"10.78.0.{number}"
        self.folder = network.folder / f"{network.folder.name}-{name}"
        self._network, self.port = network, f"port{number}"
        self._holder: subprocess.Popen[bytes] | None = None
        self.pid = 0
        for part in ("disk", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        self._write("etc/hosts", self._network.hosts_file)
        self._write("etc/hostname", f"{name}\n")
        keys = self.folder / "disk" / "home" / USER / ".ssh"
        self._write(
            f"home/{USER}/.ssh/authorized_keys", network.key.with_suffix(".pub").read_text()
        )
        owner = (network.base / "home" / USER).stat()
        for path in (keys.parent, keys, keys / "authorized_keys"):
            os.chown(path, owner.st_uid, owner.st_gid)
            path.chmod(0o700 if path.is_dir() else 0o600)

    def _write(self, path: str, text: str) -> None:
        target = self.folder / "disk" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    @property
    def on(self) -> bool:
        return self._holder is not None

    def power_on(self) -> None:
        """Boot; returns when sshd answers. What the disk held before is still there."""
        spaces = ["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
        words = [str(BOOT), self.name, str(self._network.base), str(self.folder)]
        with (self.folder / "console.log").open("ab") as log:
            self._holder = subprocess.Popen(
                [*_HOLD, *spaces, "sh", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = self._child_of(self._holder.pid)
        self._network.switch(
            f"ip link add {self.port} type veth peer name host0 netns {self.pid}",
            f"ip link set {self.port} master br0 up",
        )
        enter = ["nsenter", f"--target={self.pid}", "--net"]
        for command in (
            "ip link set lo up",
            f"ip addr add {self.address}/24 dev host0",
            "ip link set host0 up",
        ):
            subprocess.run([*enter, *command.split()], check=True, capture_output=True)
        self.wait_up()

    def _child_of(self, pid: int) -> int:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.01)
        raise AssertionError(f"{self.name} does not start")

    def wait_up(self, seconds: float = 60.0) -> None:
        """Until sshd lets the administrator in and the boot is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done = self.run("systemctl is-system-running", check=False)
            if done.stdout.strip() in ("running", "degraded"):
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.name} does not come up: {done.stdout} {done.stderr}")

    def power_off(self) -> None:
        """Cut the power: nothing on the host gets to do anything more."""
        if self._holder is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._holder.kill()
        self._holder.wait()
        self._holder, self.pid = None, 0
        with contextlib.suppress(AssertionError):  # the kernel removes it too, in its own time
            self._network.switch(f"ip link del {self.port}")

    def unplug(self) -> None:
        """Cut its network. Connections stay as they are, and nothing gets through."""
        self._network.switch(f"ip link set {self.port} down")

    def plug(self) -> None:
        self._network.switch(f"ip link set {self.port} up")

    def run(
        self, command: str, *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host over SSH, as the administrator."""
        ssh = ["ssh", "-F", str(self._network.ssh_config), self.address, command]
        done = self._network.outside(*ssh, timeout=timeout)
        if check:
            assert done.returncode == 0, f"{self.name}: {command}\n{done.stdout}\n{done.stderr}"
        return done

    def runs(self, pid: int) -> bool:
        """Whether a process of the host, by its pid there, is alive."""
        state = self.run(f"cut -d' ' -f3 /proc/{pid}/stat 2>/dev/null", check=False).stdout.strip()
        return state != "" and state not in "ZX"


class Network:
    """Hosts on one switch, and the place outside of them from which they are administered."""

    def __init__(self, folder: Path, tree: Path, names: list[str]) -> None:
        self.folder, self.base = folder, tree
        self.key, self.ssh_config = folder / "key", folder / "ssh_config"
        addresses = {name: f"10.78.0.{number}" for number, name in enumerate(names, 1)}
        self.addresses = addresses
        lines = [f"{address} {name}" for name, address in addresses.items()]
        self.hosts_file = "127.0.0.1 localhost\n" + "\n".join(lines) + "\n"
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)]
        subprocess.run(keygen, check=True)
        (host_key,) = tree.glob("etc/ssh/ssh_host_ed25519_key.pub")
        known = [f"{address} {host_key.read_text()}" for address in addresses.values()]
        (folder / "known_hosts").write_text("".join(known))
        self.ssh_config.write_text(
            f"Host *\n  User {USER}\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder / 'known_hosts'}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n  ConnectTimeout 5\n  BatchMode yes\n  LogLevel ERROR\n"
        )
        self._holder = subprocess.Popen(
            [*_HOLD, "--net", "sh", "-c", "echo ready; exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self.switch(
            "ip link set lo up",
            "ip link add br0 type bridge forward_delay 0",
            "ip addr add 10.78.0.254/24 dev br0",
            "ip link set br0 up",
        )
        self.machines = [Machine(self, name, number) for number, name in enumerate(names, 1)]

    def outside(
        self,
        *words: str,
        timeout: float = 120,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine, on the hosts' network."""
        return subprocess.run(
            ["nsenter", f"--target={self._holder.pid}", "--net", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env=env,
            cwd=cwd,
        )

    def copy(self, machine: Machine, source: Path, target: str) -> None:
        """Copy a file to a host."""
        ssh = ["ssh", "-F", str(self.ssh_config), machine.address, f"cat > {target}"]
        words = ["nsenter", f"--target={self._holder.pid}", "--net", *ssh]
        with source.open("rb") as file:
            subprocess.run(words, stdin=file, check=True, capture_output=True, timeout=60)

    @contextlib.contextmanager
    def sniffer(self, machine: Machine, word: str) -> Iterator[subprocess.Popen[str]]:
        """Listens on a host's link for a word (`sniff.py`)."""
        enter = ["nsenter", f"--target={self._holder.pid}", "--net"]
        words = [*enter, sys.executable, str(SNIFF), machine.port, word]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as listening:
            try:
                assert listening.stdout is not None
                assert listening.stdout.readline() == "ready\n"
                yield listening
            finally:
                listening.kill()

    def switch(self, *commands: str) -> None:
        """Run commands where the bridge is."""
        for command in commands:
            done = self.outside(*command.split(), timeout=20)
            assert done.returncode == 0, f"{command}: {done.stderr}"

    def power_on(self) -> None:
        for machine in self.machines:
            machine.power_on()

    def close(self) -> None:
        for machine in self.machines:
            machine.power_off()
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


@contextlib.contextmanager
def network(*names: str) -> Iterator[Network]:
    """Bare hosts of these names, switched off. Nothing of them is left at the end."""
    tree = base()
    folder = Path(tempfile.mkdtemp(prefix="qdn-", dir=_disks()))
    made = Network(folder, tree, list(names))
    try:
        yield made
    finally:
        made.close()
        _remove(folder)


def _disks() -> str:
    """Where the disks of hosts are: in memory where there is enough, for each host installs 100,000 files."""
    memory = Path("/dev/shm")
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        (free,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        if min(free << 10, shutil.disk_usage(memory).free) > _ROOM:
            return str(memory)
    return "/tmp"


def _remove(folder: Path) -> None:
    """The kernel takes a moment to undo the mounts and control groups of a host that is gone."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        groups = [
            Path(path)
            for tree in ("", "unified", "systemd")
            for group in Path("/sys/fs/cgroup", tree).glob(f"{folder.name}-*")
            for path, _, _ in os.walk(group, topdown=False)
        ]
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()
        if not folder.exists() and not any(group.exists() for group in groups):
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} or its control groups cannot be removed")
