"""Numbers, times and states in words. Pure; the moment is always an argument."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from console.tui.core.draw.glyphs import Glyphs
from jobs.wire.views import JobView


@lru_cache(maxsize=8192)
def moment(text: str | None) -> float | None:
    """RFC 3339 as seconds since the epoch; None for None or what cannot be read."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def clock(at: float, *, seconds: bool = False) -> str:
    """Local wall-clock time of day."""
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S" if seconds else "%H:%M")


def span(seconds: float | None) -> str:
    """A duration in at most five characters: 0.4s, 12s, 3m12, 2h04, 41d."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{int(seconds)}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}"
    return f"{hours // 24}d"


def age(text: str | None, now: float) -> str:
    """How long ago a moment was, coarsely: 3s, 12m, 2h04, 41d."""
    at = moment(text)
    return "-" if at is None else coarse(now - at)


def coarse(seconds: float) -> str:
    """As `span`, but above a minute it changes once a minute at most: rows of old things need not be
    repainted each second."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{int(seconds)}s"
    return f"{int(seconds // 60)}m" if seconds < 3600 else span(seconds)


def size(count: float | None) -> str:
    """Bytes in binary units with at most four characters: 740M, 74G, 1.2T."""
    if count is None:
        return "-"
    value = float(count)
    for unit in "BKMGTPE":
        if value < 1000 or unit == "E":
            return f"{value:.0f}{unit}" if value >= 9.95 or unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def watts(value: float) -> str:
    return f"{value / 1000:.1f} kW" if value >= 1000 else f"{value:.0f} W"


def number(value: float | None) -> str:
    """A metric's value in at most seven characters; a dash for NaN."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 1e5 or magnitude < 1e-3:
        return f"{value:.1e}"
    return f"{value:.4g}"


def count(value: float) -> str:
    """A share of GPUs or CPUs: 2, 0.5."""
    return f"{value:g}"


def many(value: float, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def counted(shown: int, whole: int, noun: str) -> str:
    """`12 of 40 trials`, or `40 trials`."""
    return f"{shown} of {many(whole, noun)}" if shown != whole else many(whole, noun)


STATE_TONE = {
    "QUEUED": "dim",
    "PLACING": "info",
    "STAGING": "info",
    "RUNNING": "ok",
    "STOPPING": "warn",
    "SUCCEEDED": "info",
    "FAILED": "error",
    "CANCELLED": "dim",
    "PREEMPTED": "warn",
    "LOST": "error",
    "PENDING": "dim",
    "EXITED": "dim",
    "READY": "ok",
    "DRAINING": "warn",
    "DRAINED": "warn",
    "SUSPECT": "warn",
    "QUARANTINED": "error",
    # Of sweeps and trials. A trial that was pruned is no failure.
    "PAUSED": "warn",
    "FINISHED": "info",
    "COMPLETE": "info",
    "PRUNED": "dim",
}


def state_glyph(state: str, glyphs: Glyphs) -> str:
    """A shape for each state, so that it never hangs on colour alone."""
    match state:
        case "RUNNING" | "READY":
            return glyphs.running
        case "SUCCEEDED" | "FINISHED" | "COMPLETE":
            return glyphs.ok
        case "PRUNED":
            return glyphs.down
        case "FAILED" | "LOST" | "QUARANTINED":
            return glyphs.failed
        case "CANCELLED" | "PREEMPTED":
            return glyphs.cancelled
        case "STOPPING" | "DRAINING" | "DRAINED" | "SUSPECT":
            return glyphs.warn
        case _:
            return glyphs.waiting


def job_tone(job: JobView) -> str:
    """The tone of a job's state. One that has stalled runs, and is not well."""
    return "warn" if job.get("stalled") else STATE_TONE[job["state"]]


def job_glyph(job: JobView, glyphs: Glyphs) -> str:
    return glyphs.warn if job.get("stalled") else state_glyph(job["state"], glyphs)


def job_word(job: JobView) -> str:
    return "STALLED" if job.get("stalled") else job["state"]


NODE_SHORT = {
    "DRAINING": "drn",
    "DRAINED": "DRN",
    "SUSPECT": "SUS",
    "LOST": "LST",
    "QUARANTINED": "QRN",
}
"""Three letters for the heat map, where a node that takes no work shows its state, not a job."""
