"""Point-in-time joins: for each row, the newest row of a table that was known at the row's time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..oip import Array

NEVER = np.iinfo(np.int64).min
"""A missing time, as NumPy has it."""


class Known:
    """A table, sorted by key and time. Of rows with the same key and time the last one counts.

    Args:
        keys: columns that make up the key, as many values of each as of `times`.
        times: from when each row was known; datetime64[us].
        tolerance: microseconds that a row may be old at most.
    """

    def __init__(self, keys: Sequence[Array], times: Array, tolerance: int | None = None) -> None:
        moments = times.astype(np.int64)
        self._tolerance = tolerance
        self._codes: dict[Any, int] = {}
        codes = np.array(
            [self._codes.setdefault(key, len(self._codes)) for key in _tuples(keys, len(times))],
            np.int64,
        )
        # Key and time as one number: times by their rank, so that it cannot overflow.
        self._ranks = np.unique(moments)
        self._step = len(self._ranks) + 1
        whole = codes * self._step + np.searchsorted(self._ranks, moments, "right")
        self._order = np.argsort(whole, kind="stable")  # the same key and time: as in the file
        self._whole = whole[self._order]
        self._moments = moments

    def find(self, keys: Sequence[Array], times: Array) -> Array:
        """For each row the place in the table of what was known then, -1 where there is nothing.

        A row sees what was known at its own time, and nothing that came after.
        """
        moments = times.astype(np.int64)
        codes = np.array([self._codes.get(key, -1) for key in _tuples(keys, len(times))], np.int64)
        found = np.full(len(times), -1, np.int64)
        if not len(self._whole):
            return found
        wanted = codes * self._step + np.searchsorted(self._ranks, moments, "right")
        at = np.searchsorted(self._whole, wanted, "right") - 1
        there = (codes >= 0) & (at >= 0) & (moments != NEVER)
        there &= self._whole[at] // self._step == codes
        # Rank 0 of a key is before its first time; a whole number there belongs to no row.
        places = self._order[at]
        if self._tolerance is not None:
            there &= moments - self._moments[places] <= self._tolerance
        found[there] = places[there]
        return found


def _tuples(keys: Sequence[Array], rows: int) -> Any:
    return zip(*(array.tolist() for array in keys), strict=True) if keys else [()] * rows


def taken(column: Array, places: Array) -> Array:
    """Values at these places; where there is none, what stands for a missing value."""
    found = np.empty(len(places), column.dtype)
    there = places >= 0
    found[there] = column[places[there]]
    if not there.all():
        found[~there] = _MISSING[column.dtype.kind]
    return found


_MISSING: Mapping[str, Any] = {"f": np.nan, "O": "", "M": np.datetime64("NaT")}
"""By the kind of the array; others cannot be missing, which the caller checks before."""
