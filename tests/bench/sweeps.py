"""Sweeps: tiny trials against Ray Tune, what a trial costs beyond its script, very many of them."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.controller.sweeps.studies import Studies
from console.client import Client
from jobs.base.places import places
from jobs.sweeps.spec import SweepSpec
from tests.bench import bigstudy, sweeppeers
from tests.bench.report import Row, alone, limited, paired
from tests.chaos.cluster import Cluster, running
from tests.waiting import until

_TINY = """
import quarterdeck
x, y = quarterdeck.params["x"], quarterdeck.params["y"]
quarterdeck.log(loss=(x - 0.3) ** 2 + y)
"""
_LOG = """printf '{"n":"loss","s":0,"t":1,"v":%s}\\n' {x} >> "$QD_METRICS_FILE"; """
_NAP = 0.2
"""Seconds that a trial of the long sweep sleeps."""
_WIDE = 4
_MANY, _FINISHED = 1000, 10_000


def measure(rounds: int) -> list[Row]:
    """The table's rows."""
    peer = sweeppeers.interpreter()
    if peer is None:
        print(
            "Ray Tune and optuna-dashboard could not be installed: theirs is left out",
            file=sys.stderr,
        )
    with running(cpus=_WIDE) as cluster:
        rows = [_tiny(cluster, peer, min(rounds, 3)), _overhead(cluster, min(rounds, 3))]
        rows += _many(cluster)
        cluster.check_nothing_left()
    return [*rows, *_finished(peer)]


def run(cluster: Cluster, command: str, trials: int, **fields: Any) -> float:
    """Seconds from submitting a sweep to its end; all of its trials must have succeeded."""
    spec = SweepSpec.from_json(
        {
            "name": "bench",
            "job": {"command": command, "resources": {"cpu": 1}},
            "space": {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 0.0, "high": 1.0}},
            "objective": {"metric": "loss", "goal": "minimize"},
            "trials": trials,
            "parallel": _WIDE,
            "sampler": "tpe",
            "seed": 3,
            **fields,
        }
    ).to_json()
    began = time.perf_counter()
    sweep = cluster.client.act("/v1/sweeps", {"spec": spec, "key": os.urandom(8).hex()})["id"]
    with cluster.client.stream("/v1/watch", topics="sweeps") as deltas:
        for delta in deltas:
            view = delta.get("value") or {}
            if view.get("id") == sweep and view["state"] in ("FINISHED", "FAILED"):
                break
    taken = time.perf_counter() - began
    counts = cluster.client.get(f"/v1/sweeps/{sweep}")["counts"]
    if counts["complete"] != trials:
        raise RuntimeError(f"{sweep} has lost trials: {counts}")
    return taken


def _tiny(cluster: Cluster, peer: Path | None, rounds: int) -> Row:
    script = cluster.home / "tiny.py"
    script.write_text(_TINY)
    work = "40 tiny trials, 4 wide, TPE"

    def ours() -> float:
        return run(cluster, f"{sys.executable} {script}", 40)

    if peer is None:
        return alone(work, ours, rounds)
    ours()
    mine = statistics.median(ours() for _ in range(rounds))
    theirs = sweeppeers.tune(peer, 40)  # once: it takes a minute
    return Row(work, mine, "Ray Tune, OptunaSearch", theirs, mine / theirs, "<= 0.125")


def _overhead(cluster: Cluster, rounds: int) -> Row:
    """Seconds that a trial holds its slot beyond what the same scripts take under `xargs -P`."""
    trials = 100

    def ours() -> float:
        taken = run(cluster, f"{_LOG}sleep {_NAP}", trials)
        return (taken - _bare(trials)) * _WIDE / trials

    ours()
    return limited(f"overhead of a trial that takes {_NAP:g} s, 4 wide", ours, "≤ 0.1", 0.1, rounds)


def _bare(trials: int) -> float:
    """Seconds of as many such scripts, four at a time, with nothing around them."""
    with tempfile.TemporaryDirectory(prefix="qdb") as folder:
        script = Path(folder) / "script.sh"
        script.write_text(_LOG.replace("{x}", "0.5") + f"sleep {_NAP}\n")
        command = ["xargs", "-P", str(_WIDE), "-n", "1", "sh", str(script)]
        began = time.perf_counter()
        subprocess.run(
            command,
            input="\n".join(map(str, range(trials))),
            text=True,
            check=True,
            env={**os.environ, "QD_METRICS_FILE": str(Path(folder) / "metrics")},
        )
        return time.perf_counter() - began


def _many(cluster: Cluster) -> list[Row]:
    """A long sweep of short trials, and what it leaves in the controller's memory."""
    before = cluster.client.get("/v1/status")["memory"]
    taken = run(cluster, f"{_LOG}sleep {_NAP}", _MANY)
    grown = (cluster.client.get("/v1/status")["memory"] - before) / 1e6
    work = f"{_MANY} trials of {_NAP:g} s, 4 wide"
    return [
        Row(work, taken, "–", None, None, "report"),
        Row(f"memory that these add to the controller's {before / 1e6:.0f} MB", grown, "–", None,
            None, "report", "MB"),
    ]  # fmt: skip


# -- a study of very many finished trials ---------------------------------------------------------


def _finished(peer: Path | None) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="qdb") as folder:
        environ = {**os.environ, "QD_HOME": folder}
        where = places(environ)
        where.state.mkdir(parents=True)
        url = bigstudy.make(where.state, _FINISHED)
        count = f"{_FINISHED} finished trials"
        rows = [
            _against(
                f"next point of a sweep with {count}, TPE",
                lambda: asyncio.run(_asked(url)),
                "Optuna's own RDB storage",
                (lambda: sweeppeers.ask(peer, url, bigstudy.NAME)) if peer else None,
            )
        ]
        rows.append(
            _against(
                f"opening a sweep with {count}",
                lambda: _opened(environ),
                "optuna-dashboard",
                (lambda: _dashboard(peer, url)) if peer else None,
            )
        )
        return rows


def _against(
    work: str, ours: Callable[[], float], name: str, theirs: Callable[[], float] | None
) -> Row:
    return paired(work, ours, name, theirs, "report", 3) if theirs else alone(work, ours, 3)


async def _asked(url: str) -> float:
    """The median of five points asked for one after the other, in a process that has the study open."""
    studies = Studies(url, threading.Lock())
    study = await studies.open(bigstudy.NAME, bigstudy.spec(_FINISHED + 100))

    def one() -> float:
        began = time.perf_counter()
        with study.together():
            asked = study.ask()
        taken = time.perf_counter() - began
        assert asked is not None
        study.tell(asked.number, "COMPLETE", [1.0])
        return taken

    seconds = [await studies.run(one) for _ in range(6)]
    await asyncio.to_thread(studies.close)
    return statistics.median(seconds[1:])


def _opened(environ: dict[str, str]) -> float:
    """Seconds until a fresh controller has told the sweep and all its trials."""
    with subprocess.Popen(
        [sys.executable, "-m", "agents.daemon"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as daemon:
        try:
            client = Client(places(environ).socket, timeout=60)
            until(lambda: client.get("/v1/status"), "the controller")
            began = time.perf_counter()
            client.get("/v1/sweeps/s1")
            trials = client.get("/v1/sweeps/s1/trials")
            taken = time.perf_counter() - began
            assert len(trials) == _FINISHED, len(trials)
            return taken
        finally:
            daemon.terminate()


def _dashboard(peer: Path, url: str) -> float:
    with sweeppeers.dashboard(peer, url) as address:
        return sweeppeers.opened(address, 1)
