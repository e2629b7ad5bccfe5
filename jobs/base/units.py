"""Durations and sizes as people write them: `90s`, `1h30m`, `8GiB`, `500MB`.

Inside the product a duration is a float of seconds and a size an int of bytes; text exists only at
the edge. Both parsers raise `ValueError` with a sentence that says what was found and what is allowed,
so that a caller can put the name of the field in front.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from itertools import pairwise

_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
    "w": Fraction(604_800),
}
_DURATION_PART = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(ms|[smhdw])", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)
_SECONDS_ONLY = re.compile(r"\d{1,18}(?:\.\d{1,9})?", re.ASCII)
_DURATION_FORM = "a number of seconds, or text such as 90s, 45m, 2h, 1h30m or 7d"

MAX_DURATION = 10 * 365 * 86_400.0
"""Ten years, in seconds: longer is a slip of the finger, and stays clear of what timers can hold."""

_BYTES = {"": 1, "b": 1} | {
    prefix.lower() + suffix: base**power
    for power, prefix in enumerate("KMGTP", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024), ("i", 1024))
}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]*)", re.ASCII)
_SIZE_FORM = "a number of bytes, or text such as 500MB (powers of 1000) or 8GiB (powers of 1024)"

MAX_SIZE = 2**63 - 1
"""What a signed 64-bit column holds."""


def parse_duration(value: object) -> float:
    """Seconds of a duration.

    Takes a number of seconds or text: a plain number, or parts with units from large to small
    (w, d, h, m, s, ms), each at most once. Raises ValueError; negative, non-finite and absurdly long
    (`MAX_DURATION`) values are refused too.
    """
    seconds: Fraction | float | None = None
    if isinstance(value, str):
        seconds = _duration_of_text(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        seconds = value
    if seconds is None or seconds < 0:
        raise ValueError(f"found {show(value)}; allowed: {_DURATION_FORM}")
    if seconds > MAX_DURATION:
        raise ValueError(f"found {show(value)}; allowed: at most ten years")
    return float(seconds)


def _duration_of_text(text: str) -> Fraction | None:
    compact = text.strip().replace(" ", "")
    if _SECONDS_ONLY.fullmatch(compact):
        return Fraction(compact)
    if not _DURATION.fullmatch(compact):
        return None
    parts = [(Fraction(number), _SECONDS[unit]) for number, unit in _DURATION_PART.findall(compact)]
    units = [unit for _, unit in parts]
    if any(later >= earlier for earlier, later in pairwise(units)):
        return None
    return sum((number * unit for number, unit in parts), Fraction(0))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same duration, to the millisecond."""
    rest = round(seconds * 1000)
    text = ""
    for unit, size in reversed(_SECONDS.items()):
        if unit == "w":  # nobody counts "1w3d" in their head; days read better
            continue
        count, rest = divmod(rest, int(size * 1000))
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def parse_size(value: object) -> int:
    """Bytes of a size.

    Takes a whole number of bytes or text with a unit: kB, MB, GB, TB, PB are powers of 1000, KiB ...
    PiB (or Ki ... Pi) powers of 1024, in any case. A bare `8G` is refused, because tools disagree by
    7 % on what it means. Raises ValueError.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size: Fraction | None = Fraction(value)
    elif isinstance(value, str):
        size = _size_of_text(value)
    else:
        size = None
    if size is None or size < 0 or size.denominator != 1:
        raise ValueError(f"found {show(value)}; allowed: {_SIZE_FORM}")
    if size > MAX_SIZE:
        raise ValueError(f"found {show(value)}; allowed: less than 8 EiB")
    return int(size)


def _size_of_text(text: str) -> Fraction | None:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = match.groups()
    if len(unit) == 1 and unit.upper() in "KMGTP":
        raise ValueError(
            f"found {show(text)}, which tools read differently; "
            f"allowed: {number}{unit.upper()}iB (powers of 1024) or {number}{unit.upper()}B (1000)"
        )
    factor = _BYTES.get(unit.lower())
    if factor is None:
        return None
    exact = Fraction(number) * factor
    # 1.1GiB is not a whole number of bytes; a person who writes it does not care about the last one.
    return Fraction(math.floor(exact)) if factor > 1 else exact


def format_size(size: int) -> str:
    """A size for people, in powers of 1024: `512 B`, `1.5 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} PiB"


def show(value: object, limit: int = 60) -> str:
    """A value as an error message shows it: printable, on one line, cut at `limit` characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a huge number"  # str() of it may raise, and would not help
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)  # -1.0 may have been -1 before it was converted
    if isinstance(value, str) and len(value) > limit:  # it may be megabytes
        value = value[:limit]
    text = f"'{value}'" if isinstance(value, str) else str(value)
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
