"""The course of a monitor: when a window is due, and when drift begins and is over (pure)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Status = Literal["ok", "drift", "not enough data", "reference"]
CLEAN = 2
"""Windows without drift, in a row, after which it is over."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of a version. Times are unix times.

    Attributes:
        judged: up to when its requests have been compared; the next window begins there.
        looked: when a window was looked at last, also one with too few requests.
        windows: with drift, in a row; `clean`: without, since there was drift.
    """

    judged: float
    looked: float
    drifting: bool = False
    windows: int = 0
    clean: int = 0


def due(watch: Watch, every: float, now: float) -> bool:
    return now >= watch.looked + every


def window(watch: Watch, every: float, now: float) -> tuple[float, float]:
    """From when to when the next look goes. Windows do not overlap, so no request is judged twice; after
    one with too few requests the next is longer, up to ten intervals."""
    return max(watch.judged, now - 10 * every), now


def judged(
    watch: Watch, status: Status, until: float
) -> tuple[Watch, Literal["drift", "settled"] | None]:
    """What a window comes to. Too few requests change nothing: they are neither drift nor none."""
    looked = replace(watch, looked=max(watch.looked, until))
    if status == "not enough data":
        return looked, None
    looked = replace(looked, judged=max(watch.judged, until))
    if status == "drift":
        return replace(looked, drifting=True, windows=watch.windows + 1, clean=0), "drift"
    if not watch.drifting:
        return replace(looked, windows=0, clean=0), None
    if watch.clean + 1 < CLEAN:
        return replace(looked, windows=0, clean=watch.clean + 1), None
    return replace(looked, drifting=False, windows=0, clean=0), "settled"
