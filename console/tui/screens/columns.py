"""Which columns a table has: chosen from a list that narrows while one types."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input

from console.tui.core.draw.lines import Line, fit, line
from console.tui.core.jobs import columns
from console.tui.screens.modals import Typed
from console.tui.widgets.prompt import Entry
from console.tui.widgets.rows import Rows

Offer = Callable[[], tuple[list[str], list[str]]]
LOOK = 0.5
"""Seconds between two looks at what can be chosen: values of jobs are still being read."""


class Columns(Typed[None]):
    """Enter puts a column first, or takes it away; the table behind shows it at once.

    Args:
        offer: gives the columns that are shown, in their order, and all that can be.
        choose: is given the columns to show.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,ctrl+n", "move(1)", show=False, priority=True),
        Binding("up,ctrl+p", "move(-1)", show=False, priority=True),
        Binding("enter", "pick", show=False, priority=True),
        Binding("ctrl+r", "usual", show=False, priority=True),
    ]

    def __init__(self, offer: Offer, choose: Callable[[list[str]], None]) -> None:
        super().__init__()
        self._offer = offer
        self._choose = choose
        self._text = ""
        self._places: dict[str, int] = {}  # column -> which number it has

    def compose(self) -> ComposeResult:
        with Vertical(classes="box goto"):
            yield Entry("name of a column", id="entry")
            yield Rows(self._row, id="places")

    def on_mount(self) -> None:
        self.begin(self.query_one(Entry))
        self.query_one("#places").can_focus = False
        box = self.query_one(".box")
        box.border_title = "columns"
        box.border_subtitle = "enter chooses, ^r the usual ones, esc closes"
        self._refill()
        self.set_interval(LOOK, self._refill)

    def _row(self, key: str, width: int) -> Line:
        place = self._places.get(key)
        return line(
            " ",
            (fit("" if place is None else str(place), 3, right=True) + " ", "key"),
            (fit(key, 28), "strong" if place else ""),
            (fit(columns.about(key), max(0, width - 33)), "dim"),
        )

    def _refill(self) -> None:
        chosen, every = self._offer()
        self._places = {name: place for place, name in enumerate(chosen, 1)}
        found = [name for name in every if self._text in name.lower()]
        self.query_one(Rows).set_keys(found, [line((" no column has this name", "dim"))])

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self._text = message.value.strip().lower()
        self._refill()

    def action_move(self, by: int) -> None:
        self.query_one(Rows).step(by)

    def action_pick(self) -> None:
        key = self.query_one(Rows).cursor_key
        if key is None:
            return
        chosen, _ = self._offer()
        if key not in chosen:
            chosen = [key, *chosen]  # where it is seen, however many there are
        elif len(chosen) > 1:
            chosen = [name for name in chosen if name != key]
        self._choose(chosen)
        self._refill()

    def action_usual(self) -> None:
        self._choose([*columns.DEFAULT])
        self._refill()

    @on(Rows.Opened)
    def _opened(self) -> None:
        self.action_pick()
