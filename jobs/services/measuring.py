"""From what a front counts to what is decided on: how much of a version is in use. Pure.

The front adds up request-seconds, so an average over any time is a difference, whoever read it when. What is
remembered here is in memory only: after a start of the controller the quiet window begins again, and nothing
shrinks before all of it was seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.services.histogram import Seen
from jobs.services.scaling import Look

WINDOW = 10.0
"""Seconds over which the load is averaged."""
LEAST = 2.0
"""Seconds of it that must have been seen."""
GAP = 10.0
"""Seconds without a measurement after which those before it say nothing of a peak."""
SETTLE = 5.0
"""Seconds after the last replica became ready: until then, requests that had waited for it are answered."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a front has seen of a version. `clock` and `idle` are its own seconds, `work` request-seconds."""

    boot: str
    clock: float
    work: float
    idle: float
    held: int
    seen: Seen


def sample(said: Mapping[str, Any], backend: str) -> Sample | None:
    """What the front said of a version; None where it is too old to say."""
    load = said.get("load", {}).get(backend)
    if load is None or "work" not in load or "clock" not in said:
        return None
    return Sample(
        boot=said["boot"],
        clock=said["clock"],
        work=load["work"],
        idle=load["idle"],
        held=load["held"],
        seen=Seen.from_json(said.get("counts", {}).get(backend)),
    )


@dataclass(slots=True)
class History:
    """The last samples of a version, and the peaks of its quiet window."""

    samples: deque[Sample] = field(default_factory=deque)
    peaks: deque[tuple[float, float]] = field(default_factory=deque)  # falling
    began: float = 0.0
    settled: float | None = None  # since when all replicas were ready, the front's clock

    def add(self, new: Sample, quiet: float, *, all_ready: bool) -> Look | None:
        """The measurement with one more sample; None when it is no new one.

        Args:
            quiet: seconds of the quiet window.
            all_ready: whether all replicas that are wanted are ready.
        """
        last = self.samples[-1] if self.samples else None
        if last is not None and last.boot == new.boot and new.clock <= last.clock:
            return None
        if last is None or last.boot != new.boot or new.clock - last.clock > GAP:
            self.samples.clear()
            self.peaks.clear()
            self.began, self.settled = new.clock, None
        self.samples.append(new)
        while len(self.samples) > 1 and self.samples[1].clock <= new.clock - WINDOW:
            self.samples.popleft()
        if not all_ready:
            self.settled = None
        elif self.settled is None:
            self.settled = new.clock
        load = self._load(new)
        if load is not None:
            self._peak(new.clock, load, quiet)
        times = self._times(new)
        return Look(
            load=load,
            peak=self.peaks[0][1] if self.peaks and new.clock - self.began >= quiet else None,
            p95=times.quantile(0.95),
            seen=times.seen,
            held=new.held,
            idle=new.idle,
        )

    def _load(self, new: Sample) -> float | None:
        first = self.samples[0]
        passed = new.clock - first.clock
        return None if passed < LEAST else max(0.0, new.work - first.work) / passed

    def _peak(self, clock: float, load: float, quiet: float) -> None:
        while self.peaks and self.peaks[-1][1] <= load:
            self.peaks.pop()
        self.peaks.append((clock, load))
        while self.peaks[0][0] < clock - quiet:
            self.peaks.popleft()

    def _times(self, new: Sample) -> Seen:
        """Of the requests that were answered in the window, while all replicas were there."""
        if self.settled is None:
            return Seen()
        since = self.settled + SETTLE
        first = next((one for one in self.samples if one.clock >= since), new)
        return new.seen.since(first.seen)
