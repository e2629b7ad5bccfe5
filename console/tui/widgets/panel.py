"""A pane of lines that are made for its size: details, charts, bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events

from console.tui.core.draw.lines import Line
from console.tui.core.draw.lines import width as cells
from console.tui.widgets.lines import LineView

Builder = Callable[[int, int], Sequence[Line]]


class Panel(LineView):
    """Draws what `build(width, height)` gives. The builder is called again at `redraw` and after a
    change of size; it gets the size of the pane and may give more lines, which scroll."""

    def __init__(
        self,
        build: Builder,
        *,
        id: str | None = None,
        focusable: bool = True,
    ) -> None:
        super().__init__(id=id)
        self._build = build
        self._lines: Sequence[Line] = ()
        self.can_focus = focusable

    @property
    def drawn_width(self) -> int:
        """The cells that the lines were made for: less than the pane has, where they scroll."""
        width, height = self.content_size
        return width - 1 if len(self._lines) > height else width

    def count(self) -> int:
        return len(self._lines)

    def line_at(self, index: int) -> Line:
        return self._lines[index]

    def wide(self) -> int:
        return max(map(cells, self._lines), default=0)

    def redraw(self) -> None:
        """Build again, and repaint what differs. Costs nothing while the pane is not shown."""
        if self.is_mounted and self.display and self.size.width:
            width, height = self.content_size
            self._lines = self._build(width, height)
            if len(self._lines) > height:
                self._lines = self._build(width - 1, height)  # beside the scroll bar
            self.update_lines()

    def on_resize(self, event: events.Resize) -> None:
        self.redraw()

    def on_show(self, event: events.Show) -> None:
        self.redraw()
