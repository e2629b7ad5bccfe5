"""The logs of one job on screen: which are read, by offset or as a merged stream, and when.

A rank's log is read by byte offset, its end first and earlier parts on demand, so opening a log of many
gigabytes costs one small read. The merged view is the API's stream. Only the message loop calls this;
threads hand in what they read through `fetch` and `inbox`.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from console.tui.core.base import whole
from console.tui.core.base.whole import Spot, Stretch
from console.tui.core.draw.format import moment
from console.tui.core.jobs.logs import CHUNK, RANK_BYTES, Lines, MergedLog, Quiet, RankLog
from console.tui.feed import Reader
from console.tui.source import Source
from jobs.base.errors import QuarterdeckError, Unreachable
from jobs.wire.views import LogLine

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
    where: str  # "tail", "at OFFSET": a new window; "next": follows, "earlier": comes before
    offset: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Merged:
    """Lines of all ranks round a moment; none when nothing was written from then on."""

    attempt: int
    found: Stretch | None
    needle: str | None = None
    why: str = ""  # what to say when there are none
    edge: Literal["", "first", "last"] = ""  # of the lines before: it stays where it is on screen


class JobLogs:
    """Args:
    name: tells its fetches from those of another view of the same job.
    fetch: makes a call in a thread; its result comes back through `arrived`.
    wake: is called in a thread when merged lines wait in the inbox.
    """

    def __init__(
        self,
        source: Source,
        job: str,
        name: str,
        fetch: Callable[[str, Callable[[], Any]], None],
        wake: Callable[[], object],
    ) -> None:
        self._source = source
        self._job = job
        self._name = name
        self._fetch = fetch
        self._wake = wake
        self._ranks: OrderedDict[int, RankLog] = OrderedDict()
        self._opened: set[int] = set()  # ranks whose first window has arrived
        self._aside: set[int] = set()  # ranks whose window has left the end of their log
        self._merged: MergedLog | None = None
        self._kept: MergedLog | None = None
        self._merged_aside = False  # the merged lines are of a moment that has passed
        self._reader: Reader | None = None
        self._inbox: deque[LogLine] = deque(maxlen=INBOX_LINES)
        self._attempt = 0
        self.rank: int | None = None
        self.keep = ""  # only lines that have it in them are shown; empty shows all
        self.error = ""
        self.quiet = Quiet()

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def lines(self) -> Lines | None:
        """What to show; None before an attempt is known."""
        if self.keep:
            return self._kept
        return self._merged if self.rank is None else self._ranks.get(self.rank)

    def attend(self, attempt: int) -> bool:
        """Look at an attempt; True when it is another one than before, and all lines are new."""
        if attempt == self._attempt:
            return False
        self.pause()
        self._attempt = attempt
        self._ranks.clear()
        self._opened.clear()
        self._aside.clear()
        self._merged = None
        self.quiet = Quiet()
        self.select(self.rank, self.keep)
        return True

    def select(self, rank: int | None, keep: str = "") -> None:
        """Show one rank, or all merged; of them only the lines that have `keep` in them."""
        self.pause()
        self._inbox.clear()
        self.rank, self.keep = rank, keep
        self.error = ""
        if self._merged_aside:
            self._merged, self._merged_aside = None, False
        if not self._attempt:
            return
        if keep:
            self._kept = MergedLog(sparse=True)
        elif rank is None and self._merged is None:
            self._merged = MergedLog()
        if self._streamed:
            self.go_on()
            return
        assert rank is not None
        if rank not in self._ranks:
            self._ranks[rank] = RankLog()
            while len(self._ranks) > KEPT:
                old, _ = self._ranks.popitem(last=False)
                self._opened.discard(old)
                self._aside.discard(old)
        self._ranks.move_to_end(rank)

    @property
    def _streamed(self) -> bool:
        """Whether what is shown is a stream of the API, not a window of one rank's file."""
        return self.rank is None or bool(self.keep)

    @property
    def window(self) -> RankLog | None:
        """The rank's log, when a window of it is what is shown."""
        return None if self._streamed or self.rank is None else self._ranks.get(self.rank)

    @property
    def merged(self) -> MergedLog | None:
        """The merged lines, when they are what is shown."""
        return (self._kept if self.keep else self._merged) if self._streamed else None

    def pause(self) -> None:
        """Stop the stream; what was read stays."""
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def go_on(self) -> None:
        """Read the stream, if one is what is shown."""
        if not self._streamed or not self._attempt or self._reader is not None:
            return
        if self._merged_aside:
            return
        job, attempt, rank = self._job, self._attempt, self.rank
        grep = f"(?i){_pattern(self.keep)}" if self.keep else None
        # Of its own, so that a line which a stopped reader still hands in goes nowhere.
        inbox: deque[LogLine] = deque(maxlen=INBOX_LINES)
        self._inbox = inbox
        self._reader = Reader(
            f"qd-logs-{job}",
            lambda: self._source.follow_logs(job, attempt, MERGED_TAIL, rank=rank, grep=grep),
            lambda document: self._on_line(inbox, document),
            self._on_end,
        )
        self._reader.start()

    def _on_line(self, inbox: deque[LogLine], document: Any) -> None:
        self.error = ""
        quiet = not inbox
        inbox.append(cast("LogLine", document))
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
        merged = self.merged
        return merged is not None and merged.extend(came) > 0

    def poll(self, *, live: bool) -> None:
        """Ask for what follows in the rank's log, unless it has ended and all was read."""
        log, rank, attempt = self.window, self.rank, self._attempt
        if log is None or rank is None or not attempt:
            return
        if rank not in self._opened:
            self.to_end()
        elif rank in self._aside:
            return
        elif log.size - log.tail > RANK_BYTES:
            self.to_end()
        elif live or log.tail < log.size:
            self._ask("log", attempt, rank, "next", log.tail, 4 * CHUNK)

    def to_end(self) -> None:
        """Show the end of what is selected, and follow it."""
        rank, attempt = self.rank, self._attempt
        if self._merged_aside:
            self.select(rank, self.keep)
        elif rank is not None:
            self._aside.discard(rank)
            self._fetch(f"{self._name} log", lambda: self._read_tail(attempt, rank))

    def to(self, offset: int) -> None:
        """Show the rank's log round a byte offset, which must be the beginning of a line."""
        if self.rank is not None:
            self._aside.add(self.rank)
            begin = max(0, offset - CHUNK)
            self._ask("log", self._attempt, self.rank, f"at {offset}", begin, 3 * CHUNK)

    def earlier(self) -> None:
        """Ask for what comes before the lines that are held."""
        log, rank = self.window, self.rank
        if (merged := self.all_ranks) is not None and merged.end > merged.first:
            self._around(merged.spot(merged.first), "first")
        if log is not None and rank in self._opened and log.start > 0:
            assert rank is not None
            offset = max(0, log.start - CHUNK)
            self._ask("earlier", self._attempt, rank, "earlier", offset, log.start - offset)

    def later(self) -> None:
        """Ask for what comes after the lines that are held, where they are not the newest."""
        log, rank = self.window, self.rank
        if (
            (merged := self.all_ranks) is not None
            and self._merged_aside
            and merged.end > merged.first
        ):
            self._around(merged.spot(merged.end - 1), "last")
        if log is not None and rank in self._aside:
            assert rank is not None
            self._ask("log", self._attempt, rank, "next", log.tail, CHUNK)

    @property
    def complete(self) -> bool:
        """Whether the newest lines are among those that are shown."""
        if self._streamed:
            return not self._merged_aside
        return self.rank not in self._aside

    # All ranks, at moments that have passed.

    @property
    def all_ranks(self) -> MergedLog | None:
        """The lines of all ranks, when all of them are what is shown."""
        return None if self.keep or self.rank is not None else self._merged

    def _read_all(self, attempt: int) -> whole.Open:
        source, job = self._source, self._job
        return lambda since, grep: source.whole_log(job, attempt, None, since=since, grep=grep)

    def _around(self, spot: Spot, edge: Literal["first", "last"]) -> None:
        attempt = self._attempt
        read = self._read_all(attempt)

        def look() -> Merged:
            found = whole.around(read, spot.at, spot, earlier=edge == "first")
            return Merged(attempt, found, edge=edge)

        self._fetch(f"{self._name} merged", look)

    def around_moment(self, when: float) -> None:
        """Show the lines of all ranks round a moment."""
        attempt = self._attempt
        read = self._read_all(attempt)
        none = "Nothing was written after that."
        self._fetch(
            f"{self._name} merged",
            lambda: Merged(attempt, whole.around(read, when), why=none),
        )

    def find_merged(self, needle: str, here: Spot, *, backwards: bool) -> None:
        """Look for a text through all that the ranks wrote, from a line on."""
        attempt = self._attempt
        read = self._read_all(attempt)

        def look() -> Merged:
            spot = whole.find(read, needle, here, backwards=backwards)
            found = whole.around(read, spot.at, spot) if spot else None
            return Merged(
                attempt, found, needle, f"'{needle}' is nowhere in the logs of the ranks."
            )

        self._fetch(f"{self._name} merged", look)

    def take_merged(self, came: Merged) -> int | None:
        """Show what was found; gives the number of the line that was looked for, None when the lines
        stay as they are."""
        if came.attempt != self._attempt or self.all_ranks is None or came.found is None:
            return None
        if came.edge == "first" and came.found.index == 0:
            return None  # nothing was written before
        self.pause()
        self._inbox = deque(maxlen=INBOX_LINES)
        self._merged, self._merged_aside = MergedLog(), True
        self._merged.extend(came.found.lines)
        self.error = ""
        one = whole.spot(came.found.lines[came.found.index])
        return self._merged.number_of(one)

    def _ask(self, key: str, attempt: int, rank: int, where: str, offset: int, limit: int) -> None:
        self._fetch(f"{self._name} {key}", lambda: self._read(attempt, rank, where, offset, limit))

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
            if log.prepend(part.offset, part.data) and log.held > RANK_BYTES * 5 // 4:
                log.drop_end()
                self._aside.add(part.rank)
        else:
            if part.where == "tail" or part.where.startswith("at "):
                log.begin(part.offset)
                self._opened.add(part.rank)
            elif part.data and part.rank not in self._aside:
                self.quiet.wrote(part.rank, now)
            log.extend(part.offset, part.data, part.size)
            if log.tail >= part.size:
                self._aside.discard(part.rank)
        return part.rank == self.rank and before != (log.first, log.end, log.tail)

    def opened(self) -> bool:
        """Whether what is selected was read at least once."""
        return self._streamed or self.rank in self._opened


def _pattern(text: str) -> str:
    """`text` as a regular expression: as it is when it is one, else for its own characters."""
    try:
        re.compile(text)
    except re.error:
        return re.escape(text)
    return text
