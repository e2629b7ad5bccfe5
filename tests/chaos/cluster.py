"""A real one-machine cluster to kill parts of, and the account that every job must give afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agents.supervisor import record as records
from console.client import Client
from jobs.base.places import Places, places
from jobs.base.states import TERMINAL
from jobs.spec.job import JobSpec
from tests.waiting import until

PATIENT = 4
"""Minutes that a cluster may take to begin on a machine that has much else to do: `qd up` waits for one."""
IN_MEMORY = 1 << 20
"""KiB of a small disk that is held in memory at most; larger ones are files, and take what is written."""
STEADY = Path(__file__).with_name("steady.py")


@dataclass(frozen=True)
class Steady:
    """A job that ticks until it is told to end."""

    id: str
    gate: Path


class Cluster:
    """What `qd up` started in `home`."""

    def __init__(
        self,
        home: Path,
        *,
        cpus: int = 4,
        simulate_gpus: int | None = 2,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.home, self.cpus, self.simulate_gpus = home, cpus, simulate_gpus
        self.environ = {**os.environ, "QD_HOME": str(home), **(environ or {})}
        self.places: Places = places(self.environ)
        self.client = Client(self.places.socket)

    def qd(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; from console.cli.main import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def up(self) -> None:
        gpus = [] if self.simulate_gpus is None else ["--simulate-gpus", str(self.simulate_gpus)]
        for _ in range(PATIENT):
            done = self.qd("up", "--cpus", str(self.cpus), *gpus)
            if "is not ready after" not in done.stderr:
                break
        assert done.returncode == 0, done.stderr

    # -- its parts --

    def controller(self) -> psutil.Process:
        return self._program("controller")

    def _program(self, name: str) -> psutil.Process:
        def look() -> psutil.Process | None:
            record = records.read(self.places.cluster_file)
            process = records.processes(record)[name] if record else None
            return psutil.Process(process.pid) if process and process.alive else None

        found = until(look, name)
        assert found is not None
        return found

    def of_ray(self, name: str) -> psutil.Process:
        """The one process of Ray's whose name begins like this ("raylet", "ray::AgentActor")."""

        def look() -> psutil.Process | None:
            with contextlib.suppress(psutil.Error):
                for process in self._program("ray").children(recursive=True):
                    command = [process.name(), *process.cmdline()[:1]]
                    if any(Path(word).name.startswith(name) for word in command):
                        return process
            return None

        found = until(look, f"Ray's {name}")
        assert found is not None
        return found

    def agent(self) -> psutil.Process:
        return self.of_ray("ray::AgentActor")

    def guard(self, job: str) -> psutil.Process:
        """The parent of the job's ranks."""
        process = psutil.Process(self.pids(job)[0]).parent()
        assert process is not None
        assert "guard.py" in " ".join(process.cmdline())
        return process

    def processes(self) -> list[psutil.Process]:
        """Whatever runs and belongs to this cluster, or once did."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = [*process.cmdline(), *process.environ().values()]
                if process.pid != os.getpid() and any(str(self.home) in word for word in words):
                    found.append(process)
        return found

    # -- its jobs --

    def submit(self, command: str, **fields: Any) -> str:
        spec = JobSpec.from_json({"command": command, **fields}).to_json()
        answer = self.client.act("/v1/jobs", {"spec": spec, "key": os.urandom(8).hex()})
        job: str = answer["id"]
        return job

    def steady(self, *options: str, **fields: Any) -> Steady:
        """A job of two steady ranks, once they tick and the controller has heard of it."""
        gate = self.home / f"gate-{os.urandom(4).hex()}"
        command = " ".join([sys.executable, "-u", str(STEADY), str(gate), *options])
        fields = {"procs_per_node": 2, "grace": 2.0, "notice": 0.0, **fields}
        job = Steady(self.submit(command, **fields), gate)
        self.until_ticking(job)
        return job

    def until_ticking(self, job: Steady, attempt: int = 1) -> None:
        """Until both ranks of an attempt have ticked some twenty times, as the controller knows."""

        def look() -> bool:
            ticks = [self.log(job.id, attempt, rank).count("\ntick ") for rank in (0, 1)]
            return min(ticks) > 20 and len(self.points(job.id, attempt)) > 20

        until(look, f"{job.id}.{attempt} to tick")

    def finish(self, job: Steady) -> dict[str, Any]:
        """Let a steady job end, and return it once it has succeeded."""
        job.gate.touch()
        view = self.wait(job.id)
        assert view["state"] == "SUCCEEDED", view["reason"]
        return view

    def job(self, job: str) -> dict[str, Any]:
        view: dict[str, Any] = self.client.get(f"/v1/jobs/{job}")
        return view

    def wait(self, job: str, *states: str) -> dict[str, Any]:
        """The job once it is in one of `states` (any that is final without)."""
        wanted = states or tuple(TERMINAL)

        def look() -> dict[str, Any] | None:
            view = self.job(job)
            return view if view["state"] in wanted else None

        found = until(look, f"{job} to be {' or '.join(wanted)}")
        assert found is not None
        return found

    def pids(self, job: str, attempt: int = -1) -> list[int]:
        """The pids of an attempt's ranks, the newest one's by default."""
        attempts = self.job(job)["attempts"]
        chosen = attempts[attempt if attempt < 0 else attempt - 1]
        return [rank["pid"] for rank in chosen["ranks"]]

    def log(self, job: str, attempt: int, rank: int) -> str:
        """A rank's log as the controller has it."""
        path = self.places.logs / job / str(attempt) / f"r{rank}.log"
        return path.read_text() if path.exists() else ""

    def points(self, job: str, attempt: int) -> list[dict[str, Any]]:
        with self.client.stream(f"/v1/jobs/{job}.{attempt}/metrics") as stream:
            return list(stream)

    def problems(self) -> str:
        """What `qd status` complains of, in one text."""
        return "\n".join(problem["what"] for problem in self.client.get("/v1/status")["problems"])

    # -- the account --

    def check_once(self, job: str) -> None:
        """Every line and every metric point of every attempt is there exactly once, and in order."""
        for attempt in self.job(job)["attempts"]:
            number = attempt["number"]
            points = self.points(job, number)
            for rank in (0, 1):
                lines = self.log(job, number, rank).splitlines()
                told = [
                    line["line"] for line in self.lines(f"/v1/jobs/{job}.{number}/logs", rank=rank)
                ]
                assert told == lines, "the API tells what is stored"
                first = int(lines[0].split()[1])
                ticks = [int(line.split()[1]) for line in lines if line.startswith("tick")]
                assert ticks == list(range(first + 1, first + len(ticks) + 1))
                if attempt["state"] == "SUCCEEDED":
                    assert lines[-1] == f"end {ticks[-1]}", "not cut off"
                steps = [point["step"] for point in points if point["rank"] == rank]
                # A rank that was killed may have printed one tick that it could not log any more.
                assert steps in (ticks, ticks[:-1])
                assert attempt["state"] != "SUCCEEDED" or steps == ticks

    def lines(self, path: str, **query: Any) -> list[dict[str, Any]]:
        with self.client.stream(path, **query) as stream:
            return list(stream)

    def check_nothing_left(self) -> None:
        """No attempt's folder, guard or rank, and no GPU or CPU held, once all jobs have ended."""
        attempts = self.places.node / "attempts"
        until(lambda: not list(attempts.iterdir()), f"{attempts} to be empty")

        def free() -> (
            bool
        ):  # a call that gives something back may have been lost, and is made again
            (node,) = self.client.get("/v1/nodes")
            held = (node["free_gpus"], node["free_cpus"]) != (2, self.cpus)
            return not held and node["jobs"] == []

        until(free, "everything to be given back")
        ranks = [p.cmdline() for p in self.processes() if "QD_GUARD" in p.environ()]
        assert ranks == []
        until(self.is_well, "the status to be ok")

    def is_well(self) -> bool:
        """Whether `qd status` complains of nothing, but that a backup was put back: which is so until the
        controller begins again."""
        problems = self.client.get("/v1/status")["problems"]
        return all(problem["what"].startswith("restored: ") for problem in problems)


