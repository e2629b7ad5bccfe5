"""Values as people read and type them: spans of time, sizes, numbers, moments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from jobs.base.errors import InvalidInput
from jobs.base.times import parse_time, rfc3339

_BARS = "▁▂▃▄▅▆▇█"


def span(seconds: float) -> str:
    """A span of time in at most two units: `3.2s`, `48s`, `3m12s`, `2h04m`, `5d03h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def size(count: float | None) -> str:
    """Bytes in binary units with three digits: `512B`, `1.50GiB`; `-` when unknown."""
    if count is None:
        return "-"
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f}{unit}" if unit == "B" else f"{value:.3g}{unit}"


def number(value: float | None) -> str:
    """A metric with six significant digits; `nan` where the script logged no number."""
    return "nan" if value is None else f"{value:.6g}"


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """One character for each value, the higher the larger; `low` and `high` are those of all lines."""
    top, span_ = len(_BARS) - 1, high - low
    return "".join(_BARS[round((v - low) / span_ * top) if span_ > 0 else 0] for v in values)


def count(value: float) -> str:
    """A number of GPUs or CPUs, without a fraction that is not there."""
    return f"{value:g}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}%"


def elapsed(start: str | None, end: str | None, now: float) -> str:
    """How long from `start` to `end`, or to `now` when it has not ended; `-` before the start.

    `start` and `end` are RFC 3339, `now` seconds since the epoch.
    """
    if start is None:
        return "-"
    return span((parse_time(end) if end else now) - parse_time(start))


def local_time(at: str) -> str:
    """The time of day of an RFC 3339 moment, in the reader's time zone: `12:03:11`."""
    return _local(parse_time(at)).strftime("%H:%M:%S")


def local_moment(at: str | None) -> str:
    """An RFC 3339 moment with its date, in the reader's time zone; `-` for None."""
    return "-" if at is None else _local(parse_time(at)).strftime("%Y-%m-%d %H:%M:%S")


def seconds(text: str, option: str) -> float:
    """A span as typed after an option: `90`, `90s`, `10m`, `1h30m`. Raises InvalidInput."""
    from jobs.base.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidInput(f"{option}: {error}") from None


def since(text: str, now: float, option: str = "--since") -> str:
    """The moment that `--since` names, or another option, in RFC 3339 UTC.

    Args:
        text: a span back from `now` (`10m`), a time of day (`14:05`), a date, or a date with time;
            without a zone it is the reader's own.
        now: seconds since the epoch.

    Raises:
        InvalidInput: it is none of these.
    """
    clock = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", text)
    if clock:
        hour, minute, second = (int(part or 0) for part in clock.groups())
        when = _local(now).replace(hour=hour, minute=minute, second=second, microsecond=0)
    else:
        try:
            if "-" not in text:
                return rfc3339(now - seconds(text, option))
            when = datetime.fromisoformat(text)
        except (ValueError, InvalidInput):
            raise InvalidInput(
                f"{option}: '{text}' is not a time",
                "Write a span (10m), a time of day (14:05) or a moment (2026-01-31T14:05:00Z).",
            ) from None
    return rfc3339(when.timestamp())


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()
