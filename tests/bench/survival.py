"""What it costs to survive: coming back after a kill, metrics that are kept, logs that are followed,
and the memory of what watches over it all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from sqlmodel import Session

from agents.controller.stores.database import Database
from agents.node.worker import quarterdeck
from jobs.store import entering, metricpoints, writing
from jobs.store.entering import Submission
from jobs.store.writing import Caller
from jobs.wire.messages import AttemptReport
from tests.bench import mlflow, telemetry
from tests.bench.report import Row, limited, paired
from tests.chaos.cluster import Cluster, running
from tests.waiting import until

TORCHRUN = Path(sys.executable).with_name("torchrun")
_MIB = 1 << 20

_WAITER = """
import os, sys, time
folder = sys.argv[1]
number = len([name for name in os.listdir(folder) if name.endswith("-" + os.environ["RANK"])])
temporary = f"{folder}/tmp-{os.getpid()}"
with open(temporary, "w") as file:
    file.write(f"{os.getpid()} {time.monotonic()}")
os.rename(temporary, f"{folder}/start-{number}-{os.environ['RANK']}")
time.sleep(300 if number == 0 else 0)
"""
"""Each rank notes its start; at the first it waits to be killed, at the second it is done."""

_CHUNK = 5000
"""Metric points in one chunk: what 50 ranks log in ten seconds at ten a second."""


def measure(rounds: int) -> list[Row]:
    """The table's rows."""
    with running(cpus=2) as cluster:
        memory = memory_of_an_idle_cluster(cluster)
        rows = [
            limited(
                "controller killed → answering again",
                lambda: controller_back(cluster),
                "≤ 3",
                3.0,
                1,  # a second death in a row is answered with a pause, which is meant
            ),
            paired(
                "rank killed → next attempt's ranks started",
                lambda: gang_again(cluster),
                "torchrun's own restart",
                torchrun_again,
                "<= 2",
                min(rounds, 3),
            ),
            followed(cluster, 1024 * _MIB, min(rounds, 3)),
        ]
    with tempfile.TemporaryDirectory(prefix="qdb") as name:
        environ = telemetry.stub(Path(name))
        with running(cpus=2, simulate_gpus=None, environ=environ) as cluster:
            rows.append(telemetry.agents_cpu(cluster, min(rounds, 2)))
    return [*rows, *metrics(min(rounds, 3), 20000), *memory]


# -- coming back ----------------------------------------------------------------------------------


def controller_back(cluster: Cluster) -> float:
    """Seconds from the kill to the first answer of the next controller."""
    victim = cluster.controller()
    began = time.perf_counter()
    victim.kill()
    client = cluster.client.with_timeout(1.0)
    deadline = began + 60
    while time.perf_counter() < deadline:
        with contextlib.suppress(Exception):
            if client.get("/v1/status")["pid"] != victim.pid:
                return time.perf_counter() - began
        time.sleep(0.01)
    raise RuntimeError("the controller did not come back")


@contextlib.contextmanager
def _waiter() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="qdb") as name:
        script, folder = Path(name) / "waiter.py", Path(name) / "starts"
        script.write_text(_WAITER)
        folder.mkdir()
        yield script, folder


def _kill_and_time(folder: Path) -> float:
    """Kill rank 1; seconds until both ranks have started again."""

    def started(number: int) -> list[Path]:
        return [path for rank in (0, 1) if (path := folder / f"start-{number}-{rank}").exists()]

    until(lambda: len(started(0)) == 2, "the ranks to start")
    pid = int((folder / "start-0-1").read_text().split()[0])
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(started(1)) == 2, "the ranks to start again")
    return max(float(path.read_text().split()[1]) for path in started(1)) - began


def gang_again(cluster: Cluster) -> float:
    with _waiter() as (script, folder):
        job = cluster.submit(
            f"{sys.executable} {script} {folder}", procs_per_node=2, max_restarts=1
        )
        taken = _kill_and_time(folder)
        assert cluster.wait(job)["state"] == "SUCCEEDED"
    return taken


def torchrun_again() -> float:
    with _waiter() as (script, folder):
        command: list[str | Path] = [
            TORCHRUN,
            "--standalone",
            "--nproc-per-node=2",
            "--max-restarts=1",
        ]
        with subprocess.Popen(
            [*command, script, folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(folder.parent)},  # where it leaves the ranks' logs
        ) as process:
            taken = _kill_and_time(folder)
            assert process.wait(60) == 0
    return taken


# -- logs -----------------------------------------------------------------------------------------