@contextlib.contextmanager
def small_disks(sizes: dict[Path, int]) -> Iterator[None]:
    """File systems of so many KiB on these folders, outer ones first, where we may mount any."""
    mounted: list[Path] = []
    for folder, kib in sizes.items():
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs"]
        if kib > IN_MEMORY:
            image = next(iter(sizes)).with_name(f"{folder.name}.img")  # beside the outermost
            with image.open("wb") as file:
                file.truncate(kib << 10)
            make = ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)]
            subprocess.run(make, capture_output=True, check=False)
            command = ["mount", "-o", "loop", str(image)]
        if subprocess.run([*command, str(folder)], capture_output=True, check=False).returncode:
            break
        mounted.append(folder)
    try:
        yield
    finally:
        for folder in reversed(mounted):
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def running(
    *,
    cpus: int = 4,
    simulate_gpus: int | None = 2,
    environ: Mapping[str, str] | None = None,
    disks: tuple[int, ...] | None = None,
) -> Iterator[Cluster]:
    """A cluster in a new folder, taken down at the end, which must leave nothing.

    Args:
        disks: KiB of the file systems of its state and of its node's, where we may mount any.
    """
    home = Path(tempfile.mkdtemp(prefix="qdc-", dir="/tmp"))
    cluster = Cluster(home, cpus=cpus, simulate_gpus=simulate_gpus, environ=environ)
    where = cluster.places
    mounts = small_disks(dict(zip((where.state, where.node), disks or (), strict=False)))
    try:
        with mounts, _up(cluster):
            yield cluster
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _up(cluster: Cluster) -> Iterator[None]:
    try:
        cluster.up()
        yield
    finally:
        down = cluster.qd("down", "--force")
        left = cluster.processes()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        temporary = cluster.places.ray_temp.exists()
        shutil.rmtree(cluster.places.ray_temp, ignore_errors=True)
    assert down.returncode == 0, down.stderr
    assert [process.pid for process in left] == []
    assert not temporary
