"""The log viewer: follows the end until you scroll, then says how many lines wait."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.geometry import Size
from textual.message import Message

from console.tui.actions import bindings
from console.tui.core.draw.format import coarse
from console.tui.core.draw.lines import BLANK, Line, Span, crop, fit, width
from console.tui.core.jobs.dressed import GAP, Blocks, dressed, folded_words, unpacked
from console.tui.core.jobs.logs import Lines, search
from console.tui.widgets.lines import LineView

PREFIX = 6
"""Cells of `r1024 ` in front of merged lines."""

WRAP_INDENT = 2
"""Cells before what a wrapped line goes on with."""

Row = tuple[int, Line]
"""A row of the screen: the number of its line, and what of it."""


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

    Positions are line numbers, which stay true while lines come and go; rows are counted from
    `Lines.first`. What is on screen begins at the row that is scrolled to: lines that are wrapped take
    several of its rows, and lines that are folded none. The last row to scroll to is the one from which all
    that follows has room.
    """

    PANE = "loglines"
    BINDINGS = bindings("loglines")

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
        self.wrapped = self.unfolded = False
        self._blocks: Blocks | None = None  # tracebacks in the log, as it is now
        self._bottom: tuple[Size, int] | None = None  # the last row to scroll to, at a size
        self._laid: tuple[tuple[int, Size], list[Row]] | None = None  # what is on screen
        self._anchor: int | None = None  # where the range of lines begins that is being marked

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
        self._hit = self._anchor = None
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
        self._changed()
        shift = self._first - self._log.first
        self._first = self._log.first
        if self.following:
            self._seen_end = self._log.end
            self.update_lines()
            self.scroll_row(self.max_scroll_y)
        else:
            self._bottom = self._laid = None
            self.virtual_size = self.extent()
            if shift:
                self.scroll_lines(shift)
            self.update_lines()
        self.post_message(self.Followed(self))

    def count(self) -> int:
        """Rows to scroll through: down to the last one from which all that follows has room."""
        log = self._log
        if log is None or log.end == log.first:
            return len(self._empty)
        size = self.content_size
        if self._bottom is None or self._bottom[0] != size:
            self._bottom = (size, self._top_for(log.end, size.height))
        top = self._bottom[1] - log.first
        if top == 0:
            return sum(self._height(number) for number in range(log.first, log.end))
        return top + size.height

    def wide(self) -> int:
        return 0 if self.wrapped else self._widest

    # What is on screen.

    def update_lines(self) -> None:
        self._bottom = self._laid = None
        super().update_lines()

    def _changed(self) -> None:
        """Lines came, or are drawn in another way."""
        self._blocks = None

    def _hidden(self, number: int) -> bool:
        """Whether folding hides a line. What was found or jumped to is shown."""
        if self.unfolded or self._log is None:
            return False
        if self._blocks is None:
            self._blocks = Blocks(self._log)
        hidden = self._blocks.hidden_of(number)
        return number in hidden and self._hit not in hidden

    def _height(self, number: int) -> int:
        """Rows that a line takes."""
        if self._hidden(number):
            return 0
        return len(self._wrapped(number)) if self.wrapped else 1

    def _top_for(self, end: int, rows: int) -> int:
        """The earliest line from which all before `end` have room in so many rows."""
        log = self._log
        assert log is not None
        number = end
        while number > log.first:
            rows -= self._height(number - 1)
            if rows < 0:
                break
            number -= 1
        return min(number, log.end - 1)

    def _rows(self) -> list[Row]:
        """What is on screen: each row with the line that it is of, in as many rows as there are."""
        log, size, top = self._log, self.content_size, self.scroll_offset.y
        if log is None or log.end == log.first:
            return []
        if self._laid is None or self._laid[0] != (top, size):
            rows: list[Row] = []
            number = log.first + top
            while len(rows) < size.height and number < log.end:
                if not self._hidden(number):
                    parts = self._wrapped(number) if self.wrapped else [self._line(number)]
                    rows += [(number, part) for part in parts]
                number += 1
            self._laid = ((top, size), rows[: size.height])
        return self._laid[1]

    def _wrapped(self, number: int) -> list[Line]:
        """A line in pieces as wide as there is room, but never more than fit on the screen."""
        line = self._line(number)
        cells = max(PREFIX * 2, self.content_size.width - 1)  # a bar may be there
        most = max(1, self.content_size.height - 1)
        whole = width(line)
        if whole <= cells:
            return [line]
        inner = cells - WRAP_INDENT
        out = [crop(line, 0, cells)]
        at = cells
        while at < whole and len(out) < most:
            out.append((Span(" " * WRAP_INDENT), *crop(line, at, inner)))
            at += inner
        if at < whole:
            out[-1] = (*crop(out[-1], 0, cells - 1), Span(self.glyphs.more, "key"))
        return out

    def _number_at(self, index: int) -> int | None:
        """The line that a row shows."""
        rows, y = self._rows(), index - self.scroll_offset.y
        return rows[y][0] if 0 <= y < len(rows) else None

    def _in_view(self, number: int) -> bool:
        return any(shown == number for shown, _ in self._rows())

    def line_at(self, index: int) -> Line:
        log = self._log
        if log is None or log.end == log.first:
            return self._empty[index]
        rows, y = self._rows(), index - self.scroll_offset.y
        if 0 <= y < self.content_size.height:
            return rows[y][1] if y < len(rows) else BLANK
        return self._line(log.first + index) if index < log.end - log.first else BLANK

    def _line(self, number: int) -> Line:
        log = self._log
        assert log is not None
        text = log.text(number)
        rank = log.rank(number)
        prefix: Line = ()
        if rank is not None and rank == self.outlier:
            prefix = (Span(fit(f"r{rank}{self.glyphs.warn}", PREFIX), "warn"),)
        elif rank is not None:
            prefix = (Span(fit(f"r{rank}", PREFIX), f"load{rank % 5}"),)
        if (gap := log.gap(number)) >= GAP:
            prefix = (*prefix, Span(f"+{coarse(gap)} ", "key"))
        self._widest = max(self._widest, len(text) + PREFIX)
        if self._needle and self._needle.lower() in text.lower():
            return (*prefix, *self._marked(text))
        body = None if self.unfolded or number == self._hit else unpacked(text)
        line = (*prefix, *(dressed(text) if body is None else body))
        if not self.unfolded and self._blocks is not None:
            hidden = self._blocks.hidden_of(number)
            if hidden and number == hidden.start - 1 and self._hidden(hidden.start):
                return (*line, Span(folded_words(hidden), "key"))
        return line

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
        if self._hit is None or self._log is None:
            return False
        number = self._number_at(index)
        return number is not None and number in self._range()

    def _range(self) -> range:
        """Lines that are marked: the one that was found or jumped to, or from the anchor to it."""
        if self._hit is None:
            return range(0)
        ends = sorted((self._hit, self._hit if self._anchor is None else self._anchor))
        return range(ends[0], ends[1] + 1)

    # Wrapping, folding, copying.

    def on_mount(self) -> None:
        told = self.deck.memory.session.logs.split()
        self.wrapped, self.unfolded = "wrapped" in told, "unfolded" in told

    def do_line_wrap(self) -> None:
        self._redraw_all(wrapped=not self.wrapped, unfolded=self.unfolded)

    def do_line_fold(self) -> None:
        self._redraw_all(wrapped=self.wrapped, unfolded=not self.unfolded)

    def _redraw_all(self, *, wrapped: bool, unfolded: bool) -> None:
        """Draw all logs of the screen so, and those that are opened later."""
        told = [name for name, on in (("wrapped", wrapped), ("unfolded", unfolded)) if on]
        self.deck.memory.note(logs=" ".join(told))
        for view in self.screen.query(LogView):
            view.set_drawing(wrapped=wrapped, unfolded=unfolded)

    def set_drawing(self, *, wrapped: bool, unfolded: bool) -> None:
        """Whether long lines are wrapped, and whether tracebacks and JSON are shown as they are."""
        here = self.here
        self.wrapped, self.unfolded = wrapped, unfolded
        self._changed()
        self.scroll_to(x=0, animate=False, force=True)
        self.update_lines()
        if self.following:
            self.scroll_row(self.max_scroll_y)
        elif here is not None and self._log is not None:
            self.scroll_row(here - self._log.first)
        self.update_lines()

    def do_line_range(self) -> None:
        """Begin a range at the line that is looked at; the second time, end it."""
        here = self.here
        if self._anchor is not None or here is None:
            self.leave_range()
            return
        self._stay()
        self._anchor = self._hit = here
        self.update_lines()

    def leave_range(self) -> bool:
        """Forget the range; False when there is none."""
        if self._anchor is None:
            return False
        self._anchor = None
        self.update_lines()
        return True

    def do_line_copy(self) -> None:
        """Copy the lines of the range, or the line that is looked at, as they were written."""
        log, here = self._log, self.here
        if log is None or here is None:
            return
        chosen = self._range() or range(here, here + 1)
        held = range(max(log.first, chosen.start), min(log.end, chosen.stop))
        self.deck.copy("\n".join(log.text(number) for number in held))
        self.leave_range()

    def on_click(self, event: events.Click) -> None:
        """A click marks a line."""
        spot = event.get_content_offset(self)
        number = None if spot is None else self._number_at(spot.y + self.scroll_offset.y)
        if number is not None:
            self._stay()
            self._hit = number
            self.update_lines()

    def do_move_down(self) -> None:
        self._step(1)

    def do_move_up(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        """A line down or up: of the range's end while one is being marked, else of what is on screen. Lines
        that are folded are one step."""
        log = self._log
        if log is None or log.end == log.first:
            return
        at = self._hit if self._anchor is not None and self._hit is not None else None
        number = (log.first + self.scroll_offset.y if at is None else at) + by
        while log.first < number < log.end - 1 and self._hidden(number):
            number += by
        if at is None:
            self.scroll_row(number - log.first)
            return
        self._hit = max(log.first, min(number, log.end - 1))
        self.update_lines()
        if not self._in_view(self._hit):
            down = self._top_for(self._hit + 1, self.size.height)
            self.scroll_row((down if by > 0 else self._hit) - log.first)
        self.update_lines()

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
            self.update_lines()
            if not self._in_view(hit):
                self._centre(hit)
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
        self._anchor = None
        self.update_lines()
        self._centre(number)
        self.update_lines()

    def _centre(self, number: int) -> None:
        """Put a line into the middle of the view."""
        assert self._log is not None
        self.scroll_row(self._top_for(number, self.size.height // 2) - self._log.first)

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
            self.update_lines()
            top = self._top_for(number + 1, self.size.height) if bottom else number
            self.scroll_row(top - self._log.first)
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
        return "\n".join(log.text(number) for number in dict.fromkeys(n for n, _ in self._rows()))

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
        self._hit = self._anchor = None
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
