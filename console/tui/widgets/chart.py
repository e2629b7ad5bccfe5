"""A pane of charts: left, right and the mouse move the crosshair, enter shows the logs of its moment."""

from __future__ import annotations

from textual import events
from textual.geometry import Size
from textual.message import Message

from console.tui.widgets.panel import Panel


class ChartPanel(Panel):
    """As `Panel`; what the crosshair does is up to the screen."""

    class Moved(Message):
        """The crosshair is to go `by` steps on."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class Pointed(Message):
        """A cell was clicked, counted from the pane's own corner; `size` is what it drew for."""

        def __init__(self, pane: ChartPanel, x: int, y: int) -> None:
            super().__init__()
            self.pane, self.x, self.y = pane, x, y
            self.size: Size = pane.content_size

        @property
        def control(self) -> ChartPanel:
            return self.pane

    class Opened(Message):
        """What belongs to the crosshair's moment is to be shown."""

    def on_click(self, event: events.Click) -> None:
        spot = event.get_content_offset(self)
        if spot is not None:
            self.post_message(self.Pointed(self, spot.x, spot.y + self.scroll_offset.y))

    def do_move_left(self) -> None:
        self.post_message(self.Moved(-1))

    def do_move_right(self) -> None:
        self.post_message(self.Moved(1))

    def do_row_open(self) -> None:
        self.post_message(self.Opened())
