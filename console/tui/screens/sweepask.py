"""A line to type in, with what it would do in words below it, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from console.tui.core.base.commands import Command, Refusal
from console.tui.core.draw.lines import BLANK, Line, line, titled, wrap
from console.tui.screens.modals import Typed
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Entry


class Ask(Typed[Command]):
    """Gives the command that was typed, or None.

    Args:
        title: of the box.
        text: to begin with.
        judge: says of a text what it would do, or why it does nothing.
        hint: what is to be typed, shown while nothing is.
        ends: what enter does.
    """

    def __init__(
        self,
        title: str,
        text: str,
        judge: Callable[[str], Command | Refusal],
        *,
        hint: str = "",
        ends: str = "enter does it",
    ) -> None:
        super().__init__()
        self._title, self._first, self._judge = title, text, judge
        self._hint, self._ends = hint, ends
        self._said = judge(text)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box ask"):
            yield Entry(self._hint, value=self._first, id="entry")
            yield Panel(self._lines, id="said", focusable=False)

    def on_mount(self) -> None:
        self.query_one(".box").border_title = titled(self._title)
        self.query_one(".box").border_subtitle = f"{self._ends}, esc leaves it"
        entry = self.query_one(Entry)
        entry.cursor_position = len(self._first)
        self.begin(entry)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self._said = self._judge(message.value)
        self.query_one(Panel).redraw()

    @on(Input.Submitted)
    def _done(self) -> None:
        if isinstance(self._said, Command):
            self.dismiss(self._said)

    def _lines(self, width: int, height: int) -> list[Line]:
        if isinstance(self._said, Refusal):
            return [BLANK, *(line((text, "warn")) for text in wrap(self._said.why, width))]
        out = [BLANK, *(line((text, "strong")) for text in wrap(self._said.question, width))]
        dot = self.deck.glyphs.dot
        for effect in self._said.effects:
            for index, text in enumerate(wrap(effect, width - 2)):
                out.append(line((f"{dot} " if index == 0 else "  ", "dim"), text))
        return out
