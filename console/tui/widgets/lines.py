"""The base of every pane: lines drawn one by one, only where something changed.

A subclass says how many lines there are and what each one is. Ten thousand rows cost nothing until
they are looked at, and an update repaints only the visible lines that differ.
"""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.text import neutralise
from console.tui.actions import bindings
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import BLANK, Line, window
from console.tui.dispatch import Acts


class LineView(Acts, ScrollView, can_focus=True):
    """Scrollable lines. `PANE` is the scope of its own actions in the registry, if it has any."""

    BINDINGS = bindings("lines")
    PANE: ClassVar[str] = ""
    DEFAULT_CSS = """
    LineView { scrollbar-size: 1 1; overflow-x: hidden; overflow-y: auto; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._painted: dict[int, tuple[Line, bool]] = {}  # screen row -> what stands there
        self._base: Style | None = None  # the pane's own style, which takes long to work out

    # What subclasses say.

    def count(self) -> int:
        """How many lines there are."""
        raise NotImplementedError

    def line_at(self, index: int) -> Line:
        """Line number `index`, 0 being the first."""
        raise NotImplementedError

    def highlighted(self, index: int) -> bool:
        """Whether the line has the cursor's background."""
        return False

    def wide(self) -> int:
        """Cells of the widest line; more than the pane's own width lets it scroll sideways."""
        return 0

    # What they may use.

    @property
    def glyphs(self) -> Glyphs:
        return self.deck.glyphs

    @property
    def room(self) -> Size:
        """The cells there are to draw in, without the scroll bar when there has to be one. (Textual
        tells the bar of the last layout, which may be of another size or of other lines.)"""
        size = self.content_size
        return Size(max(0, size.width - 1), size.height) if self.overflows(size) else size

    def overflows(self, size: Size) -> bool:
        """Whether there are more lines than `size` has room for."""
        return self.count() > size.height

    def extent(self) -> Size:
        """What there is to scroll through. As long as everything has room it is always the same, because
        each other size has Textual lay out the whole screen again."""
        size, wide, count = self.content_size, self.wide(), self.count()
        return Size(wide if wide > size.width else 1, count if count > size.height else 1)

    def update_lines(self) -> None:
        """Something changed: repaint the visible lines that are different now."""
        if not self.is_mounted:
            return
        self.virtual_size = self.extent()
        for y in range(self.size.height):
            index = y + self.scroll_offset.y
            if self._painted.get(y) != self._content(index):
                self.refresh_line(index)

    def _content(self, index: int) -> tuple[Line, bool]:
        if 0 <= index < self.count():
            return self.line_at(index), self.highlighted(index)
        return BLANK, False

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        content = self._content(index)
        self._painted[y] = content
        parts, highlighted = content
        width = self.size.width
        start = self.scroll_offset.x
        if self._base is None:
            self._base = self.rich_style
        base = self._base
        if highlighted:
            base += self.deck.tones["cursor"]
        return self.paint(window(parts, start, self.room.width, self.glyphs), width, base)

    def notify_style_update(self) -> None:
        self._base = None
        super().notify_style_update()

    def paint(self, parts: Line, width: int, base: Style) -> Strip:
        """A line as Textual wants it. All text passes here, and here it is made safe: nothing that
        came from a job or a person can act on the terminal."""
        tones = self.deck.tones
        segments = [
            Segment(neutralise(text), base + tones[tone] if tone else base) for text, tone in parts
        ]
        return Strip(segments).adjust_cell_length(width, base).simplify()

    def scroll_row(self, y: int) -> None:
        """Put line `y` at the top, as far as there are lines below it."""
        # Forced, because before the next layout Textual still believes that nothing scrolls here.
        self.scroll_to(y=y, animate=False, force=True)

    def scroll_lines(self, by: int) -> None:
        self.scroll_row(self.scroll_offset.y + by)

    # Moving without a cursor scrolls; lists and grids move their cursor instead.

    def do_move_down(self) -> None:
        self.scroll_lines(1)

    def do_move_up(self) -> None:
        self.scroll_lines(-1)

    def do_move_left(self) -> None:
        self.scroll_to(x=self.scroll_offset.x - 8, animate=False, force=True)

    def do_move_right(self) -> None:
        self.scroll_to(x=self.scroll_offset.x + 8, animate=False, force=True)

    def do_move_top(self) -> None:
        self.scroll_row(0)

    def do_move_bottom(self) -> None:
        self.scroll_row(self.max_scroll_y)

    def do_move_half_down(self) -> None:
        self._jump(max(1, self.size.height // 2))

    def do_move_half_up(self) -> None:
        self._jump(-max(1, self.size.height // 2))

    def do_move_page_down(self) -> None:
        self._jump(max(1, self.size.height - 1))

    def do_move_page_up(self) -> None:
        self._jump(-max(1, self.size.height - 1))

    def _jump(self, by: int) -> None:
        self.scroll_lines(by)

    def do_row_open(self) -> None:
        """Nothing to open in a pane without a cursor."""
