"""A controller with a thousand nodes and ten thousand jobs in its queue: what a submission takes, what a
planning pass takes, and what it holds in memory. See `tests/bench/fleet.py` for what is real."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from console.client import Client
from tests.bench import bench_plan, fleet
from tests.bench.report import Row, limited

CLIENTS = 20
SUBMISSIONS = 2_000
RATE = 200.0
"""Submissions a second that have to be taken in."""
PASSES = 9
"""Planning passes over each kind of situation: a pass is short, and its median needs a few."""
REST = 5.0
"""Seconds for which the controller is watched at rest, to know what it takes without submissions."""
_READY = 300.0


def measure(rounds: int) -> list[Row]:
    """The table's rows."""
    slowest = max(
        statistics.median(bench_plan.passes(situation, max(rounds, PASSES))[0])
        for situation in bench_plan.SITUATIONS
    )
    with _fleet() as (socket, child):
        resting = _cpu(child)
        time.sleep(REST)
        before = _cpu(child)
        taken = submitted(socket, SUBMISSIONS, CLIENTS)
        spent = _cpu(child) - before - (before - resting) / REST * taken
        assert child.stdin is not None
        child.stdin.write("figures\n")
        child.stdin.flush()
        figures = _line(child)
    name = f"{SUBMISSIONS} submissions by {CLIENTS} clients"
    return [
        limited(
            f"{name}, {fleet.NODES} nodes, {fleet.QUEUED} jobs queued",
            lambda: taken,
            f"≤ {SUBMISSIONS / RATE:g}",
            SUBMISSIONS / RATE,
            1,
        ),
        limited(
            "CPU that a submission adds to that controller's",
            lambda: spent / SUBMISSIONS * 1e3,
            "≤ 4",
            4,
            1,
            "ms",
        ),
        limited("planning pass meanwhile", lambda: figures["pass"] * 1e3, "≤ 50", 50, 1, "ms"),
        limited(
            "slowest kind of planning pass by itself", lambda: slowest * 1e3, "≤ 50", 50, 1, "ms"
        ),
        limited("memory of that controller", lambda: figures["peak"], "≤ 500", 500, 1, "MB"),
    ]


def _cpu(child: subprocess.Popen[str]) -> float:
    """Seconds of CPU that a process has taken so far."""
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def _fleet() -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A controller whose fleet is full and whose queue is long; its socket, and its process."""
    with tempfile.TemporaryDirectory(prefix="qdb") as name:
        command = [sys.executable, "-m", "tests.bench.fleet", name]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        child: subprocess.Popen[str] = subprocess.Popen(command, text=True, **pipes)
        watch = threading.Timer(_READY, child.kill)
        watch.start()
        try:
            _line(child)
            yield Path(name) / "api", child
        finally:
            watch.cancel()
            child.kill()
            child.communicate()


def _line(child: subprocess.Popen[str]) -> dict[str, float]:
    assert child.stdout is not None
    text = child.stdout.readline()
    if not text:
        raise RuntimeError("the controller ended, or took too long")
    figures: dict[str, float] = json.loads(text)
    return figures


def submitted(socket: Path, count: int, clients: int) -> float:
    """Seconds until so many jobs are recorded, each client waiting for one answer after another."""
    rng = random.Random(3)
    left, lock = iter([fleet.spec(rng) for _ in range(count)]), threading.Lock()
    failed: list[Exception] = []

    def work(name: str) -> None:
        client, number = Client(socket, timeout=60.0), 0
        while not failed:
            with lock:
                wanted = next(left, None)
            if wanted is None:
                return
            number += 1
            try:
                client.post("/v1/jobs", {"spec": wanted, "key": f"{name}-{number}"})
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(f"client{n}",)) for n in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - began