def followed(cluster: Cluster, size: int, rounds: int) -> Row:
    """`qd logs --raw --follow` of a log of so many bytes into a file, against `tail -f`."""
    job = cluster.submit("echo begin")
    assert cluster.wait(job)["state"] == "SUCCEEDED"
    log = cluster.places.logs / job / "1" / "r0.log"
    line = b"step 1234567 loss 0.123456 accuracy 0.987654 samples per second 12345.6\n"
    with log.open("ab") as file:
        block = line * (_MIB // len(line))
        while file.tell() < size:
            file.write(block)
    size = log.stat().st_size
    copy = cluster.home / "copy"
    qd = [str(Path(sys.executable).with_name("qd")), "logs", job, "--raw", "--rank", "0", "-f"]

    def into_file(argv: list[str]) -> float:
        copy.unlink(missing_ok=True)  # to empty an old copy is not what is measured
        began = time.perf_counter()
        with copy.open("wb") as file:
            process = subprocess.Popen(argv, stdout=file, env=cluster.environ)
        try:
            while copy.stat().st_size < size:
                if process.poll() not in (None, 0):
                    raise RuntimeError(f"{argv[0]} ended with {process.returncode}")
                time.sleep(0.005)
            taken = time.perf_counter() - began
        finally:
            process.kill()
            process.wait()
        if subprocess.run(["cmp", log, copy], check=False).returncode:
            raise RuntimeError("bytes were lost")
        return taken

    tail = ["tail", "-c", "+1", "-f", str(log)]
    name = f"follow a log of {size // _MIB} MiB to a file"
    reach = "<= 2"
    return paired(name, lambda: into_file(qd), "`tail -f`", lambda: into_file(tail), reach, rounds)


# -- metrics --------------------------------------------------------------------------------------


def metrics(rounds: int, points: int) -> list[Row]:
    """Points into the registry, durable, against MLflow's SQLite store, if that can be had here."""
    peer = mlflow.interpreter()
    if peer is None:
        print("MLflow could not be installed: its comparison is left out", file=sys.stderr)
        return []
    return [
        paired(
            f"{points} metric points, durable, in chunks",
            lambda: ingested(points, _CHUNK),
            "MLflow log_batch of 1000, SQLite",
            lambda: mlflow.batches(peer, points),
            "<= 0.0333",
            rounds,
        ),
        paired(
            "500 metric points, logged one by one, until all are durable",
            lambda: logged(500),
            "MLflow log_metric, SQLite",
            lambda: mlflow.singles(peer, 500),
            "<= 0.05",
            rounds,
        ),
    ]


def ingested(points: int, chunk: int) -> float:
    """Seconds to store what a rank logged, chunk by chunk, each synced to disk."""
    lines = [
        json.dumps({"n": "loss", "s": step, "v": 0.5, "t": 1.7e9 + step}).encode() + b"\n"
        for step in range(points)
    ]
    chunks = [b"".join(lines[at : at + chunk]) for at in range(0, points, chunk)]
    with tempfile.TemporaryDirectory(prefix="qdb") as name:
        return asyncio.run(_ingest(Path(name) / "state.db", chunks))


def logged(points: int) -> float:
    """Seconds for a script to log points one by one, and for them to be stored as they are fetched."""
    with tempfile.TemporaryDirectory(prefix="qdb") as name:
        file = Path(name) / "metrics.jsonl"
        os.environ["QD_METRICS_FILE"] = str(file)
        try:
            began = time.perf_counter()
            for step in range(points):
                quarterdeck.log(loss=0.5, step=step)
            taken = time.perf_counter() - began
        finally:
            del os.environ["QD_METRICS_FILE"]
        return taken + asyncio.run(_ingest(Path(name) / "state.db", [file.read_bytes()]))


async def _ingest(path: Path, chunks: list[bytes]) -> float:
    database = Database.open(f"sqlite:///{path}")
    epoch = await database.write(_new_attempt)
    began = time.perf_counter()
    offset = 0
    for chunk in chunks:

        def write(session: Session, at: int = offset, data: bytes = chunk) -> int:
            return len(metricpoints.ingest_metrics(session, epoch, 0, at, data).points[0])

        assert await database.write(write) > 0
        offset += len(chunk)
    taken = time.perf_counter() - began
    database.close()
    return taken


def _new_attempt(session: Session) -> int:
    """The rows that points belong to."""
    submission = Submission("bench", "gang", {}, 1, 1, 0.0, 1.0, 50, 0)
    job, _ = entering.create_job(session, submission, Caller("bench", 0), 0.0)
    epoch = writing.new_epoch(session, job, 1, 0.0)
    rank = {"rank": 0, "local_rank": 0, "pid": 1, "started_at": 0.0, "exit_code": None}
    rank |= {"signal": None, "ended_at": None, "log_size": 0, "metrics_size": 0}
    report = {"key": "", "epoch": epoch, "state": "running", "outcome": "", "reason": ""}
    report |= {"first_failed": None, "first_failed_at": None, "gpus": [], "ranks": [rank]}
    whole: AttemptReport = report  # type: ignore[assignment]
    writing.save_ranks(session, epoch, "n1", whole)
    return epoch


# -- memory ---------------------------------------------------------------------------------------


def memory_of_an_idle_cluster(cluster: Cluster) -> list[Row]:
    """Unique and shared resident memory, in MB, with one job that sleeps."""
    job = cluster.submit("sleep 300")
    cluster.wait(job, "RUNNING")
    until(lambda: cluster.pids(job), "its pid")

    def resident(process: psutil.Process) -> Callable[[], float]:
        return lambda: process.memory_info().rss / 1e6

    rows = [
        limited("memory of a guard", resident(cluster.guard(job)), "≤ 20", 20, 1, "MB"),
        limited("memory of an agent", resident(cluster.agent()), "≤ 120", 120, 1, "MB"),
        limited("memory of the controller", resident(cluster.controller()), "≤ 250", 250, 1, "MB"),
    ]
    cluster.client.act(f"/v1/jobs/{job}/cancel")
    cluster.wait(job)
    return rows
