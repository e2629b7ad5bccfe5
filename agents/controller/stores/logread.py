"""Reading the logs of a job: merged by time, from any point, and on as they grow."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from agents.controller.stores.logstore import Line, LogStore
from agents.controller.stores.search import Search
from jobs.base.times import rfc3339
from jobs.wire.views import LogLine

T = TypeVar("T")

_BATCH = 500
"""Lines handed to a worker thread at a time: enough to amortise the hop, few enough to stay live."""
_BATCH_CHARS = 1 << 20
"""Characters after which a batch ends before it has so many lines: a line may be long."""
_TAIL_CHARS = 64 << 20
"""Characters of a tail, which is held as a whole before it is given."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What to read. `rank` None: all ranks. `since` is unix time."""

    job: int
    attempt: int
    rank: int | None = None
    since: float | None = None
    tail: int | None = None
    grep: str | None = None  # a regular expression, searched for in each line
    offset: int | None = None  # only with one rank


def log_line(line: Line) -> LogLine:
    return {
        "rank": line.rank,
        "offset": line.offset,
        "at": rfc3339(line.at),
        "line": _text(line),
        "attempt": line.attempt,
    }


def _text(line: Line) -> str:
    return line.data.rstrip(b"\r").decode("utf-8", "backslashreplace")


class LogReader:
    """One reading of one attempt's logs. Remembers where it is in each rank, so that `read_on` gives
    only what came since. `close` it."""

    def __init__(self, store: LogStore, query: LogQuery) -> None:
        self._store, self._query = store, query
        self._search = Search(query.grep) if query.grep is not None else None
        self._positions: dict[int, int] = {}

    def close(self) -> None:
        if self._search is not None:
            self._search.close()

    def _ranks(self) -> list[int]:
        wanted = self._query.rank
        return [
            rank
            for rank in self._store.ranks(self._query.job, self._query.attempt)
            if wanted is None or rank == wanted
        ]

    def _start(self, rank: int) -> int:
        query, store = self._query, self._store
        if query.offset is not None:
            return query.offset
        if query.tail is not None and query.grep is None:
            start = store.tail_offset(query.job, query.attempt, rank, query.tail)
        else:
            start = 0
        if query.since is not None:
            start = max(start, store.offset_at(query.job, query.attempt, rank, query.since))
        return start

    def read_on(self, *, final: bool) -> Iterator[LogLine]:
        """Lines that came since the last call (all, at the first), merged by time.

        Args:
            final: nothing more will come; a last piece without a newline is given too.

        Raises:
            InvalidInput: the expression takes too long.
        """
        first = not self._positions
        lines = heapq.merge(
            *(self._rank_lines(rank, final) for rank in self._ranks()),
            key=lambda line: (line.at, line.rank),
        )
        matching = self._matching(lines)
        if first and self._query.tail is not None:
            matching = iter(_last(matching, self._query.tail))
        yield from matching

    def _rank_lines(self, rank: int, final: bool) -> Iterator[Line]:
        query = self._query
        if rank not in self._positions:
            self._positions[rank] = self._start(rank)
        latest = 0.0
        for line in self._store.lines(
            query.job, query.attempt, rank, self._positions[rank], final=final
        ):
            self._positions[rank] = line.end
            # The node's clock may step back; a merge needs each of its inputs in order.
            latest = max(latest, line.at)
            yield line if line.at == latest else _moved(line, latest)

    def _matching(self, lines: Iterator[Line]) -> Iterator[LogLine]:
        if self._search is None:
            yield from map(log_line, lines)
            return
        # Whoever asked may have left in the midst of a long log, without a match to end the batch at.
        while not self._search.closed() and (batch := _some(lines, lambda line: len(line.data))):
            for number in self._search([_text(line) for line in batch]):
                yield log_line(batch[number])


def _last(lines: Iterator[LogLine], count: int) -> deque[LogLine]:
    """The last `count` lines, fewer when they are very long."""
    kept: deque[LogLine] = deque()
    chars = 0
    for line in lines:
        kept.append(line)
        chars += len(line["line"])
        while len(kept) > count or chars > _TAIL_CHARS:
            chars -= len(kept.popleft()["line"])
    return kept


def _some(lines: Iterator[T], size: Callable[[T], int]) -> list[T]:
    """The next lines, a batch of them at most; none at the end."""
    batch: list[T] = []
    chars = 0
    for line in lines:
        batch.append(line)
        chars += size(line)
        if len(batch) == _BATCH or chars >= _BATCH_CHARS:
            break
    return batch


def _chars(line: LogLine) -> int:
    return len(line["line"])


def _moved(line: Line, at: float) -> Line:
    return Line(line.attempt, line.rank, line.offset, line.end, at, line.data)


async def follow(
    reader: LogReader,
    *,
    ended: Callable[[], Awaitable[bool]],
    changed: Callable[[], Awaitable[None]],
    run: Callable[[Callable[[], list[LogLine]]], Awaitable[list[LogLine]]],
) -> AsyncIterator[list[LogLine]]:
    """All lines, some at a time, and on until the attempt has ended and everything is told.

    Args:
        ended: whether the attempt is over and its logs complete.
        changed: returns when there may be more.
        run: runs blocking work elsewhere.
    """
    while True:
        over = await ended()  # asked before reading: what comes in between is read in this round
        async for batch in batches(reader, final=over, run=run):
            yield batch
        if over:
            return
        await changed()


async def batches(
    reader: LogReader,
    *,
    final: bool,
    run: Callable[[Callable[[], list[LogLine]]], Awaitable[list[LogLine]]],
) -> AsyncIterator[list[LogLine]]:
    """What there is now, read a batch at a time off the event loop."""
    lines = reader.read_on(final=final)
    while batch := await run(lambda: _some(lines, _chars)):
        yield batch
