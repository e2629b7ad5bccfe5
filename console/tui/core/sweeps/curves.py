"""The learning curves of a sweep, as far as they are known: read when they have to be, and grown meanwhile
by the newest values that the watch tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.wire.sweepviews import CurveView, TrialView

MOST = 2000
"""Trials whose curves are read, the newest."""

AT_ONCE = 100
"""Curves that are read again at once."""


class Curves:
    """Attributes:
    known: trial -> its (step, value), ascending.
    reads: how often something was read; pictures hang on it.
    """

    def __init__(self) -> None:
        self.known: dict[int, list[tuple[int, float]]] = {}
        self.reads = 0
        self._read: dict[int, str] = {}  # trial -> its state when its curve was asked for

    def grow(self, trials: Sequence[TrialView]) -> None:
        """Take the newest value of each trial."""
        for trial in trials:
            step, value = trial["step"], trial["last"]
            if step is None or value is None:
                continue
            curve = self.known.setdefault(trial["number"], [])
            if not curve or curve[-1][0] < step:
                curve.append((step, value))

    def wanted(self, trials: Sequence[TrialView]) -> dict[int, str]:
        """The trials whose curves are to be read now, and their states: all at first, then those that
        have reached another state since. What runs is read once, and grows by what is watched."""
        newest = trials[-MOST:]
        if not self.reads:
            return {trial["number"]: trial["state"] for trial in newest}
        out: dict[int, str] = {}
        for trial in reversed(newest):
            if trial["step"] is not None and self._read.get(trial["number"]) != trial["state"]:
                out[trial["number"]] = trial["state"]
                if len(out) == AT_ONCE:
                    break
        return out

    def take(self, asked: Mapping[int, str], curves: Sequence[CurveView]) -> None:
        """Curves that were read.

        Args:
            asked: what `wanted` gave; a trial of it that has no curve is not asked for again.
        """
        self._read.update(asked)
        self.reads += 1
        for curve in curves:
            points = [(step, value) for step, value in curve["points"]]
            held = self.known.get(curve["number"])
            if points and held and held[-1][0] > points[-1][0]:
                points.append(held[-1])  # the watch was faster
            if points:
                self.known[curve["number"]] = points
