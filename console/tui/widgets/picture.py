"""A pane with a picture of a sweep: the keys that move go to the screen, for all pictures show one trial."""

from __future__ import annotations

from textual.message import Message

from console.tui.widgets.panel import Panel


class Picture(Panel):
    """As `Panel`; what moving and opening mean is up to the screen."""

    class Stepped(Message):
        """A step was asked for, to the right and down."""

        def __init__(self, picture: Picture, right: int, down: int) -> None:
            super().__init__()
            self.picture = picture
            self.right = right
            self.down = down

    class Opened(Message):
        """What is chosen is to be opened."""

    def do_move_down(self) -> None:
        self.post_message(self.Stepped(self, 0, 1))

    def do_move_up(self) -> None:
        self.post_message(self.Stepped(self, 0, -1))

    def do_move_left(self) -> None:
        self.post_message(self.Stepped(self, -1, 0))

    def do_move_right(self) -> None:
        self.post_message(self.Stepped(self, 1, 0))

    def do_row_open(self) -> None:
        self.post_message(self.Opened())
