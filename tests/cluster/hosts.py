"""Hosts on one machine: namespaces joined by a switch, all of it gone with the processes that hold it.

A host is a process tree in mount, pid, net, uts and ipc namespaces of its own, with its own /tmp,
/dev/shm, host name and boot id, and one network card. The cards' other ends hang on a bridge in a
network namespace that nothing else lives in. No namespace has a name, nothing is made outside of
them, and every holder dies with the test process, so neither a failed test nor a killed one leaves a
link, a bridge or a process, and any number of networks can be there side by side.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
INIT = Path(__file__).with_name("init.py")
HOME = "/tmp/q"
"""QD_HOME on every host: the same name, another folder."""

_HOLD = ["setpriv", "--pdeathsig", "KILL", "unshare"]
"""Dies with the thread that started it. pytest's main thread lives as long as pytest."""


def cannot() -> str:
    """Why hosts cannot be made here; "" when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "unshare", "nsenter", "setpriv", "mount"):
        if shutil.which(tool) is None:
            return f"there is no `{tool}` (util-linux, iproute2)"
    probe = (
        "mount -t tmpfs tmpfs /mnt && ip link add br0 type bridge && "
        "ip link add v0 type veth peer name v1"
    )
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--uts", "--ipc", "sh", "-c", probe]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return f"this machine makes no namespaces or links: {done.stderr.strip()}" * bool(
        done.returncode
    )


class Host:
    """One machine. `pid` is its first process, as the test sees it."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name, self.address = name, f"10.77.0.{number}"
        self.folder = network.folder / name
        self.home = self.folder / "tmp" / HOME.removeprefix("/tmp/")
        self._network, self._port = network, f"port{number}"
        self._holder: subprocess.Popen[str] | None = None
        self.pid = 0

    @property
    def on(self) -> bool:
        return self._holder is not None

    def power_on(self) -> None:
        """Boot; what the disk held before is still there."""
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        options = ["--mount", "--pid", "--net", "--uts", "--ipc", "--mount-proc", "--fork"]
        init = [str(INIT), self.name, str(self.folder), str(ROOT), sys.prefix, sys.base_prefix]
        with (self.folder / "boot.log").open("w") as log:
            self._holder = subprocess.Popen(
                [*_HOLD, *options, "--kill-child", sys.executable, "-S", *init],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._holder.stdout is not None
        ready = self._holder.stdout.readline() == "ready\n"
        assert ready, f"{self.name} does not boot: {(self.folder / 'boot.log').read_text()}"
        held = self._holder.pid
        self.pid = int(Path(f"/proc/{held}/task/{held}/children").read_text())
        self._network.switch(
            f"ip link add {self._port} type veth peer name eth0 netns {self.pid}",
            f"ip link set {self._port} master br0 up",
        )
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def power_off(self) -> None:
        """Cut the power: the network first, so that nothing of its end is heard, then everything."""
        if self._holder is None:
            return
        with contextlib.suppress(AssertionError):
            self.unplug()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        self._holder, self.pid = None, 0
        with contextlib.suppress(AssertionError):  # the kernel removes it too, in its own time
            self._network.switch(f"ip link del {self._port}")

    def unplug(self) -> None:
        """Cut its network. Connections stay as they are, and nothing gets through."""
        self._network.switch(f"ip link set {self._port} down")

    def plug(self) -> None:
        self._network.switch(f"ip link set {self._port} up")

    def run(
        self, *words: str, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, as root, in the project's folder."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--uts", "--ipc"]
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("QD_", "RAY_", "XDG_"))}
        done = subprocess.run(
            [*enter, "env", f"--chdir={ROOT}", *words],
            env=environ | {"QD_HOME": HOME},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, (
                f"{self.name}: {words}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
            )
        return done

    def qd(self, *words: str, **options: float | bool) -> subprocess.CompletedProcess[str]:
        """Run a `qd` command on the host."""
        program = "import sys; from console.cli.main import main; sys.exit(main())"
        return self.run(sys.executable, "-c", program, *words, **options)  # type: ignore[arg-type]

    def processes(self) -> dict[int, list[str]]:
        """The host's processes by their pid on it, with their command lines. Empty when it is off."""
        found = {}
        for folder in Path(f"/proc/{self.pid}/root/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                if words != [b""]:
                    found[int(folder.name)] = [word.decode(errors="replace") for word in words]
        return found

    def pids_of(self, name: str) -> list[int]:
        """The host's processes whose program or title begins so ("raylet", "ray::AgentActor")."""
        return [p for p, words in self.processes().items() if Path(words[0]).name.startswith(name)]

    def runs(self, pid: int) -> bool:
        """Whether a process of the host lives and is none of the dead who wait for their parent."""
        try:
            stat = Path(f"/proc/{self.pid}/root/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    def kill(self, *pids: int) -> None:
        """SIGKILL to all of them at once."""
        self.run("kill", "-KILL", *map(str, pids))

    def logs(self, lines: int = 15) -> str:
        """The ends of the daemons' logs, for whoever reads a failure."""
        parts = []
        for path in sorted((self.home / "state" / "daemon").glob("*.log")):
            end = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append(f"--- {self.name} {path.name}\n" + "\n".join(end))
        return "\n".join(parts)


class Network:
    """Hosts on one switch. `pid` is the process that holds the switch's namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[Host] = []
        self._holder = subprocess.Popen(
            [*_HOLD, "--net", "sh", "-c", "echo ready; exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self.pid = self._holder.pid
        self.switch("ip link add br0 type bridge forward_delay 0", "ip link set br0 up")

    def switch(self, *commands: str) -> None:
        """Run commands where the bridge is."""
        for command in commands:
            words = ["nsenter", f"--target={self.pid}", "--net", *command.split()]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
            assert done.returncode == 0, f"{command}: {done.stderr}"

    def add(self, name: str) -> Host:
        """A new host that is on and reaches the others."""
        host = Host(self, name, len(self.hosts) + 1)
        self.hosts.append(host)
        host.power_on()
        return host

    def close(self) -> None:
        for host in self.hosts:
            host.power_off()
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """An empty network with a folder of its own; nothing of it is left at the end."""
    folder = Path(tempfile.mkdtemp(prefix="qdh-", dir="/tmp"))
    made = Network(folder)
    try:
        yield made
    finally:
        made.close()
        _remove(folder)


def _remove(folder: Path) -> None:
    """The kernel takes a moment to undo the mounts of a host that is gone."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} cannot be removed")
