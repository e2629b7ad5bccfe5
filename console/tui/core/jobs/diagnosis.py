"""Which rank waits on what, in a sentence. Pure.

A rank that waits in a collective spins, and shows 100 % utilisation: a straggler is judged by power and
by step time, not by utilisation alone. In synchronous training every rank has the same step time, that
of the slowest, so step time says *that* something slows the gang, and power says *who*: waiting draws
less than computing, and a GPU that is throttled or starved of data draws less than its peers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from console.tui.core.draw.format import span
from jobs.wire.views import AttemptView, GpuView, JobDetail, NodeView, SeriesPoint

FAR = 0.75
"""Below this share of the median power a GPU is out of line. GPUs of one gang differ by some percent."""

SLOW = 2.0
"""Steps that take this many times the usual are worth a word."""

BUSY = 30.0
"""Percent of utilisation below which a gang as a whole starves."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A sentence, how bad it is, and the rank that is out of line, if one is."""

    text: str
    tone: str = "dim"
    outlier: int | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds a step took lately and usually; the moment of the newest step."""

    lately: float
    usual: float
    newest: float


def pace(points: Sequence[SeriesPoint]) -> Pace | None:
    """From when steps were logged (rank 0). None with too few to tell.

    Lately is the last tenth of the points, at least 3; usual is the median of all before.
    """
    gaps = [
        (b["at"] - a["at"]) / (b["step"] - a["step"])
        for a, b in pairwise(points)
        if b["step"] > a["step"] and b["at"] >= a["at"]
    ]
    if len(gaps) < 8:
        return None
    new = max(3, len(gaps) // 10)
    return Pace(median(gaps[-new:]), median(gaps[:-new]), points[-1]["at"])


def rank_gpus(attempt: AttemptView, nodes: Mapping[str, NodeView]) -> dict[int, list[GpuView]]:
    """Rank -> the GPUs that it has, as far as they are known."""
    known = {gpu["uuid"]: gpu for node in nodes.values() for gpu in node["gpus"]}
    return {
        rank["rank"]: [known[uuid] for uuid in rank["gpus"] if uuid in known]
        for rank in attempt["ranks"]
        if rank["state"] == "RUNNING"
    }


def diagnose(
    job: JobDetail,
    nodes: Mapping[str, NodeView],
    series: Mapping[str, Sequence[SeriesPoint]],
) -> Diagnosis | None:
    """The one thing to know about a job that runs; None when there is nothing to judge.

    Args:
        nodes: those it runs on, as they are now.
        series: its metrics.
    """
    attempt = job["attempts"][-1] if job["attempts"] else None
    if attempt is None or job["state"] != "RUNNING":
        return None
    longest = max(series.values(), key=len, default=())
    beat = pace(longest)
    gpus = rank_gpus(attempt, nodes)
    return (
        _stalled(job, beat)
        or _straggler(attempt, gpus, beat)
        or _throttled(gpus)
        or _slower(beat)
        or _starved(gpus)
        or _well(beat, len(attempt["ranks"]))
    )


def _stalled(job: JobDetail, beat: Pace | None) -> Diagnosis | None:
    """What the cluster has found: it sees the ranks' processes too, and a screen does not judge anew."""
    if not job.get("stalled"):
        return None
    usual = "" if beat is None else f" A step usually takes {span(beat.usual)}."
    return Diagnosis(f"Stalled: {job['reason']}.{usual} t shows where every rank is.", "error")


def _straggler(
    attempt: AttemptView, gpus: Mapping[int, Sequence[GpuView]], beat: Pace | None
) -> Diagnosis | None:
    """The rank whose GPUs draw far less than the others'."""
    power = {
        rank: sum(gpu["power"] or 0.0 for gpu in held) / len(held)
        for rank, held in gpus.items()
        if held and all(gpu["power"] is not None for gpu in held)
    }
    if len(power) < 3:
        return None  # of two, none is the odd one
    usual = median(power.values())
    rank, least = min(power.items(), key=lambda item: item[1])
    low = [one for one, value in power.items() if value < FAR * usual]
    if not usual or len(low) != 1:
        return None
    where = next(one["node"] for one in attempt["ranks"] if one["rank"] == rank)
    index = gpus[rank][0]["index"]
    load = gpus[rank][0]["util"]
    busy = "" if load is None else f" at {load:.0f}%"
    steps = "" if beat is None else f" A step takes {span(beat.lately)}."
    return Diagnosis(
        f"r{rank} ({where} GPU {index}) draws {least:.0f} W{busy} where the median is {usual:.0f} W: "
        f"the others wait for it.{steps}",
        "warn",
        rank,
    )


def _throttled(gpus: Mapping[int, Sequence[GpuView]]) -> Diagnosis | None:
    slowed = {
        rank: reason for rank, held in gpus.items() for gpu in held for reason in gpu["throttle"]
    }
    if not slowed:
        return None
    rank, reason = next(iter(slowed.items()))
    more = f" and {len(slowed) - 1} more" if len(slowed) > 1 else ""
    return Diagnosis(f"The GPU of r{rank}{more} is throttled: {reason}.", "warn", rank)


def _slower(beat: Pace | None) -> Diagnosis | None:
    if beat is None or beat.usual <= 0 or beat.lately < SLOW * beat.usual:
        return None
    return Diagnosis(
        f"Steps take {span(beat.lately)}, {beat.lately / beat.usual:.1f} times the usual "
        f"{span(beat.usual)}; no single rank is out of line.",
        "warn",
    )


def _starved(gpus: Mapping[int, Sequence[GpuView]]) -> Diagnosis | None:
    loads = [
        gpu["util"]
        for held in gpus.values()
        for gpu in held
        if gpu["util"] is not None and not gpu["simulated"]
    ]
    if not loads or median(loads) >= BUSY:
        return None
    return Diagnosis(
        f"The GPUs are at {median(loads):.0f}%: input or the CPU may be what limits this job.",
        "warn",
    )


def _well(beat: Pace | None, ranks: int) -> Diagnosis | None:
    if beat is None:
        return None
    alike = f", all {ranks} ranks alike" if ranks > 2 else ""
    return Diagnosis(f"A step takes {span(beat.lately)}{alike}.", "dim")
