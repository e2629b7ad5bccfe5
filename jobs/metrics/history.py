"""The recent past of what a node measures, in a fixed amount of memory.

A node of eight GPUs measures thirteen quantities each second, and a fleet has a thousand nodes: what is
kept of each has to be small, and keeping it cheap. So all quantities of a node share one clock and one
place in the rings, buckets are half-precision numbers (3 digits, plenty for a chart in a terminal), and
longer buckets are made of shorter ones when those are complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite, isnan, nan
from struct import pack, pack_into, unpack_from

from jobs.wire.views import HistoryPoint

LEVELS: tuple[tuple[float, int], ...] = (
    (1.0, 600), (10.0, 360), (60.0, 360), (300.0, 288), (1800.0, 336)
)  # fmt: skip
"""Seconds per bucket and number of buckets: 10 minutes, 1 hour, 6 hours, a day, a week. Each width is a
multiple of the one before. 12 kB per quantity, all in all."""

TOGETHER = 32
"""Samples that are sorted into buckets at once, some seconds after they came."""

_MOST = 65504.0
"""The largest half-precision number."""

Bucket = tuple[float, float, float]
"""Mean, low and high; the mean of a longer bucket is that of the shorter ones in it."""
Planes = Sequence[Sequence[float]]
"""The means, lows and highs of buckets that follow one another. NaN where there was nothing."""
_NOTHING: Bucket = (nan, nan, nan)


class History:
    """Quantities by name: mean, low and high of each second, and of longer times.

    A spike of one sample stays visible in every resolution. Times are seconds on any one clock, and
    samples have to come in their order: one of an earlier second than the last is left out.
    """

    __slots__ = ("_levels", "_names", "_rows", "_second", "_seconds", "_together")

    def __init__(self, levels: Sequence[tuple[float, int]] = LEVELS) -> None:
        self._levels: list[_Ring] = []
        for width, count in levels:
            self._levels.append(_Ring(width, count, self._levels[-1] if self._levels else None))
        self._together = min(TOGETHER, levels[0][1] // 2)
        # What came last, and is not sorted in yet: of each sample its second and its values.
        self._names: tuple[str, ...] = ()
        self._seconds: list[int] = []
        self._rows: list[tuple[float, ...]] = []
        self._second = -1  # the last one

    def __contains__(self, name: str) -> bool:
        return name in self._names or name in self._levels[0].columns

    def add(self, at: float, values: Mapping[str, float]) -> None:
        """Record a sample. What is not finite is left out."""
        second = int(at // self._levels[0].width)
        if second < self._second:
            return
        if second > self._second and len(self._rows) >= self._together:
            self._sort_in()
        if tuple(values) != self._names:
            self._meet(tuple(values))
        self._second = second
        self._seconds.append(second)
        row = tuple(values.values())
        if len(row) < len(self._names):
            row = tuple(values.get(name, nan) for name in self._names)
        self._rows.append(row)

    def _meet(self, names: tuple[str, ...]) -> None:
        """Other quantities come than before. Those that are missing now may come again."""
        missing = tuple(name for name in self._names if name not in names)
        if missing and set(names) <= set(self._names):
            return
        held = [dict(zip(self._names, row, strict=True)) for row in self._rows]
        self._names = names + missing
        self._rows = [tuple(row.get(name, nan) for name in self._names) for row in held]

    def query(self, name: str, seconds: float, points: int, now: float) -> list[HistoryPoint]:
        """The last `seconds` of one quantity before `now`, oldest first, as at most `points` points.

        The finest level that reaches back far enough answers, or the coarsest; its buckets are joined
        until they are few enough, along fixed moments, so that a chart does not flicker as time goes
        by. A point's `at` is the beginning of its span. A span without a value has no point. Raises
        ValueError if `points` or `seconds` is not positive.
        """
        if points < 1 or not seconds > 0:
            raise ValueError(f"{points} points of {seconds} s; both have to be positive")
        if name not in self:
            return []
        self._sort_in()
        reaching = (n for n, ring in enumerate(self._levels) if ring.count * ring.width >= seconds)
        chosen = next(reaching, len(self._levels) - 1)
        ring = self._levels[chosen]
        last = floor(now / ring.width)
        first = floor((now - seconds) / ring.width) + 1
        joined = max(1, ceil((last - first + 1) / points))
        first = max(first, (last // joined - points + 1) * joined, ring.closed - ring.count + 1)
        planes = [list(plane) for plane in ring.read(name, first, min(last, ring.closed))]
        for number, bucket in self._open(chosen, name):
            if first <= number <= last:
                for plane, value in zip(planes, bucket, strict=True):
                    plane += [nan] * (number - first - len(plane))
                    plane.append(value)
        found, number, end = [], first, first + len(planes[0])
        while number < end:
            until = min((number // joined + 1) * joined, end)
            mean, low, high = _joined(planes, number - first, until - first)
            if not isnan(mean):
                at = number // joined * joined * ring.width
                found.append(HistoryPoint(at=at, mean=mean, low=low, high=high))
            number = until
        return found

    def _sort_in(self) -> None:
        """Put down all seconds that are over. The last one is not: more samples of it may come."""
        seconds = self._seconds
        if not seconds or seconds[0] == seconds[-1]:
            return
        over = seconds.index(seconds[-1])
        spans = _spans(seconds[:over])
        finest = self._levels[0]
        if finest.closed < 0:
            for ring in self._levels:
                ring.closed = int(spans[0][0] * finest.width // ring.width) - 1
        values = [_clean(column) for column in zip(*self._rows[:over], strict=True)]
        at = 0
        while at < len(spans):  # a stretch of seconds without a gap
            end = at + 1
            while end < len(spans) and spans[end][0] == spans[end - 1][0] + 1:
                end += 1
            planes = [_planes(column, spans[at:end]) for column in values]
            columns = dict(zip(self._names, planes, strict=True))
            self._put(0, spans[at][0], end - at, columns)
            at = end
        del seconds[:over], self._rows[:over]

    def _put(self, level: int, first: int, count: int, columns: Mapping[str, Planes]) -> None:
        """Write complete buckets, numbered from `first` on, and the longer ones that they complete."""
        ring, above = self._levels[level], level + 1
        if above == len(self._levels):
            return ring.write(first, count, columns)
        ratio = self._levels[above].ratio
        begun = (ring.closed + 1) // ratio * ratio
        if first + count - begun > ring.count:
            # What is left behind will not be there any more when its longer bucket is over.
            self._complete(above, ring.closed // ratio)
        ring.write(first, count, columns)
        return self._complete(above, (ring.closed + 1) // ratio - 1)

    def _complete(self, level: int, upto: int) -> None:
        """Make the buckets of a level up to a number, from those of the level before."""
        ring, shorter = self._levels[level], self._levels[level - 1]
        ratio, oldest = ring.ratio, shorter.closed - shorter.count + 1
        first = max(
            ring.closed + 1, -(-oldest // ratio)
        )  # before it there is nothing to make it of
        if upto < first:
            return
        begin, end = first * ratio, (upto + 1) * ratio
        columns = {}
        for name in shorter.columns:
            planes = shorter.read(name, begin, end - 1)
            joined = [_joined(planes, n, n + ratio) for n in range(0, end - begin, ratio)]
            columns[name] = list(zip(*joined, strict=True))
        self._put(level, first, upto - first + 1, columns)

    def _open(self, level: int, name: str) -> list[tuple[int, Bucket]]:
        """Buckets that are not complete, with their numbers."""
        if level == 0:
            if name not in self._names or not self._rows:
                return []
            place = self._names.index(name)
            column = _clean([row[place] for row in self._rows])
            return [(self._second, _joined((column, column, column), 0, len(column)))]
        ring, shorter = self._levels[level], self._levels[level - 1]
        first = (ring.closed + 1) * ring.ratio
        parts = enumerate(zip(*shorter.read(name, first, shorter.closed), strict=True), first)
        groups: dict[int, list[Bucket]] = {}
        for number, bucket in [*parts, *self._open(level - 1, name)]:
            groups.setdefault(number // ring.ratio, []).append(bucket)
        return [
            (number, _joined(list(zip(*buckets, strict=True)), 0, len(buckets)))
            for number, buckets in groups.items()
        ]


class _Ring:
    """Buckets of one width of all quantities. Bucket number `n` covers `[n * width, (n + 1) * width)`,
    and `closed` is the newest that is complete, -1 before the first. `ratio` is how many buckets of
    the ring before make one."""

    __slots__ = ("closed", "columns", "count", "ratio", "width")

    def __init__(self, width: float, count: int, shorter: _Ring | None) -> None:
        self.width, self.count, self.closed = width, count, -1
        self.ratio = round(width / shorter.width) if shorter else 1
        self.columns: dict[str, bytearray] = {}  # all means, then all lows, then all highs

    def read(self, name: str, first: int, last: int) -> Planes:
        """Complete buckets from `first` to `last`."""
        column, count = self.columns.get(name), self.count
        if column is None or last < first:
            return (), (), ()
        begin, end = first % count, first % count + last - first + 1
        if end <= count:
            numbers = [unpack_from(f"{end - begin}e", column, 2 * at) for at in
                       (begin, count + begin, 2 * count + begin)]  # fmt: skip
        else:
            numbers = [
                unpack_from(f"{count - begin}e", column, 2 * (at + begin))
                + unpack_from(f"{end - count}e", column, 2 * at)
                for at in (0, count, 2 * count)
            ]
        return numbers

    def write(self, first: int, count: int, columns: Mapping[str, Planes]) -> None:
        """Put down buckets behind the last ones; those that are skipped have nothing in them."""
        for name in columns.keys() - self.columns.keys():
            self.columns[name] = bytearray(pack("e", nan) * (3 * self.count))
        skipped = min(first - self.closed - 1, self.count)
        for name, column in self.columns.items():
            if skipped > 0:
                self._fill(column, first - skipped, skipped, _nothing(skipped))
            self._fill(column, first, count, columns.get(name) or _nothing(count))
        self.closed = first + count - 1

    def _fill(self, column: bytearray, first: int, count: int, planes: Planes) -> None:
        begin, size = first % self.count, self.count
        head = min(count, size - begin)
        for plane, numbers in enumerate(planes):
            at = 2 * plane * size
            pack_into(f"{head}e", column, at + 2 * begin, *numbers[:head])
            if head < count:
                pack_into(f"{count - head}e", column, at, *numbers[head:])


def _nothing(count: int) -> Planes:
    none = [nan] * count
    return none, none, none


def _clean(column: Sequence[float]) -> Sequence[float]:
    """Numbers that a ring can hold; NaN for what is not one."""
    if -_MOST <= min(column) <= max(column) <= _MOST:
        return column
    return [min(max(value, -_MOST), _MOST) if isfinite(value) else nan for value in column]


def _spans(seconds: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of equal numbers: the number, and where its run begins and ends."""
    spans: list[tuple[int, int, int]] = []
    begin = 0
    for at in range(1, len(seconds) + 1):
        if at == len(seconds) or seconds[at] != seconds[begin]:
            spans.append((seconds[begin], begin, at))
            begin = at
    return spans


def _planes(column: Sequence[float], spans: Sequence[tuple[int, int, int]]) -> Planes:
    """The values of one second after another."""
    begin, end = spans[0][1], spans[-1][2]
    if end - begin == len(spans):  # each has come once
        once = column[begin:end]
        return once, once, once
    whole = (column, column, column)
    return list(zip(*(_joined(whole, at, until) for _, at, until in spans), strict=True))


def _joined(planes: Planes, begin: int, end: int) -> Bucket:
    """Several buckets as one."""
    means, lows, highs = planes[0][begin:end], planes[1][begin:end], planes[2][begin:end]
    total = sum(means)
    if total != total:
        there = [n for n, mean in enumerate(means) if mean == mean]
        if not there:
            return _NOTHING
        means, lows, highs = ([plane[n] for n in there] for plane in (means, lows, highs))
        total = sum(means)
    elif not means:
        return _NOTHING
    low, high = min(lows), max(highs)
    # A mean of equal values may be off by a rounding error, and must not leave their range.
    return min(max(total / len(means), low), high), low, high
