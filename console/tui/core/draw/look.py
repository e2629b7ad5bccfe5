"""How charts are looked at: zoom, axes, smoothing, and the moment that the crosshair is on. Pure.

One `Look` is shared by metrics, GPUs and logs: all show the same window of time and the same moment.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.wire.views import SeriesPoint

DEEPEST = 10
"""Zoom is by powers of two: a thousandth of the run fills the chart at most."""

STEPS = 80
"""The crosshair moves by this share of the window."""

SMOOTHINGS = (0.0, 0.6, 0.95)
"""Weights of the past in the moving average."""


@dataclass(frozen=True, slots=True)
class Look:
    """Attributes:
    zoom: the window is the whole run divided by 2**zoom.
    cross: seconds since the epoch; None without a crosshair.
    log: logarithmic y axis of metrics.
    smooth: index into `SMOOTHINGS`.
    by_time: metrics over time rather than over steps.
    """

    zoom: int = 0
    cross: float | None = None
    log: bool = False
    smooth: int = 0
    by_time: bool = False

    def window(self, begin: float, end: float) -> tuple[float, float]:
        """The part of [begin, end] that is shown: round the crosshair, else its end."""
        whole = max(end - begin, 1.0)
        width = whole / 2.0**self.zoom
        right = begin + whole if self.cross is None else self.cross + width / 2
        right = min(begin + whole, max(begin + width, right))
        return right - width, right

    def moved(self, by: int, begin: float, end: float) -> Look:
        """The crosshair moved by a share of the window, first put at its end."""
        x0, x1 = self.window(begin, end)
        at = x1 if self.cross is None else self.cross + by * (x1 - x0) / STEPS
        return replace(self, cross=min(max(at, begin), max(end, begin)))

    def zoomed(self, by: int) -> Look:
        return replace(self, zoom=max(0, min(DEEPEST, self.zoom + by)))

    @property
    def words(self) -> list[str]:
        """What is not as usual, for a title."""
        out = [f"x{2**self.zoom}"] if self.zoom else []
        out += ["log"] if self.log else []
        out += [f"smooth {SMOOTHINGS[self.smooth]:g}"] if self.smooth else []
        out += ["by time"] if self.by_time else []
        return out


@dataclass(frozen=True, slots=True)
class Reach:
    """The part of a run of which points are held closer than of the whole: from, to (unix times)."""

    begin: float
    end: float

    @staticmethod
    def around(window: tuple[float, float]) -> Reach:
        """What to ask for to show a window: half of it more on either side, to move in."""
        more = (window[1] - window[0]) / 2
        return Reach(window[0] - more, window[1] + more)

    def serves(self, window: tuple[float, float]) -> bool:
        """Whether a window can be drawn from it: it lies inside, and is not a small part of it."""
        inside = self.begin <= window[0] and window[1] <= self.end
        return inside and (window[1] - window[0]) * 4 > self.end - self.begin


def smoothed(values: Sequence[float | None], weight: float) -> list[float | None]:
    """Exponential moving average that is not drawn to zero at its beginning (the bias correction of
    Kingma and Ba, 2015, section 3). None stays None and does not count."""
    if not weight:
        return list(values)
    out: list[float | None] = []
    mean, seen = 0.0, 0
    for value in values:
        if value is None:
            out.append(None)
            continue
        seen += 1
        mean = weight * mean + (1 - weight) * value
        out.append(mean / (1 - weight**seen))
    return out


def nearest(points: Sequence[SeriesPoint], at: float) -> SeriesPoint | None:
    """The point of a series that was logged nearest to a moment."""
    if not points:
        return None
    right = bisect_left(points, at, key=lambda point: point["at"])
    around = points[max(0, right - 1) : right + 1]
    return min(around, key=lambda point: abs(point["at"] - at))
