"""A checkpoint of gigabytes that comes back from one node and goes to another, beside a job on a short lease.

`python -m tests.bench.largefiles [GIB]`, as root: hosts in network namespaces (`tests/cluster`). The peer is
a plain copy of the same file over the same link: `sendfile` into a socket, `recv` into a file, one fsync.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.fleet import GATE, STEADY, Fleet
from tests.cluster.hosts import Host, cannot, network
from tests.waiting import until

LEASE = 10.0
_MIB = 1 << 20

_RECEIVER = """
import os, socket, sys, time
server = socket.create_server(("", 7777)); print("ready", flush=True)
peer, _ = server.accept()
view = memoryview(bytearray(1 << 20))
with open(sys.argv[1], "wb") as file:
    while count := peer.recv_into(view): file.write(view[:count])
    file.flush(); os.fsync(file.fileno())
peer.sendall(b"x")
"""
_SENDER = """
import socket, sys, time
started = time.monotonic()
with open(sys.argv[2], "rb") as file, socket.create_connection((sys.argv[1], 7777)) as peer:
    peer.sendfile(file); peer.shutdown(socket.SHUT_WR); peer.recv(1)
print(time.monotonic() - started)
"""


@dataclass
class Watch:
    """Most memory of each of our processes above what it took at the start, and the longest time that a
    lease was not renewed."""

    fleet: Fleet
    bystander: str
    start: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    gap: float = 0.0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.1):
                self.look()

        self.most, self.gap, self.start = {}, 0.0, self.look()
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def look(self) -> dict[str, int]:
        found = {name: memory(pid) for name, pid in ours(self.fleet).items()}
        for name, size in found.items():
            self.most[name] = max(self.most.get(name, 0), size)
        for worker in self.fleet.workers:
            for lease in (worker.home / "state/node/attempts").glob(
                f"*-{self.bystander}-*.*/lease"
            ):
                with contextlib.suppress(OSError):
                    self.gap = max(self.gap, time.time() - lease.stat().st_mtime)
        return found

    def grown(self) -> dict[str, float]:
        """MiB above the start."""
        return {n: round((m - self.start.get(n, m)) / _MIB, 1) for n, m in self.most.items()}


def memory(pid: int) -> int:
    """Bytes of a process that are its own: without what it maps of Ray's object store."""
    with contextlib.suppress(psutil.Error, OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        return (sizes["Private_Dirty:"] + sizes["Private_Clean:"]) * 1024
    return 0


def ours(fleet: Fleet) -> dict[str, int]:
    found = {}
    for host in fleet.network.hosts:
        for pid, words in host.processes().items():
            text = " ".join(words)
            for mark, name in (
                ("agents.fabric.driver", "driver"),
                ("agents.daemon", "controller"),
                ("ray::AgentActor", "agent"),
            ):
                if mark in text and "python -c" not in text:
                    found[f"{host.name} {name}"] = pid_outside(host, pid)
    return found


def pid_outside(host: Host, pid: int) -> int:
    """The same process as this test's namespace numbers it."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                for line in (folder / "status").read_text().splitlines():
                    if line.startswith("NSpid:"):
                        numbers = line.split()[1:]
                        inside = (folder / "ns/pid").readlink() == Path(
                            f"/proc/{host.pid}/ns/pid"
                        ).readlink()
                        if inside and numbers[-1] == str(pid):
                            return int(folder.name)
    return 0


def plain_copy(source: Host, target: Host, path: str) -> float:
    """Seconds that a plain copy of a file takes between two hosts."""
    over: list[str] = []
    thread = threading.Thread(
        target=lambda: over.append(
            target.run(sys.executable, "-c", _RECEIVER, "/tmp/copy", timeout=600).stdout
        )
    )
    thread.start()
    time.sleep(0.5)
    told = source.run(sys.executable, "-c", _SENDER, target.address, path, timeout=600).stdout
    thread.join()
    (target.folder / "tmp" / "copy").unlink()
    return float(told)


def measure(gib: float) -> dict[str, Any]:
    size = int(gib * 2**30)
    with network() as net:
        fleet = Fleet(net, 2)
        fleet.up()
        one = fleet.workers[0]
        bystander = fleet.submit(
            f"{sys.executable} -u {STEADY} {GATE}", nodes=1, resources={"cpu": 1}, lease=LEASE
        )
        fleet.until_ticking(bystander)
        watch = Watch(fleet, bystander)
        result: dict[str, Any] = {"GiB": gib}
        maker = (
            "import os,sys\n"
            "with open(os.environ['QD_CHECKPOINT_DIR']+'/model','wb') as f:\n"
            f"  for _ in range({size >> 20}): f.write(os.urandom(1<<20))\n"
        )
        script = one.folder / "tmp" / "maker.py"
        for host in fleet.workers:
            (host.folder / "tmp" / script.name).write_text(maker)
        job = fleet.submit(
            f"{sys.executable} /tmp/maker.py && date +%s.%N",
            nodes=1,
            resources={"cpu": 1},
            checkpoint={"artifact": True},
        )
        with watch.watching():
            view = fleet.wait(job, patience=580)
        assert view["state"] == "SUCCEEDED", view["reason"]
        written = float(fleet.log(job, 1, 0).splitlines()[-1])
        result["back"] = round(datetime.fromisoformat(view["ended_at"]).timestamp() - written, 2)
        result["back grown MiB"], result["back lease gap"] = watch.grown(), round(watch.gap, 2)
        (made,) = view["artifacts"]
        other = view["attempts"][0]["ranks"][0]["node"]
        fleet.client.act(f"/v1/nodes/{other}/drain", {})
        submitted = time.time()
        with watch.watching():
            again = fleet.submit(
                "date +%s.%N", nodes=1, resources={"cpu": 1}, checkpoint={"start": made["digest"]}
            )
            view = fleet.wait(again, patience=580)
        assert view["state"] == "SUCCEEDED", view["reason"]
        target = fleet.host(view["attempts"][0]["ranks"][0]["node"])
        result["to"] = round(float(fleet.log(again, 1, 0).split()[0]) - submitted, 2)
        result["to grown MiB"], result["to lease gap"] = watch.grown(), round(watch.gap, 2)
        assert len(fleet.job(bystander)["attempts"]) == 1, "the bystander's lease ran out"
        (blob,) = (
            path
            for path in (fleet.head.home / "state/blobs/sha256").glob("??/*")
            if path.stat().st_size == size
        )
        inside = "/tmp/" + str(blob.relative_to(fleet.head.folder / "tmp"))
        result["plain copy"] = round(plain_copy(fleet.head, target, inside), 2)
        fleet.open_gate()
        until(lambda: fleet.job(bystander)["state"] == "SUCCEEDED", "the bystander to end")
        fleet.client.act(f"/v1/nodes/{other}/undrain", {})
        fleet.down()
        return result


if __name__ == "__main__":
    if reason := cannot():
        sys.exit(reason)
    print(json.dumps(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), indent=2))
