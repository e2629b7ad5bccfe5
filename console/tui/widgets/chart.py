"""A pane of charts: left and right move the crosshair, enter shows the logs of its moment."""

from __future__ import annotations

from textual.message import Message

from console.tui.widgets.panel import Panel


class ChartPanel(Panel):
    """As `Panel`; what the crosshair does is up to the screen."""

    class Moved(Message):
        """The crosshair is to go `by` steps on."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class Opened(Message):
        """What belongs to the crosshair's moment is to be shown."""

    def do_move_left(self) -> None:
        self.post_message(self.Moved(-1))

    def do_move_right(self) -> None:
        self.post_message(self.Moved(1))

    def do_row_open(self) -> None:
        self.post_message(self.Opened())
