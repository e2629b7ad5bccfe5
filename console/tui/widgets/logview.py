"""The log viewer: follows the end until you scroll, then says how many lines wait."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.message import Message

from console.tui.core.draw.lines import Line, Span, fit
from console.tui.core.jobs.logs import Lines, search
from console.tui.widgets.lines import LineView

PREFIX = 6
"""Cells of `r1024 ` in front of merged lines."""


class Told(Message):
    """Something that a log viewer says; `control` is the viewer."""

    def __init__(self, view: LogView) -> None:
        super().__init__()
        self.view = view

    @property
    def control(self) -> LogView:
        return self.view


class LogView(LineView):
    """Shows `Lines`, which may grow at the end, lose their beginning, or gain one.

    Positions are line numbers, which stay true while lines come and go; rows on screen are counted
    from `Lines.first`.
    """

    class NeedsEarlier(Told):
        """The top is in view: earlier lines may be read in."""

    class NeedsEnd(Told):
        """The end of the log is wanted, and it is not here."""

    class NeedsLater(Told):
        """The bottom is in view: later lines may be read in."""

    class Followed(Told):
        """Following began or ended, or lines came while it is off: titles change."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._log: Lines | None = None
        self._first = 0  # Lines.first at the last update, to keep what is read in place
        self._widest = 0
        self._empty: Sequence[Line] = ()
        self._needle = ""
        self._hit: int | None = None
        self._seen_end = 0
        self.following = True
        self.complete = (
            True  # whether the log's newest lines are here, so that they can be followed
        )
        self.outlier: int | None = None  # the rank that the diagnosis names: its lines are marked

    @property
    def waiting(self) -> int:
        """Lines that came since following ended."""
        if self.following or self._log is None:
            return 0
        return max(0, self._log.end - self._seen_end)

    def show_log(self, log: Lines | None, empty: Sequence[Line] = ()) -> None:
        """Show another log, from its end."""
        self._log = log
        self._empty = empty
        self._first = log.first if log else 0
        self._widest = 0
        self._hit = None
        self.following = True
        self.grew()

    def set_empty(self, empty: Sequence[Line]) -> None:
        """What stands there while there is no line."""
        self._empty = empty
        if self._log is None or self._log.end == self._log.first:
            self.update_lines()

    def grew(self) -> None:
        """The log changed: keep the end in view, or keep what is being read where it is."""
        if self._log is None or not self.is_mounted:
            return
        shift = self._first - self._log.first
        self._first = self._log.first
        if self.following:
            self._seen_end = self._log.end
            self.update_lines()
            self.scroll_row(self.max_scroll_y)
        else:
            self.virtual_size = self.extent()
            if shift:
                self.scroll_lines(shift)
            self.update_lines()
        self.post_message(self.Followed(self))

    def count(self) -> int:
        if self._log is None or self._log.end == self._log.first:
            return len(self._empty)
        return self._log.end - self._log.first

    def wide(self) -> int:
        return self._widest

    def line_at(self, index: int) -> Line:
        log = self._log
        if log is None or log.end == log.first:
            return self._empty[index]
        number = log.first + index
        text = log.text(number)
        rank = log.rank(number)
        prefix: Line = ()
        if rank is not None and rank == self.outlier:
            prefix = (Span(fit(f"r{rank}{self.glyphs.warn}", PREFIX), "warn"),)
        elif rank is not None:
            prefix = (Span(fit(f"r{rank}", PREFIX), f"load{rank % 5}"),)
        self._widest = max(self._widest, len(text) + PREFIX)
        return (*prefix, *self._marked(text))

    def _marked(self, text: str) -> Line:
        """The text with what is being looked for marked."""
        if not self._needle:
            return (Span(text),)
        lowered, wanted = text.lower(), self._needle.lower()
        if len(lowered) != len(text):  # a letter whose lower case is longer: positions would lie
            return (Span(text),)
        out: list[Span] = []
        at = 0
        while (hit := lowered.find(wanted, at)) >= 0:
            out += [Span(text[at:hit]), Span(text[hit : hit + len(wanted)], "found")]
            at = hit + len(wanted)
        return (*out, Span(text[at:]))

    def highlighted(self, index: int) -> bool:
        return (
            self._hit is not None and self._log is not None and index + self._log.first == self._hit
        )

    def find(self, needle: str) -> bool:
        """Look backwards from the end of what is in view; True when it is there."""
        self._needle = needle
        self._hit = None
        self.update_lines()
        return self.find_next(backwards=True) if needle else True

    def find_next(self, *, backwards: bool = False) -> bool:
        """Go to the next match; True when there is one."""
        if self._log is None or not self._needle:
            return False
        bottom = self._log.first + self.scroll_offset.y + self.size.height
        start = self._hit if self._hit is not None else min(self._log.end, bottom)
        hit = search(self._log, self._needle, start, backwards=backwards)
        self._hit = hit
        if hit is not None:
            self._stay()
            row = hit - self._log.first
            if not self.scroll_offset.y <= row < self.scroll_offset.y + self.size.height:
                self.scroll_row(max(0, row - self.size.height // 2))
        self.update_lines()
        return hit is not None

    def jump(self, number: int, *, needle: str | None = None) -> None:
        """Put a line into the middle of the view and mark it; following ends."""
        if self._log is None:
            return
        if needle is not None:
            self._needle = needle
        self._stay()
        self._hit = number
        self.scroll_row(max(0, number - self._log.first - self.size.height // 2))
        self.update_lines()

    @property
    def hit(self) -> int | None:
        """Number of the line that was found or jumped to, while it is held."""
        log = self._log
        held = self._hit is not None and log is not None and log.first <= self._hit < log.end
        return self._hit if held else None

    def put(self, number: int, *, bottom: bool, hit: int | None) -> None:
        """Put a line at the top of the view, or at its bottom, with `hit` marked; following ends."""
        if self._log is not None:
            self._stay()
            self._hit = hit
            self.scroll_row(number - self._log.first - (self.size.height - 1 if bottom else 0))
            self.update_lines()

    @property
    def here(self) -> int | None:
        """Number of the line that is looked at: the marked one, else the first in view."""
        if self._log is None or self._log.end == self._log.first:
            return None
        if self._hit is not None and self._log.first <= self._hit < self._log.end:
            return self._hit
        if self.following:
            return self._log.end - 1
        return min(self._log.end - 1, self._log.first + self.scroll_offset.y)

    def in_view(self) -> str:
        """The text of the lines that are on screen."""
        log = self._log
        if log is None:
            return ""
        top = log.first + self.scroll_offset.y
        return "\n".join(log.text(n) for n in range(top, min(log.end, top + self.size.height)))

    @property
    def needle(self) -> str:
        return self._needle

    def _stay(self) -> None:
        if self.following:
            self.following = False
            self._seen_end = self._log.end if self._log else 0
            self.post_message(self.Followed(self))

    def follow(self) -> None:
        """Follow the end again."""
        self.following = True
        self._hit = None
        self.grew()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and new_value < self.max_scroll_y:
            self._stay()
        elif new_value >= self.max_scroll_y and not self.following:
            if not self.complete:
                self.post_message(self.NeedsLater(self))
            elif self._hit is None:
                self.follow()
        if new_value < 1 and old_value != new_value and not self.following:
            self.post_message(self.NeedsEarlier(self))

    def on_resize(self, event: events.Resize) -> None:
        self.update_lines()
        if self.following:
            self.scroll_row(self.max_scroll_y)

    def do_move_top(self) -> None:
        super().do_move_top()
        self._stay()
        self.post_message(self.NeedsEarlier(self))

    def do_move_bottom(self) -> None:
        if self.complete:
            self.follow()
        else:
            self.post_message(self.NeedsEnd(self))
