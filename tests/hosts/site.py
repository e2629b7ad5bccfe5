"""A cluster that the playbooks make of bare hosts, and what an administrator does with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.hosts.machines import USER, Machine, Network
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PLAYBOOKS = ROOT / "ansible"
STEADY = ROOT / "tests" / "chaos" / "steady.py"
GATE = "/tmp/gate"
"""Steady ranks run until it is there."""


def wheelhouse(folder: Path) -> Path:
    """The archive that the playbooks install, of the code as it is here."""
    words = ["make", "wheelhouse", f"DIST={folder}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "quarterdeck.tar"


class Site:
    """`head` and workers on one network, and an account here that administers them."""

    def __init__(self, network: Network, archive: Path) -> None:
        self.network = network
        self.head, *self.workers = network.machines
        self.home = network.folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        lines = [f"Host {name}\n  HostName {a}\n" for name, a in network.addresses.items()]
        config = self.home / ".ssh" / "config"
        config.write_text("".join(lines) + network.ssh_config.read_text())
        self.inventory = network.folder / "inventory.ini"
        self.variables: dict[str, Any] = {
            "quarterdeck_wheelhouse": str(archive),
            "quarterdeck_apt_update": False,
            "quarterdeck_members": [USER],
            "quarterdeck_cpus": 2,
            "quarterdeck_simulate_gpus": 1,
            "quarterdeck_min_free_gib": 1,
        }
        self.write_inventory(self.workers)

    def write_inventory(self, workers: list[Machine]) -> None:
        lines = ["[quarterdeck_head]", f"head ansible_host={self.head.address}"]
        lines += ["[quarterdeck_workers]"]
        lines += [f"{worker.name} ansible_host={worker.address}" for worker in workers]
        lines += ["[quarterdeck:children]", "quarterdeck_head", "quarterdeck_workers"]
        lines += ["[quarterdeck:vars]", f"ansible_user={USER}"]
        lines += [f"ansible_ssh_common_args='-F {self.network.ssh_config}'"]
        self.inventory.write_text("\n".join(lines) + "\n")

    def play(self, book: str, *words: str, timeout: float = 900) -> dict[str, dict[str, int]]:
        """Run a playbook; host -> what it counted (ok, changed, failed, ...)."""
        done = self.attempt(book, *words, timeout=timeout)
        assert done.returncode == 0, (
            f"{book} {words}:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
        )
        return recap(done.stdout)

    def attempt(
        self, book: str, *words: str, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook, whatever comes of it."""
        ansible = str(Path(sys.prefix) / "bin" / "ansible-playbook")
        argv = [ansible, "-i", str(self.inventory), "-e", json.dumps(self.variables), *words, book]
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("QD_", "ANSIBLE_"))}
        environ |= {"ANSIBLE_HOME": str(self.home / "ansible"), "ANSIBLE_NOCOLOR": "1"}
        environ["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(self.home / "cp")
        environ["ANSIBLE_SSH_ARGS"] = "-C -o ControlMaster=auto -o ControlPersist=15s"
        environ |= {"PATH": f"{Path(sys.prefix) / 'bin'}:{environ['PATH']}"}
        return self.network.outside(*argv, timeout=timeout, env=environ, cwd=PLAYBOOKS)

    # -- the cluster, from outside --

    def qd(
        self, *words: str, check: bool = True, user: str = USER
    ) -> subprocess.CompletedProcess[str]:
        """Run `qd --host` as a person with an account on the head would."""
        program = "import sys; from console.cli.main import main; sys.exit(main())"
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("QD_", "XDG_"))}
        environ |= {"HOME": str(self.home), "QD_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        environ |= {"QD_HOST": f"{user}@head", "QD_SSH_IDLE": "10"}
        folder = self.home / "empty"
        folder.mkdir(exist_ok=True)
        done = self.network.outside(
            sys.executable, "-c", program, *words, env=environ, cwd=folder, timeout=180
        )
        if check:
            assert done.returncode == 0, f"qd {words}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.qd(*words, "--json").stdout)

    def add_person(self, name: str) -> None:
        """An account on the head, with the administrator's key, that the next run lets use the cluster."""
        folder = f"/home/{name}/.ssh"
        self.head.run(f"sudo useradd --create-home --shell /bin/bash {name}")
        self.head.run(f"sudo install -d -m 700 -o {name} -g {name} {folder}")
        self.head.run(f"sudo install -m 600 -o {name} -g {name} .ssh/authorized_keys {folder}/")
        self.variables["quarterdeck_members"].append(name)

    def nodes(self) -> dict[str, str]:
        """Name -> state."""
        return {node["name"]: node["state"] for node in self.json("nodes")}

    def submit(self, *words: str, user: str = USER) -> str:
        return str(json.loads(self.qd("submit", "--json", *words, user=user).stdout)["id"])

    def steady(self, lease: str = "90s") -> str:
        """A job of one steady rank on each of two hosts, once both have said something."""
        for machine in self.network.machines:
            machine.run(f"sudo rm -f {GATE}")
            self.network.copy(machine, STEADY, "/tmp/steady.py")
        file = self.home / "steady.json"
        command = f"python3 -u /tmp/steady.py {GATE}"
        spec = {"command": command, "nodes": 2, "lease": lease, "max_restarts": 3}
        file.write_text(json.dumps(spec))
        job = self.submit(str(file), "--no-workdir")
        until(lambda: all(self.ticks(job, rank) > 5 for rank in (0, 1)), f"{job} to tick", 120)
        return job

    def ticks(self, job: str, rank: int) -> int:
        return self.log(job, rank).count("\ntick ")

    def log(self, job: str, rank: int) -> str:
        return self.qd("logs", job, "--rank", str(rank), check=False).stdout

    def ranks(self, job: str) -> dict[str, int]:
        """Node -> pid on it."""
        last = self.json("job", job)["attempts"][-1]
        return {rank["node"]: rank["pid"] for rank in last["ranks"]}

    def finish(self, job: str) -> dict[str, Any]:
        """Let a steady job end; its view. Each of its lines is there once, and in order."""
        for machine in self.network.machines:
            machine.run(f"touch {GATE}")
        self.qd("wait", job)
        for rank in (0, 1):
            lines = self.log(job, rank).splitlines()
            ticks = [int(line.split()[1]) for line in lines if line.startswith("tick")]
            assert ticks == list(range(ticks[0], ticks[0] + len(ticks))), lines
        view: dict[str, Any] = self.json("job", job)
        return view

    def machine(self, name: str) -> Machine:
        return next(machine for machine in self.network.machines if machine.name == name)

    def logs(self) -> str:
        """The ends of the services' journals and logs, for whoever reads a failure."""
        parts = []
        for machine in self.network.machines:
            if machine.on:
                command = (
                    "sudo journalctl -n 30 --no-pager -o cat -u 'quarterdeck-*';"
                    "sudo sh -c 'tail -n 20 /var/lib/quarterdeck/daemon/*.log'"
                )
                done = machine.run(command, check=False)
                parts.append(f"--- {machine.name}\n{done.stdout}{done.stderr}")
        return "\n".join(parts)


def recap(text: str) -> dict[str, dict[str, int]]:
    """Ansible's last words: host -> counts."""
    found = {}
    for line in text.partition("PLAY RECAP")[2].splitlines():
        if match := re.match(r"(\S+)\s*:\s*(ok=.*)", line):
            pairs = (pair.split("=") for pair in match[2].split())
            found[match[1]] = {name: int(value) for name, value in pairs}
    return found
