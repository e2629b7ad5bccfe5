"""A cluster over several hosts, its jobs, and the account that must be given of them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from console.client import Client
from jobs.base.states import TERMINAL
from jobs.spec.job import JobSpec
from tests.cluster.hosts import ROOT, Host, Network
from tests.waiting import PATIENCE, until

STEADY = ROOT / "tests" / "chaos" / "steady.py"
"""Ticks until its gate is there; each tick is a line and a metric point. It starts within a moment."""

GATE = "/tmp/gate"


class Fleet:
    """A head and its workers, each with two CPUs and room for one rank of a gang.

    The head is drained, so that gangs of two lie on the workers; `spare` makes it take jobs.
    """

    def __init__(self, network: Network, workers: int) -> None:
        self.network = network
        self.spared = False
        self.head = network.add("head")
        self.client = Client(self.head.home / "run" / "api.sock")
        self.workers = [network.add(f"w{number + 1}") for number in range(workers)]

    def host(self, name: str) -> Host:
        return next(host for host in self.network.hosts if host.name == name)

    def up(self) -> None:
        """Start the head, and let every worker join it."""
        self.head.qd("up", "--listen", self.head.address, "--cpus", "2", "--simulate-gpus", "0")
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.join, self.workers))
        self.spare(False)
        self.until_well()

    def spare(self, on: bool) -> None:
        """Whether the head takes jobs too."""
        self.client.act(f"/v1/nodes/head/{'undrain' if on else 'drain'}", {})
        self.spared = on

    def join(self, worker: Host) -> None:
        record = json.loads((self.head.home / "state" / "cluster.json").read_text())
        shutil.copy(self.head.home / "state" / "ray-token", worker.folder / "tmp" / "token")
        words = ["--token-file", "/tmp/token", "--cpus", "2", "--simulate-gpus", "1"]
        worker.qd("join", record["ray_address"], *words)

    def join_again(self, worker: Host) -> None:
        """Bring back a worker that was switched off. Ray gives itself 30 s to start, which a busy
        machine may not grant it at once; then the supervisor tries again, and `qd join` may have given
        up waiting meanwhile."""
        worker.power_on()
        worker.qd("join", check=False)
        self.until_node(worker.name, "READY", patience=120)

    def down(self) -> None:
        """Take everything down in order; nothing may be left on any host."""
        for host in self.network.hosts:
            (host.folder / "tmp" / "gate").touch()
        self.head.qd("down", "--force")
        for worker in self.workers:
            worker.qd("leave", "--force")
        for host in self.network.hosts:
            left = {pid: words for pid, words in host.processes().items() if pid != 1}
            assert left == {}, f"{host.name}: {left}"

    # -- nodes --

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in self.client.get("/v1/nodes")}

    def until_node(self, name: str, *states: str, patience: float = PATIENCE) -> None:
        until(lambda: self.nodes()[name]["state"] in states, f"{name} to be {states}", patience)

    def until_well(self) -> None:
        """Every host is there and holds nothing, and the control plane has no complaint."""

        def look() -> bool:
            nodes = self.nodes()
            return all(
                (node := nodes.get(host.name)) is not None
                and node["state"] in ("READY", "DRAINED")
                and not node["jobs"]
                and node["free_cpus"] == node["cpu"]["count"]
                and not list((host.home / "state" / "node" / "attempts").iterdir())
                for host in self.network.hosts
            )

        until(look, "all nodes to be ready and free")
        until(lambda: self.client.get("/v1/status")["state"] == "ok", "the status to be ok")

    # -- jobs --

    def submit(self, command: str, **fields: Any) -> str:
        fields = {"nodes": 2, "resources": {"cpu": 2}, "grace": 2.0, "notice": 0.0, **fields}
        spec = JobSpec.from_json({"command": command, **fields}).to_json()
        answer = self.client.act("/v1/jobs", {"spec": spec, "key": os.urandom(8).hex()})
        job: str = answer["id"]
        return job

    def steady(self, **fields: Any) -> str:
        """A gang of one steady rank on each of two workers, once the controller has heard of both."""
        for host in self.network.hosts:
            (host.folder / "tmp" / "gate").unlink(missing_ok=True)
        job = self.submit(f"{sys.executable} -u {STEADY} {GATE}", **fields)
        self.until_ticking(job)
        assert sorted(self.ranks(job)) == ["w1", "w2"]
        return job

    def until_ticking(self, job: str, attempt: int = 1, patience: float = PATIENCE) -> None:
        def look() -> bool:
            ranks = len(self.attempt(job, attempt)["ranks"])
            return ranks > 0 and all(self.ticks(job, attempt, rank) > 10 for rank in range(ranks))

        until(look, f"{job}.{attempt} to tick", patience)

    def open_gate(self) -> None:
        """Let the steady ranks end."""
        for host in self.network.hosts:
            (host.folder / "tmp" / "gate").touch()

    def finish(self, job: str) -> dict[str, Any]:
        self.open_gate()
        view = self.wait(job)
        assert view["state"] == "SUCCEEDED", view["reason"]
        return view

    def job(self, job: str) -> dict[str, Any]:
        view: dict[str, Any] = self.client.get(f"/v1/jobs/{job}")
        return view

    def attempt(self, job: str, number: int) -> dict[str, Any]:
        """An attempt's view; one that is not there yet has no ranks."""
        attempts: list[dict[str, Any]] = self.job(job)["attempts"]
        known = (one for one in attempts if one["number"] == number)
        return next(known, {"number": number, "ranks": []})

    def wait(self, job: str, *states: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The job once it is in one of `states` (any that is final without)."""
        wanted = states or tuple(TERMINAL)

        def look() -> dict[str, Any] | None:
            view = self.job(job)
            return view if view["state"] in wanted else None

        found = until(look, f"{job} to be {' or '.join(wanted)}", patience)
        assert found is not None
        return found

    def ranks(self, job: str, attempt: int = 1) -> dict[str, int]:
        """Node -> pid on it, of an attempt with one rank per node."""
        return {rank["node"]: rank["pid"] for rank in self.attempt(job, attempt)["ranks"]}

    def run_on(self, ranks: dict[str, int]) -> bool:
        """Whether all of these ranks run."""
        return all(self.host(node).runs(pid) for node, pid in ranks.items())

    def reserved(self, job: str) -> list[str]:
        """The addresses where Ray has the job's reservation; none unless all of it is granted."""
        record = json.loads((self.head.home / "state" / "cluster.json").read_text())
        asked = ["reserved.py", record["ray_address"], f"-{job}-"]
        script = str(ROOT / "tests" / "cluster" / asked[0])
        told: list[str] = json.loads(self.head.run(sys.executable, script, *asked[1:]).stdout)
        return told

    def attempt_folder(self, host: Host, job: str, attempt: int) -> Path:
        """What a host has on its disk of an attempt."""
        folders = host.home / "state" / "node" / "attempts"
        (found,) = folders.glob(f"*-{job}-*.{attempt}-*")
        return found

    def guards_record(self, host: Host, job: str, attempt: int, name: str) -> dict[str, Any]:
        """What a guard has written on its host's disk."""
        record: dict[str, Any] = json.loads(
            (self.attempt_folder(host, job, attempt) / name).read_text()
        )
        return record

    def started_at(self, job: str, attempt: int) -> float:
        """When the first rank of an attempt said that it runs, on the clock that leases count on.
        All hosts of a test have the same one."""
        logs = [self.log(job, attempt, rank) for rank in (0, 1)]
        assert all(logs), f"{job}.{attempt} has said nothing"
        return min(float(log.splitlines()[0].split()[-1]) for log in logs)

    # -- the account --

    def log(self, job: str, attempt: int, rank: int) -> str:
        """A rank's log as the controller has it."""
        path = self.head.home / "state" / "logs" / job / str(attempt) / f"r{rank}.log"
        return path.read_text() if path.exists() else ""

    def ticks(self, job: str, attempt: int, rank: int) -> int:
        return self.log(job, attempt, rank).count("\ntick ")

    def points(self, job: str, attempt: int) -> list[dict[str, Any]]:
        with self.client.stream(f"/v1/jobs/{job}.{attempt}/metrics") as stream:
            return list(stream)

    def check_once(self, job: str) -> None:
        """Every line and metric point of every attempt is there once, and in order."""
        for attempt in self.job(job)["attempts"]:
            number = attempt["number"]
            points = self.points(job, number)
            for rank in (rank["rank"] for rank in attempt["ranks"]):
                lines = self.log(job, number, rank).splitlines()
                assert lines, f"rank {rank} of {job}.{number} has no log"
                first = int(lines[0].split()[1])
                ticks = [int(line.split()[1]) for line in lines if line.startswith("tick")]
                assert ticks == list(range(first + 1, first + len(ticks) + 1))
                steps = [point["step"] for point in points if point["rank"] == rank]
                if attempt["state"] == "SUCCEEDED":
                    assert (lines[-1], steps) == (f"end {ticks[-1]}", ticks)
                else:  # it may have printed one tick that it could not log any more
                    assert steps in (ticks, ticks[:-1])

    def story(self, job: str) -> str:
        """What happened to a job, for whoever reads a failure."""
        with self.client.stream("/v1/events", job=job) as stream:
            return "\n".join(f"{event['at']} {event['message']}" for event in stream)
