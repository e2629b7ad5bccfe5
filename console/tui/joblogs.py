"""The logs of one job on screen: which are read, by offset or as a merged stream, and when.

A rank's log is read by byte offset, its end first and earlier parts on demand, so opening a log of many
gigabytes costs one small read. The merged view is the API's stream. Only the message loop calls this;
threads hand in what they read through `fetch` and `inbox`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from console.tui.core.format import moment
from console.tui.core.logs import CHUNK, RANK_BYTES, Lines, MergedLog, Quiet, RankLog
from console.tui.feed import Reader
from console.tui.source import Source
from jobs.errors import QuarterdeckError, Unreachable
from jobs.views import LogLine

MERGED_TAIL = 1000
"""Lines that the merged view opens with."""

KEPT = 8
"""Rank logs that are kept while other ranks are looked at."""

INBOX_LINES = 50_000
"""Lines that may wait between two frames; beyond that the oldest are dropped, as they would scroll out
of the merged ring anyway."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a rank's log as it was read."""

    attempt: int
    rank: int
    where: str  # "tail": a new window, "next": follows, "earlier": comes before
    offset: int
    data: bytes
    size: int


class JobLogs:
    """Args:
    fetch: makes a call in a thread; its result comes back through `arrived`.
    wake: is called in a thread when merged lines wait in the inbox.
    """

    def __init__(
        self,
        source: Source,
        job: str,
        fetch: Callable[[str, Callable[[], Any]], None],
        wake: Callable[[], object],
    ) -> None:
        self._source = source
        self._job = job
        self._fetch = fetch
        self._wake = wake
        self._ranks: OrderedDict[int, RankLog] = OrderedDict()
        self._opened: set[int] = set()  # ranks whose first window has arrived
        self._merged: MergedLog | None = None
        self._reader: Reader | None = None
        self._inbox: deque[LogLine] = deque(maxlen=INBOX_LINES)
        self._attempt = 0
        self.rank: int | None = None
        self.error = ""
        self.quiet = Quiet()

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def lines(self) -> Lines | None:
        """What to show; None before an attempt is known."""
        return self._merged if self.rank is None else self._ranks.get(self.rank)

    def attend(self, attempt: int) -> bool:
        """Look at an attempt; True when it is another one than before, and all lines are new."""
        if attempt == self._attempt:
            return False
        self.pause()
        self._attempt = attempt
        self._ranks.clear()
        self._opened.clear()
        self._merged = None
        self._inbox.clear()
        self.quiet = Quiet()
        self.select(self.rank)
        return True

    def select(self, rank: int | None) -> None:
        """Show one rank, or all merged."""
        self.rank = rank
        self.error = ""
        if not self._attempt:
            return
        if rank is None:
            if self._merged is None:
                self._merged = MergedLog()
            self.go_on()
            return
        self.pause()
        if rank not in self._ranks:
            self._ranks[rank] = RankLog()
            while len(self._ranks) > KEPT:
                old, _ = self._ranks.popitem(last=False)
                self._opened.discard(old)
        self._ranks.move_to_end(rank)

    def pause(self) -> None:
        """Stop the stream; what was read stays."""
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def go_on(self) -> None:
        """Read the merged stream, if that is what is shown."""
        if self.rank is None and self._attempt and self._reader is None:
            job, attempt = self._job, self._attempt
            self._reader = Reader(
                f"qd-logs-{job}",
                lambda: self._source.follow_logs(job, attempt, MERGED_TAIL),
                self._on_line,
                self._on_end,
            )
            self._reader.start()

    def _on_line(self, document: Any) -> None:
        self.error = ""
        quiet = not self._inbox
        self._inbox.append(cast("LogLine", document))
        if quiet:
            self._wake()

    def _on_end(self, error: QuarterdeckError | None) -> bool:
        self.error = error.message if error else ""
        self._wake()
        # Ended in good order, the attempt has ended and all is told; refused, it would be again.
        return isinstance(error, Unreachable)

    def drain(self) -> bool:
        """Take the merged lines that came; True when there were new ones."""
        came: list[LogLine] = []
        while self._inbox:
            came.append(self._inbox.popleft())
        for one in came:
            at = moment(one["at"])
            if at is not None:
                self.quiet.wrote(one["rank"], at)
        return self._merged is not None and self._merged.extend(came) > 0

    def poll(self, *, live: bool) -> None:
        """Ask for what follows in the rank's log, unless it has ended and all was read."""
        rank, attempt = self.rank, self._attempt
        if rank is None or not attempt:
            return
        log = self._ranks[rank]
        if rank not in self._opened or log.size - log.tail > RANK_BYTES:
            self._fetch("log", lambda: self._read_tail(attempt, rank))
        elif live or log.tail < log.size:
            offset = log.tail
            self._fetch("log", lambda: self._read(attempt, rank, "next", offset, 4 * CHUNK))

    def earlier(self) -> None:
        """Ask for what comes before the rank's window."""
        rank, attempt = self.rank, self._attempt
        if rank is None or rank not in self._opened:
            return
        start = self._ranks[rank].start
        if start > 0 and self._ranks[rank].held < RANK_BYTES:
            offset = max(0, start - CHUNK)
            self._fetch(
                "earlier", lambda: self._read(attempt, rank, "earlier", offset, start - offset)
            )

    def _read_tail(self, attempt: int, rank: int) -> Part:
        _, size = self._source.read_log(self._job, attempt, rank, 0, 1)
        return self._read(attempt, rank, "tail", max(0, size - CHUNK), CHUNK)

    def _read(self, attempt: int, rank: int, where: str, offset: int, limit: int) -> Part:
        data, size = self._source.read_log(self._job, attempt, rank, offset, limit)
        return Part(attempt, rank, where, offset, data, size)

    def arrived(self, part: Part, now: float) -> bool:
        """Take what a fetch brought; True when it changed what is shown."""
        log = self._ranks.get(part.rank)
        if log is None or part.attempt != self._attempt:
            return False
        self.error = ""
        before = (log.first, log.end, log.tail)
        if part.where == "earlier":
            log.prepend(part.offset, part.data)
        else:
            if part.where == "tail":
                log.begin(part.offset)
                self._opened.add(part.rank)
            elif part.data:
                self.quiet.wrote(part.rank, now)
            log.extend(part.offset, part.data, part.size)
        return part.rank == self.rank and before != (log.first, log.end, log.tail)

    def opened(self) -> bool:
        """Whether what is selected was read at least once."""
        return self.rank is None or self.rank in self._opened
