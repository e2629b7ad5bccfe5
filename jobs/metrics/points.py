"""Points of metrics: the lines that a script logs, and columns of numbers, as they are stored and sent.

A line is `{"n": NAME, "s": STEP, "v": VALUE, "t": UNIX_TIME}`. Of a value that JSON has no form for, `v` is
null and `x` its name in JavaScript: `Infinity`, `-Infinity`, or `NaN`, which counts as no value. `c` is the
rank of the process that logged it where that is not the rank whose file it is: `torchrun` as a job's command
is one rank of ours, and starts several of its own.
"""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from typing import Any

from jobs.base.errors import Damaged

MAX_NAME = 200
"""Characters of a metric's name that are kept."""
MAX_RANK = 1 << 20
"""No process has a higher rank."""
_STEPS = 2**63
"""Steps are stored in 64 bits."""
_NAN = math.nan
_FORMAT = b"\x01"
"""Version of the format in which points are stored."""
_CHILD, _ODD = b'"c":', b'"x":'
_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    step: int
    at: float  # unix time
    value: float | None  # None for NaN


@dataclass(frozen=True, slots=True)
class Points:
    """Points in the order in which they were logged, by column.

    Attributes:
        names: the different names.
        which: of each point, the index of its name; empty where there is but one name.
        values: NaN where there is no value.
    """

    names: list[str]
    which: array[int]  # unsigned, 32 bits
    steps: array[int]  # signed, 64 bits
    ats: array[float]  # unix times
    values: array[float]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, i: int) -> Point:
        value = self.values[i]
        name = self.names[self.which[i] if self.which else 0]
        return Point(name, self.steps[i], self.ats[i], None if math.isnan(value) else value)

    def __iter__(self) -> Iterator[Point]:
        return map(self.__getitem__, range(len(self)))

    def of(self, name: str) -> Sequence[int]:
        """The indices of a metric's points."""
        if name not in self.names:
            return ()
        if not self.which:
            return range(len(self))
        wanted = self.names.index(name)
        return [i for i, which in enumerate(self.which) if which == wanted]

    def only(self, name: str) -> Iterator[Point]:
        """A metric's points."""
        return map(self.__getitem__, self.of(name))

    def newest(self) -> dict[str, Point]:
        """The last point of each metric."""
        if not self.which:
            return {self.names[0]: self[-1]} if len(self) else {}
        last = dict(zip(self.which, count(), strict=False))
        return {self.names[which]: self[i] for which, i in last.items()}

    def to_bytes(self) -> bytes:
        """All but the names: the version of the format, then column after column, little-endian."""
        columns = (self.steps, self.ats, self.values, self.which)
        return b"".join((_FORMAT, *(_portable(column).tobytes() for column in columns)))

    @classmethod
    def from_bytes(cls, names: list[str], data: bytes) -> Points:
        """The inverse of `to_bytes`. What was stored before there were versions is columns alone, whose
        length is a multiple of four.

        Raises Damaged for a version that is not known here.
        """
        at = len(data) % 4
        if at and data[:1] != _FORMAT:
            raise Damaged(
                f"metric points are stored in a format that this version does not know ({data[0]})",
                "A newer version of Quarterdeck has written them: use that one.",
            )
        size = (len(data) - at) // (24 if len(names) == 1 else 28)
        columns: tuple[array[Any], ...] = (array("q"), array("d"), array("d"), array("I"))
        for column in columns:
            end = at + size * column.itemsize
            column.frombytes(data[at:end])
            at = end
        steps, ats, values, which = (_portable(column) for column in columns)
        return cls(names, which, steps, ats, values)


def _portable(column: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column


def parse_points(data: bytes) -> Points:
    """Read whole NDJSON lines as `quarterdeck.log` writes them. A line that is not one, or holds what
    no database stores, is skipped: it can only be the user's own doing, and must not stop the lines
    behind it."""
    try:
        return _parse_at_once(data.rstrip(b"\n"))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        lines = data.splitlines()
        return _columns(point for line in lines if (point := _parse(line)) is not None)


def by_rank(data: bytes, rank: int) -> dict[int, Points]:
    """The points in whole lines of a rank's file, by the rank of the process that logged them; the lowest
    first."""
    if _CHILD not in data:
        return {rank: parse_points(data)}
    lines: dict[int, list[bytes]] = {}
    for line in data.splitlines(keepends=True):
        lines.setdefault(_rank_of(line, rank), []).append(line)
    return {number: parse_points(b"".join(lines[number])) for number in sorted(lines)}


def _rank_of(line: bytes, rank: int) -> int:
    if _CHILD not in line:
        return rank
    try:
        child = json.loads(line).get("c")
    except (ValueError, AttributeError, RecursionError):
        return rank
    return child if isinstance(child, int) and 0 <= child < MAX_RANK else rank


def _parse_at_once(data: bytes) -> Points:
    """All lines in one go, at a tenth of the price of one by one. Raises whatever it is when there is
    anything odd about any of them."""
    items = json.loads(b"[" + data.replace(b"\n", b",") + b"]")
    if len(items) != data.count(b"\n") + 1:
        raise ValueError("a line that is no JSON by itself")
    names = list(map(itemgetter("n"), items))
    steps = array("q", map(itemgetter("s"), items))
    ats = array("d", map(itemgetter("t"), items))
    given = list(map(itemgetter("v"), items))
    if None in given:
        if _ODD in data:
            given = [_value_in(item) for item in items]
        given = [_NAN if value is None else value for value in given]
    values = array("d", given)
    different = list(dict.fromkeys(names))
    if not math.isfinite(sum(ats)) or any(_kept(name) != name for name in different):
        raise ValueError("not as quarterdeck.log writes it")
    which = array("I")
    if len(different) > 1:
        which = array("I", map({name: i for i, name in enumerate(different)}.__getitem__, names))
    return Points(different, which, steps, ats, values)


def _parse(line: bytes) -> Point | None:
    try:
        item = json.loads(line)
        step, at, value = int(item["s"]), float(item["t"]), _value_in(item)
        number = None if value is None else float(value)
        name = _kept(str(item["n"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not -_STEPS <= step < _STEPS or not math.isfinite(at):
        return None
    return Point(name, step, at, None if number is None or math.isnan(number) else number)


def _value_in(item: Mapping[str, Any]) -> Any:
    value = item["v"]
    return _INFINITE.get(str(item.get("x"))) if value is None else value


def _kept(name: str) -> str:
    """What of a name is kept. Raises UnicodeEncodeError, a ValueError, for half a surrogate pair."""
    name = name[:MAX_NAME]
    name.encode()
    if not name.isprintable():  # a terminal could act on it, and `quarterdeck.log` takes none such
        name = "".join(char if char.isprintable() else "\ufffd" for char in name)
    return name


def _columns(points: Iterator[Point]) -> Points:
    found = Points([], array("I"), array("q"), array("d"), array("d"))
    index: dict[str, int] = {}
    for point in points:
        found.which.append(index.setdefault(point.name, len(index)))
        found.steps.append(point.step)
        found.ats.append(point.at)
        found.values.append(_NAN if point.value is None else point.value)
    found.names.extend(index)
    if len(index) == 1:
        del found.which[:]
    return found


def pack(points: Sequence[Point]) -> Points:
    """Points as columns."""
    return _columns(iter(points))
