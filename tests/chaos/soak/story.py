"""A timeline that a person can read: what was done, what the control plane said, what ranks did."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tests.chaos.soak.truth import Life, Truth

Line = tuple[float, str, str]  # seconds since the beginning, who, what


def timeline(
    truth: Truth, events: Iterable[Mapping[str, Any]], lives: Iterable[Life]
) -> list[Line]:
    """Everything, by time."""
    began = truth.began
    offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)  # events tell unix time
    lines: list[Line] = []
    for fault in truth.faults:
        lines.append((fault.began - began, "FAULT", str(fault)))
        if fault.until > fault.began:
            lines.append((fault.until - began, "fault", f"over: {fault.what} {fault.part}"))
    for ask in truth.asks:
        if ask.job:
            again = "" if ask.created else ", known before"
            lines.append((ask.answered - began, "people", f"{ask.kind} is {ask.job}{again}"))
        else:
            lines.append((ask.asked - began, "people", f"{ask.kind} was never acknowledged"))
        if ask.cancelled:
            lines.append((ask.cancelled - began, "people", f"{ask.job} is cancelled"))
    for at, text in truth.remarks:
        lines.append((at - began, "soak", text))
    for life in lives:
        name = f"{life.job}.{life.attempt}/r{life.rank}"
        lines.append((life.began - began, name, f"starts at tick {life.resumed}, pid {life.pid}"))
        how = "is no more" if life.exit is None else f"ends with {life.exit}"
        lines.append((life.last - began, name, f"{how}, at tick {life.lines}"))
    for event in events:
        at = datetime.fromisoformat(event["at"]).timestamp() - offset - began
        lines.append((at, "events", f"{event['job'] or ''} {event['message']}".strip()))
    return sorted(lines)


def told(lines: Iterable[Line], only: Iterable[str] = ()) -> str:
    """As text; with `only`, what tells of these jobs, and what was done to the cluster."""
    jobs = set(only)
    shown = []
    for at, who, what in lines:
        words = set(f"{who} {what}".replace(".", " ").replace("/", " ").split())
        if not jobs or jobs & words or (who in ("FAULT", "fault", "soak") and " of j" not in what):
            shown.append(f"{at:9.3f}  {who:<10}  {what}")
    return "\n".join(shown)
