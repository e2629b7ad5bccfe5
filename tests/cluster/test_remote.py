"""A laptop that steers a cluster of several hosts by SSH, over a network that fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.cluster.fleet import GATE, STEADY, Fleet
from tests.cluster.hosts import ROOT, Host
from tests.console import terminals
from tests.waiting import until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(terminals.sshd_missing()), reason=terminals.sshd_missing()),
]

QD = [sys.executable, "-c", "import sys; from console.cli.main import main; sys.exit(main())"]


class Laptop:
    """A host that is in no cluster, with the keys for the head."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.head = fleet, fleet.head
        self.host: Host = fleet.network.add("laptop")
        self._serve()

    def _serve(self) -> None:
        keys, ssh = self.head.folder / "tmp" / "ssh", self.host.folder / "tmp" / "home" / ".ssh"
        keys.mkdir()
        ssh.mkdir(parents=True, mode=0o700)
        for path in (keys / "host", ssh / "id_ed25519"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
            subprocess.run(words, check=True, timeout=20)
        (keys / "authorized").write_text((ssh / "id_ed25519.pub").read_text())
        (ssh / "config").write_text("ServerAliveInterval 1\n")
        kind, key, *_ = (keys / "host.pub").read_text().split()
        (ssh / "known_hosts").write_text(f"{self.head.address} {kind} {key}\n")
        (keys / "config").write_text(
            "Port 22\nHostKey /tmp/ssh/host\nUsePAM no\nAuthorizedKeysFile /tmp/ssh/authorized\n"
            "StrictModes no\nPasswordAuthentication no\nPidFile none\nSetEnv QD_HOME=/tmp/q\n"
        )
        sshd = terminals.sshd()
        assert sshd is not None
        self.head.run(sshd, "-f", "/tmp/ssh/config")

    def qd(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.host.run("env", "HOME=/tmp/home", *QD, *words)

    def close(self) -> None:
        self.host.power_off()
        self.fleet.network.hosts.remove(self.host)
        self.head.kill(*(p for p, words in self.head.processes().items() if "sshd" in words[0]))


@pytest.fixture
def laptop(fleet: Fleet) -> Iterator[Laptop]:
    made = Laptop(fleet)
    try:
        yield made
    finally:
        made.close()


def test_a_laptop_submits_follows_and_loses_its_network_meanwhile(
    fleet: Fleet, laptop: Laptop
) -> None:
    laptop.qd("context", "add", "lab", f"root@{fleet.head.address}", "--use")
    status = json.loads(laptop.qd("status", "--json").stdout)
    assert (status["cluster"]["nodes"], status["socket"]) == (3, "/tmp/q/run/api.sock")

    options = ["--nodes", "2", "--procs", "1", "--cpus", "2", "--python", sys.executable]
    workdir = ["--workdir", str(ROOT / "examples" / "plain")]
    done = laptop.qd("submit", *options, *workdir, "--wait", "--json", "--", "python train.py")
    job = json.loads(done.stdout)["id"]
    assert fleet.job(job)["state"] == "SUCCEEDED"
    assert "[rank 1/2] epoch 10/10" in fleet.log(job, 1, 1)

    (fleet.host("w1").folder / "tmp" / "gate").unlink(missing_ok=True)
    steady = f"{sys.executable} -u {STEADY} {GATE}"
    command = ["--cpus", "2", "--no-workdir", "--json", "--", steady]
    job = json.loads(laptop.qd("submit", *command).stdout)["id"]
    fleet.until_ticking(job)
    followed: list[subprocess.CompletedProcess[str]] = []
    following = threading.Thread(target=lambda: followed.append(laptop.qd("logs", job, "-f")))
    following.start()
    until(lambda: fleet.ticks(job, 1, 0) > 40, "some lines")
    laptop.host.unplug()
    before = fleet.ticks(job, 1, 0)
    # The kernel of the head still holds what it could not send; the laptop's keepalives find out.
    until(lambda: fleet.ticks(job, 1, 0) > before + 150, "the job not to mind")
    laptop.host.plug()
    fleet.finish(job)
    following.join(60)
    (told,) = followed
    assert "connection lost" in told.stderr
    lines = [line for line in told.stdout.splitlines() if line]
    stored = fleet.log(job, 1, 0).splitlines()
    assert lines == stored, "no line is lost or doubled"
