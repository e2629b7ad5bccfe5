"""Values of a column, as they come in files and requests, to one array: the same numbers from each of them.

Numbers go through float64 and int64, as JSON's do. Times become datetime64[us] in UTC.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np

from ..oip import Array

DTYPES: dict[str, Any] = {
    "number": np.float64, "integer": np.int64, "boolean": np.bool_, "text": np.object_,
    "time": np.dtype("datetime64[us]"),
}  # fmt: skip
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Column:
    """An input as it is declared."""

    name: str
    type: str
    missing: bool = False
    zone: str | None = None


def cast(column: Column, values: Any, *, text: bool) -> Array:
    """An array of the column's type.

    Args:
        values: a sequence, None where one is missing, or an array.
        text: they are text that stands for values, as in CSV.

    Raises:
        ValueError: in words, when a value does not fit.
    """
    if column.type == "time":
        return _times(column, values)
    if column.type == "text":
        return _texts(column, values)
    if column.type == "boolean":
        return _booleans(values, text=text)
    return _numbers(column, values, text=text)


def _numbers(column: Column, values: Any, *, text: bool) -> Array:
    whole = column.type == "integer"
    if not isinstance(values, np.ndarray):
        values = list(values)
        if text:
            values = [value.strip() or "nan" for value in values]
        elif column.missing or None in values:
            if None in values and not column.missing:
                raise ValueError("it is missing")
            values = [float("nan") if value is None else value for value in values]
    if text and not whole:
        array = np.array([_real(value) for value in values], np.float64)
    elif text:
        array = np.array([_whole(value) for value in values], np.int64)
    else:
        raw = np.asarray(values) if len(values) else np.zeros(0, DTYPES[column.type])
        if raw.dtype.kind not in ("iu" if whole else "iuf") or raw.ndim != 1:
            raise ValueError("a whole number is wanted" if whole else "a number is wanted")
        if raw.dtype.kind == "u" and raw.size and whole and raw.max() > np.iinfo(np.int64).max:
            raise ValueError("it does not fit into 64 bits")
        array = raw.astype(DTYPES[column.type])
    if whole:
        return array
    if not column.missing and np.isnan(array).any():
        raise ValueError("it is missing")
    if np.isinf(array).any():
        raise ValueError("it is not finite")
    return array


def _real(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"'{value[:80]}' is no number") from None


def _whole(value: str) -> int:
    if value == "nan":
        raise ValueError("it is missing")
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"'{value[:80]}' is no whole number") from None


def _booleans(values: Any, *, text: bool) -> Array:
    found = []
    for value in values.tolist() if isinstance(values, np.ndarray) else values:
        known = _TRUTH.get(value.strip().lower()) if text else value
        if not isinstance(known, bool):
            raise ValueError("true or false is wanted")  # noqa: TRY004 - as of any other value
        found.append(known)
    return np.array(found, np.bool_)


def _texts(column: Column, values: Any) -> Array:
    array = np.empty(len(values), np.object_)
    for index, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise ValueError("text is wanted")
        if not value and not column.missing:
            raise ValueError("it is missing")
        array[index] = value or ""
    return array


def _times(column: Column, values: Any) -> Array:
    zone = None if column.zone is None else zoneinfo.ZoneInfo(column.zone)
    found = np.empty(len(values), DTYPES["time"])
    for index, value in enumerate(values):
        if value is None or value == "":
            if not column.missing:
                raise ValueError("it is missing")
            found[index] = np.datetime64("NaT")
        else:
            found[index] = np.datetime64(microseconds(value, zone), "us")
    return found


def microseconds(value: Any, zone: zoneinfo.ZoneInfo | None) -> int:
    """A time as microseconds since 1970 in UTC.

    Args:
        value: text in ISO 8601, or a datetime.
        zone: of one that names none.

    Raises:
        ValueError: it is no time; it names no zone and there is none; it is finer than a microsecond, or,
            where clocks are put back or forward, stands for two moments or none. A guess could be later
            than the truth, and a join would see the future.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"'{value[:80]}' is no time in ISO 8601") from None
        fraction = value.partition(".")[2]
        if len(fraction) > 6 and fraction[6].isdigit():
            raise ValueError(f"'{value[:80]}' is finer than a microsecond")
    elif isinstance(value, datetime):
        moment = value
        if getattr(value, "nanosecond", 0):
            raise ValueError(f"'{value}' is finer than a microsecond")
    elif isinstance(value, date):
        moment = datetime.combine(value, time())
    else:
        raise ValueError("a time in ISO 8601 is wanted")  # noqa: TRY004 - as of any other value
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError(
                f"'{str(value)[:80]}' names no time zone, and its column has no `zone:`"
            )
        moment = moment.replace(tzinfo=zone, fold=0)
        if moment.utcoffset() != moment.replace(fold=1).utcoffset():
            raise ValueError(
                f"'{str(value)[:80]}' is no certain time in {zone.key}: clocks are put there"
            )
    return (moment - _EPOCH) // _MICROSECOND


def find_bad(columns: Sequence[Column], values: Sequence[Any], *, text: bool) -> dict[int, str]:
    """Which rows have a value that does not fit, and why: one by one, once a whole column did not."""
    reasons: dict[int, str] = {}
    for column, held in zip(columns, values, strict=True):
        for index in range(len(held)):
            try:
                cast(column, held[index : index + 1], text=text)
            except (ValueError, OverflowError, TypeError) as error:
                reasons.setdefault(index, f"'{column.name}': {error}"[:500])
    return reasons
