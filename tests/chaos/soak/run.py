"""One soak: a cluster, its people, trouble for a while, then quiet, and the account."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from agents.fabric.ray import driver_environment, one_machine
from agents.node.guard.records import read_json
from jobs.base.errors import QuarterdeckError
from jobs.base.states import TERMINAL
from jobs.wire.sweepviews import SWEEP_ENDED
from tests.chaos import cluster as clusters
from tests.chaos.cluster import Cluster
from tests.chaos.soak import account, story
from tests.chaos.soak.account import Job
from tests.chaos.soak.faults import Trouble, parts
from tests.chaos.soak.load import People
from tests.chaos.soak.registry import PATIENCE, Registry, schedule
from tests.chaos.soak.truth import Truth, clock

QUIET = 240.0
"""Seconds in which all must have ended once nothing is done to the cluster any more, beside what the large
checkpoint takes: the fourth restart of a job waits a minute, and Ray may have to be started anew first."""
SLOWEST = 6.0
"""MiB a second that the large checkpoint comes at least, on a machine that has much else to do."""
CPUS = 6
LARGE = 3 << 10
"""MiB of the large checkpoint."""
SPARE = (64 << 10) + (3 << 19)
"""KiB of the file systems of the registry and of the node beside what they have of that (two copies there;
here three: as it was written, as it came back, and in the next job's folder): what else they need, and what
copies leave free."""
_NOT_KEPT = ("blobs", "checkpoints", "checkpoint", "backups", "*.sock", "*.img", "trash", "ballast")
EVERY = 3.0
"""Seconds between two moments of trouble, on average, unless one says otherwise."""
TRIALS = 6.0
"""Trials of the sweep for each minute."""


@dataclass
class Outcome:
    """What came of it. `wrong` is empty when all is well."""

    wrong: list[str] = field(default_factory=list)
    timeline: list[story.Line] = field(default_factory=list)
    summary: str = ""


def soak(
    minutes: float,
    seed: int,
    *,
    every: float = EVERY,
    large: int = LARGE,
    keep: Path | None = None,
) -> Outcome:
    """Trouble for so many minutes. Takes some two minutes more to become quiet and look.

    Args:
        every: seconds between two moments of trouble, on average.
        large: MiB of the one large checkpoint.
        keep: where to leave a copy of the registry, the diaries and all logs of the cluster.
    """
    outcome = Outcome()
    try:
        environ = {"QD_CHECKPOINT_SPACE": f"{large + 64}MiB"}
        disks = (SPARE + (large << 11), SPARE + 3 * (large << 10))
        with clusters.running(cpus=CPUS, disks=disks, environ=environ) as cluster:
            try:
                _soak(cluster, minutes, seed, every, large, outcome)
            finally:
                if keep is not None:
                    ignore = shutil.ignore_patterns(*_NOT_KEPT)
                    shutil.copytree(
                        cluster.home, keep / f"seed-{seed}", ignore=ignore, dirs_exist_ok=True
                    )
    except AssertionError as error:  # what `down` leaves behind
        outcome.wrong.append(str(error) or "the cluster has left something behind")
    return outcome


def _soak(
    cluster: Cluster, minutes: float, seed: int, every: float, large: int, outcome: Outcome
) -> None:
    diary = cluster.home / "diary"
    diary.mkdir()
    truth = Truth(diary)
    people = People(cluster.places.socket, truth, seed, minutes, large)
    disk = cluster.places.state if cluster.places.state.is_mount() else None
    trouble = Trouble(cluster, truth, disk, seed, every=every, gentle=minutes < 2)
    registry = Registry(cluster, truth, lambda: parts(cluster), outcome.wrong)
    trials = max(4, round(TRIALS * minutes))
    truth.sweep = people.sweep(trials)
    people.start()
    try:
        _make_trouble(trouble, registry, seed, 60 * minutes)
        trouble.end_what_is_due(all_of_it=True)
        truth.remark("quiet")
        people.finish()
        outcome.wrong += [repr(error) for error in people.errors]
        patience = QUIET + large / SLOWEST
        if not _wait(cluster, truth, patience):
            outcome.wrong.append(f"not all has ended within {patience:g} s of quiet")
        _look(cluster, truth, trials, outcome)
    finally:
        trouble.mercy()
        registry.keeper.end()
        people.finish()


def _make_trouble(trouble: Trouble, registry: Registry, seed: int, seconds: float) -> None:
    dice = random.Random(f"{seed} registry")
    begin, end, due = clock(), clock() + seconds, clock() + 2.0
    planned = [(begin + share * seconds, what) for share, what in schedule(dice)]
    while clock() < end or planned:
        time.sleep(0.05)
        trouble.end_what_is_due()
        if planned and clock() >= planned[0][0]:
            _, what = planned[0]
            if what == "backup":
                registry.keeper.begin()
                planned.pop(0)
                continue
            trouble.end_what_is_due(all_of_it=True)  # else `qd up` would wait for what is stopped
            done = registry.restore() if what == "restore" else registry.exchange(dice)
            if done or clock() > end + PATIENCE:
                planned.pop(0)
            if not done and clock() > end + PATIENCE:
                registry.wrong.append(f"{what}: it could not be done in time")
        if clock() >= due:
            trouble.make()
            due = clock() + trouble.pause()


def _wait(cluster: Cluster, truth: Truth, patience: float) -> bool:
    """Whether all jobs and the sweep end in time, and the control plane is well again."""
    deadline = clock() + patience
    while clock() < deadline:
        with contextlib.suppress(QuarterdeckError):
            if truth.restores:  # as a person does who has read `qd status`
                cluster.client.post("/v1/strays/forget", {})
            jobs = cluster.client.get("/v1/jobs", limit=1000)["jobs"]
            sweep = cluster.client.get(f"/v1/sweeps/{truth.sweep}")
            over = sweep["state"] in SWEEP_ENDED and all(j["state"] in TERMINAL for j in jobs)
            if over and cluster.is_well():
                return True
        time.sleep(0.5)
    return False


def _look(cluster: Cluster, truth: Truth, trials: int, outcome: Outcome) -> None:
    """Take the account."""
    wrong, lives = outcome.wrong, truth.lives()
    views = cluster.client.get("/v1/jobs", limit=1000)["jobs"]
    asks = {ask.job: ask for ask in truth.asks if ask.job}
    wrong += account.submits(truth.asks, views, truth.restores)
    listed = {view["id"] for view in views}
    for name in lives.keys() - listed:
        wrong += account.forgotten(name, lives[name], truth.restores)
    jobs: dict[str, Job] = {}
    for view in views:
        name = view["id"]
        found = _job(cluster, cluster.job(name), asks.get(name), lives.get(name, []))
        jobs[name] = replace(found, restores=truth.restores)
        wrong += account.one_at_a_time(jobs[name].lives)
        wrong += account.told_once(jobs[name], truth.faults)
        wrong += account.ended_well(jobs[name], truth.faults)
        wrong += account.obeyed(jobs[name], truth.faults)
    sweep = cluster.client.get(f"/v1/sweeps/{truth.sweep}")
    told = cluster.client.get(f"/v1/sweeps/{truth.sweep}/trials")
    study = _study(cluster, sweep["study"])
    wrong += account.trials(told, study, jobs, trials, truth.faults)
    wrong += _left(cluster)
    everyone = [life for job in jobs.values() for life in job.lives]
    outcome.timeline = story.timeline(truth, _events(cluster), everyone)
    outcome.summary = _summary(truth, jobs, told)


def _events(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := cluster.lines("/v1/events", after=found[-1]["id"] if found else 0, limit=1000):
        found += page
    return found


def _job(cluster: Cluster, view: dict[str, Any], ask: Any, lives: list[Any]) -> Job:
    logs, steps, started = {}, {}, {}
    offset = time.time() - clock()
    for attempt in view["attempts"]:
        number = attempt["number"]
        if attempt["started_at"]:
            at = datetime.fromisoformat(attempt["started_at"]).timestamp()
            started[number] = at - offset
        points = defaultdict(list)
        for point in cluster.points(view["id"], number):
            if point["name"] == "n":
                points[point["rank"]].append(point["step"])
        for rank in {life.rank for life in lives if life.attempt == number}:
            lines = cluster.lines(f"/v1/jobs/{view['id']}.{number}/logs", rank=rank)
            logs[number, rank] = [line["line"] for line in lines]
            steps[number, rank] = points[rank]
    return Job(ask, view, lives, logs, steps, started)


def _study(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The study as plain Optuna sees it."""
    program = f"""
import json, optuna
study = optuna.load_study(study_name={name!r}, storage="sqlite:///{cluster.places.database}")
print(json.dumps([
    {{"number": t.number, "state": t.state.name, "params": t.params, "values": t.values}}
    for t in study.trials
]))
"""
    found: list[dict[str, Any]] = json.loads(_python(program))
    return found


def _left(cluster: Cluster) -> Iterator[str]:
    """What jobs have left behind."""
    try:
        cluster.check_nothing_left()
    except AssertionError as error:
        yield f"left behind: {error}"
    record = read_json(str(cluster.places.cluster_file)) or {}
    address = record["ray_address"]
    program = f"""
import json, ray
from agents.fabric.driver import connect
connect({address!r})
table = ray.util.placement_group_table().values()
print(json.dumps([group["name"] for group in table if group["state"] != "REMOVED"]))
"""
    env = driver_environment(cluster.places, cluster.environ) | one_machine(address)
    for name in json.loads(_python(program, env)):
        yield f"placement group {name} is left"


def _python(program: str, env: dict[str, str] | None = None) -> str:
    """The last line that a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout.strip().splitlines()[-1]


def _summary(truth: Truth, jobs: dict[str, Job], trials: list[dict[str, Any]]) -> str:
    attempts = [attempt for job in jobs.values() for attempt in job.view["attempts"]]
    states = [f"{job.view['state']}" for job in jobs.values()]
    lines = sum(life.lines - life.resumed for job in jobs.values() for life in job.lives)
    cancels = sum(ask.cancelled > 0 for ask in truth.asks)
    counted = ", ".join(f"{states.count(state)} {state.lower()}" for state in sorted({*states}))
    return (
        f"{len(truth.faults)} faults; {len(jobs)} jobs ({counted}), {len(trials)} of them trials; "
        f"{len(attempts)} attempts, {cancels} cancels, {lines} ticks"
    )
