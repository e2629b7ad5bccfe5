"""Intervals: what metrics come to when rows are drawn again, with replacement (Efron, 1979).

The draws depend on nothing but the number of rows and the seed. Two versions that are measured on the same
rows get the same draws, so that the difference of their samples is the paired bootstrap of the difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .metrics import Floats, Metric, points, rounded

RESAMPLES = 1000
SEED = 20_240_229
LEVEL = 0.95
Z = 1.959964
"""Standard deviations of a normal distribution that hold so much."""


@dataclass(frozen=True)
class Interval:
    """A metric with the middle 95 % of its samples; an end is None where too few of them are defined."""

    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


def draws(rows: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[Floats]:
    """How often each row is drawn, for each resample."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, rows, rows), minlength=rows).astype(np.float64)


def mark(rows: int) -> str:
    """Names the draws: NumPy's streams may change between its versions."""
    first = next(draws(rows)) if rows else np.zeros(0)
    return hashlib.sha256(first.astype("<u4").tobytes()).hexdigest()


def sampled(
    metrics: Mapping[str, Metric], rows: int, resamples: int = RESAMPLES
) -> tuple[dict[str, Interval], dict[str, list[float | None]]]:
    """Each metric with its interval, and its value in each resample."""
    samples: dict[str, list[float | None]] = {name: [] for name in metrics}
    for weights in draws(rows, resamples):
        for name, metric in metrics.items():
            samples[name].append(rounded(metric(weights)))
    found = points(metrics, rows)
    return {name: interval(found[name], samples[name]) for name in metrics}, samples


def proportion(found: Interval, rows: int) -> Interval:
    """The interval of a share of rows. Where all rows are right, or none, every resample is the same and
    says nothing of the rows that were not seen; the open end is then Wilson's (1927)."""
    edge = rows / (rows + Z**2)
    if found.value == 1:
        return Interval(1.0, rounded(edge), 1.0)
    if found.value == 0:
        return Interval(0.0, 0.0, rounded(1 - edge))
    return found


def interval(value: float, samples: list[float | None]) -> Interval:
    defined = [one for one in samples if one is not None]
    if rounded(value) is None or len(defined) < max(2, len(samples) // 2):
        return Interval(rounded(value), None, None)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # The difference of two equal groups is above 0 in nearly every resample: the point is below the middle.
    return Interval(
        rounded(value), rounded(min(float(low), value)), rounded(max(float(high), value))
    )
