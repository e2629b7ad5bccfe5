"""How long the model takes on this node, and how it bears noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..oip import Array
from .metrics import Judged, points, rounded
from .models import Predictor, run

CALLS = 200
"""Single rows that are timed, after a few that warm up,"""
PATIENCE = 10.0
"""and the seconds that this may take."""
_WARM = 5
LEVELS = (0.05, 0.1, 0.2, 0.5)
"""Of noise, in standard deviations of each column."""


def latency(
    model: Predictor, inputs: Mapping[str, Array], clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Milliseconds of a row by itself, and rows a second of the largest batch."""
    count = len(next(iter(inputs.values())))
    taken: list[float] = []
    began = clock()
    for n in range(CALLS + _WARM):
        row = {name: array[n % count : n % count + 1] for name, array in inputs.items()}
        start = clock()
        model.run(row)
        if n >= _WARM:
            taken.append(clock() - start)
        if taken and clock() - began > PATIENCE:
            break
    start = clock()
    run(model, inputs)
    seconds = clock() - start
    found = np.quantile(taken, [0.5, 0.95, 0.99]) * 1e3
    return {
        "calls": len(taken),
        "p50_ms": rounded(float(found[0])),
        "p95_ms": rounded(float(found[1])),
        "p99_ms": rounded(float(found[2])),
        "rows": count,
        "rows_per_s": rounded(count / seconds if seconds else 0.0),
    }


def noise(
    model: Predictor,
    inputs: Mapping[str, Array],
    judged: Callable[[Mapping[str, Array]], Judged],
    seed: int,
) -> list[dict[str, Any]]:
    """The metrics with Gaussian noise on every input that is made of floats; empty without one."""
    floats = [name for name, array in inputs.items() if array.dtype.kind == "f"]
    if not floats:
        return []
    generator, found = np.random.default_rng(seed), []
    for level in LEVELS:
        changed = dict(inputs)
        for name in floats:
            array = inputs[name]
            spread = np.nanstd(array, axis=0) * level
            changed[name] = (array + generator.normal(size=array.shape) * spread).astype(
                array.dtype
            )
        now = judged(run(model, changed))
        values = points(now.metrics(), len(now.truth))
        found.append({"level": level, "metrics": {k: rounded(v) for k, v in values.items()}})
    return found
