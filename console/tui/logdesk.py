"""One log view of a job and what is done with it: choosing, finding, keeping, jumping to a moment.

It joins what is read (`JobLogs`) to what is seen (`LogView`), so that a screen may have two of them
side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from console.tui.core.base import scan
from console.tui.core.draw.format import clock, moment
from console.tui.core.draw.lines import Line, line
from console.tui.core.jobs.logs import MergedLog
from console.tui.joblogs import JobLogs, Merged
from console.tui.source import Source
from console.tui.widgets.logview import LogView
from jobs.base.errors import QuarterdeckError

Fetch = Callable[[str, Callable[[], Any]], None]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a search or a jump ended, in a rank's log; no offset when there is no such line."""

    rank: int
    offset: int | None
    what: str  # for the note when there is none
    needle: str | None = None


class LogDesk:
    """Args:
    name: of the view, and of the fetches that belong to it.
    view: where the lines are shown.
    fetch: makes a call in a thread; the answer comes back through `fetched`.
    wake: is called in a thread when merged lines wait.
    tell: shows a short note.
    """

    def __init__(
        self,
        source: Source,
        job: str,
        name: str,
        view: LogView,
        fetch: Fetch,
        wake: Callable[[], object],
        tell: Tell,
    ) -> None:
        self._source, self._job, self.name, self.view = source, job, name, view
        self._fetch, self._tell = fetch, tell
        self.logs = JobLogs(source, job, name, fetch, wake)

    # What is shown.

    def select(self, rank: int | None, keep: str = "") -> None:
        """Show a rank, or all merged; of them only lines that have `keep` in them."""
        self.logs.select(rank, keep)
        self.show()

    def show(self) -> None:
        self.view.show_log(self.logs.lines, self.nothing())

    def to_end(self) -> None:
        """Show the end of what is selected, and follow it."""
        self.logs.to_end()
        if self.logs.all_ranks is not None:
            self.view.complete = True
            self.show()

    def nothing(self) -> list[Line]:
        """What stands there while there is no line."""
        if self.logs.error:
            return [line((f" {self.logs.error}", "error"))]
        if not self.logs.attempt:
            return [line((" Not started yet. ", "dim"), ("x", "key"), (" tells why.", "dim"))]
        if not self.logs.opened():
            return [line((" reading", "dim"))]
        if self.logs.keep:
            return [line((f" Looking through the whole log for '{self.logs.keep}'.", "dim"))]
        return [line((" Nothing was written yet.", "dim"))]

    def poll(self, *, live: bool) -> None:
        self.logs.poll(live=live)
        self.logs.go_on()

    def came(self) -> None:
        """Lines of a stream wait."""
        if self.logs.drain():
            self.view.grew()
        self.view.set_empty(self.nothing())

    def title(self, dot: str) -> str:
        """Which log it is, and whether it is followed."""
        logs, view = self.logs, self.view
        parts = ["Logs " + ("all ranks" if logs.rank is None else f"r{logs.rank}")]
        if logs.keep:
            parts.append(f"&{logs.keep}")
        if logs.attempt > 1:
            parts.append(f"attempt {logs.attempt}")
        if not logs.complete:
            parts.append(f"at {self._whereabouts()}, G follows")
        elif view.following:
            parts.append("follow")
        elif not view.waiting:
            parts.append("G follows")
        else:
            waiting = view.waiting
            parts.append(f"{waiting} {'line waits' if waiting == 1 else 'lines wait'}, G follows")
        if view.needle:
            parts.append(f"/{view.needle}")
        if logs.error:
            parts.append(logs.error)
        return f" {dot} ".join(parts)

    def _whereabouts(self) -> str:
        """Which part of the log is shown, when it is not its end."""
        window, whole, here = self.logs.window, self.logs.all_ranks, self.view.here
        if window is not None:
            return f"{100 * window.tail // max(1, window.size)}% of the log"
        if whole is not None and here is not None and whole.first <= here < whole.end:
            return clock(whole.at(here), seconds=True)
        return "an earlier moment"

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None, now: float) -> None:
        """An answer to one of this desk's fetches; `key` without the desk's name."""
        if error is not None:
            self.logs.error = error.message
        elif key in ("log", "earlier"):
            changed = self.logs.arrived(value, now)
            self.view.complete = self.logs.complete
            if changed:
                self._arrived(value.where)
        elif isinstance(value, Merged):
            self._arrived_merged(value)
        elif isinstance(value, Found) and value.rank == self.logs.rank:
            if value.offset is None:
                self._tell(value.what)
            else:
                self._go(value.offset, value.needle)
        self.view.set_empty(self.nothing())

    def _arrived(self, where: str) -> None:
        if where == "tail":
            self.view.show_log(self.logs.lines, self.nothing())
        elif where.startswith("at ") and self.logs.window is not None:
            self.view.following = False
            self.view.grew()
            number = self.logs.window.index_at(int(where[3:]))
            if number is not None:
                self.view.jump(number)
        else:
            self.view.grew()

    def _arrived_merged(self, came: Merged) -> None:
        if came.found is None:
            if came.why:
                self._tell(came.why)
            return
        if came.edge == "last" and came.found.index == len(came.found.lines) - 1:
            self.to_end()  # nothing was written after: go on with what comes
            return
        held, hit = self.logs.all_ranks, self.view.hit
        marked = None if held is None or hit is None else held.spot(hit)
        number = self.logs.take_merged(came)
        if number is None or self.logs.all_ranks is None:
            return
        self.view.show_log(self.logs.lines, self.nothing())
        self.view.complete = self.logs.complete
        if came.edge:
            hit = None if marked is None else self.logs.all_ranks.number_of(marked)
            self.view.put(number, bottom=came.edge == "last", hit=hit)
        else:
            self.view.jump(number, needle=came.needle)

    def _go(self, offset: int, needle: str | None = None) -> None:
        """Show the line of the rank's log that begins at an offset."""
        window = self.logs.window
        if window is None:
            return
        number = window.index_at(offset)
        if number is not None:
            self.view.jump(number, needle=needle)
        else:
            self.logs.to(offset)

    # Finding.

    def find(self, needle: str) -> None:
        """Look backwards from what is in view: in what was read, then in all of the rank's log."""
        if not self.view.find(needle):
            self._find_beyond(needle, backwards=True)

    def find_next(self, *, backwards: bool) -> None:
        needle = self.view.needle
        if not needle:
            self._tell("Nothing to find yet: / asks for a text.")
            return
        before = self.view.here
        # What is kept of a log is a stream of all that matches.
        whole = bool(self.logs.keep) or self._holds_all()
        found = self.view.find_next(backwards=backwards)
        after = self.view.here
        # Round the end of what was read means: go on in what was not.
        wrapped = False
        if found and before is not None and after is not None:
            wrapped = after >= before if backwards else after <= before
        if not found or (wrapped and not whole):
            self._find_beyond(needle, backwards=backwards)

    def _holds_all(self) -> bool:
        window = self.logs.window
        return window is not None and window.start == 0 and window.tail >= window.size

    def _find_beyond(self, needle: str, *, backwards: bool) -> None:
        """Search the whole log, what was not read first and then round."""
        window, rank, attempt = self.logs.window, self.logs.rank, self.logs.attempt
        merged, here = self.logs.all_ranks, self.view.here
        if merged is not None and here is not None:
            # All that is held was searched: on from its beginning, or from its end.
            edge = merged.first if backwards else merged.end - 1
            self.logs.find_merged(needle, merged.spot(edge), backwards=backwards)
            return
        if window is None or rank is None:
            self._tell(f"'{needle}' is not in the lines that are kept.")
            return
        if self._holds_all():
            self._tell(f"'{needle}' is not in this log.")
            return
        source, job = self._source, self._job
        start, tail, size = window.start, window.tail, window.size
        wanted = needle.encode()

        def read(offset: int, limit: int) -> bytes:
            return source.read_log(job, attempt, rank, offset, limit)[0]

        def search() -> Found:
            if backwards:
                parts = [(scan.backwards, 0, start), (scan.backwards, start, size)]
            else:
                parts = [(scan.forwards, tail, size), (scan.forwards, 0, tail)]
            for look, begin, end in parts:
                offset = look(read, wanted, begin, end)
                if offset is not None:
                    return Found(rank, offset, "", needle)
            return Found(rank, None, f"'{needle}' is nowhere in the {size} bytes of this log.")

        self._fetch(f"{self.name} find", search)

    # Moments.

    def minute(self, by: int) -> None:
        """Go a minute on, or back, from the line that is looked at."""
        here = self.view.here
        if here is None:
            return
        merged, window, rank = self.logs.merged, self.logs.window, self.logs.rank
        if merged is not None and merged.first <= here < merged.end:
            self.at(merged.at(here) + 60 * by)
        elif window is not None and rank is not None:
            source, job, attempt = self._source, self._job, self.logs.attempt
            offset = window.offset_of(here)

            def jump() -> Found:
                now = source.find_line(job, attempt, rank, offset=offset)
                at = None if now is None else moment(now["at"])
                if at is None:
                    return Found(rank, None, "The time of this line is not known.")
                return self._line_at(attempt, rank, at + 60 * by)

            self._fetch(f"{self.name} jump", jump)

    def at(self, when: float) -> None:
        """Show the lines of a moment."""
        merged, rank, attempt = self.logs.merged, self.logs.rank, self.logs.attempt
        whole = self.logs.all_ranks
        if whole is not None and not self._reaches(whole, when):
            self.logs.around_moment(when)
        elif merged is not None:
            number = merged.index_when(when)
            if number is not None:
                self.view.jump(number)
        elif rank is not None and attempt:
            self._fetch(f"{self.name} jump", lambda: self._line_at(attempt, rank, when))

    def _reaches(self, merged: MergedLog, when: float) -> bool:
        """Whether a moment lies in the lines of all ranks that are held."""
        if merged.end == merged.first:
            return False
        after = self.logs.complete or when <= merged.at(merged.end - 1)
        return merged.at(merged.first) <= when and after

    def _line_at(self, attempt: int, rank: int, when: float) -> Found:
        found = self._source.find_line(self._job, attempt, rank, since=when)
        if found is None:
            return Found(rank, None, "Nothing was written after that.")
        return Found(rank, found["offset"], "")
