"""Sweeps: every sweep there is, with how far it is, its best, and how long it will take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from textual import events, on
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from console.tui.actions import bindings
from console.tui.core import sweepcommands as commands
from console.tui.core import sweeps, table
from console.tui.core.lines import BLANK, Line, line
from console.tui.core.order import Order
from console.tui.core.sweepwords import counted
from console.tui.core.world import World
from console.tui.screens.base import Frame
from console.tui.widgets.marks import Marked
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows
from jobs.sweepviews import SweepView


class SweepTable(Rows):
    PANE = "sweeps"
    BINDINGS = bindings("sweeps")


class SweepHead(Panel):
    """The line of counts, and the names of the columns, which sort when they are clicked."""

    class Picked(Message):
        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def on_click(self, event: events.Click) -> None:
        column = table.column_at(table.arrange(sweeps.COLUMNS, self.size.width - 2), event.x)
        if event.y == 1 and column is not None and column.order is not None:
            self.post_message(self.Picked(column.title))


class SweepsScreen(Frame):
    NAME = "Sweeps"
    SCOPE = "sweeps"
    TOPICS = ("sweeps",)
    PANES = ("table",)
    BINDINGS = bindings("sweeps")
    AUTO_FOCUS = "#table"

    def __init__(self) -> None:
        super().__init__()
        self._filter = sweeps.sweep_filter("")
        self._order = Order()
        self._known: Mapping[str, SweepView] = {}

    def body(self) -> Iterable[Widget]:
        yield SweepHead(self._head, id="head", focusable=False)
        yield SweepTable(self._row, id="table")
        yield Prompt("/", "user:mira state:running best>0.9 !old text", id="filter")

    @property
    def table(self) -> SweepTable:
        return self.query_one(SweepTable)

    def show(self, world: World) -> None:
        self._known = world.sweeps
        keys = sweeps.rows(self._known, self._filter, self._order)
        self.table.set_keys(keys, self._nothing(world))
        self.query_one("#head", Panel).redraw()

    def _nothing(self, world: World) -> list[Line]:
        if "sweeps" not in world.ready:
            link = world.link
            if not link.tries:
                return [line((" connecting", "dim"))]
            return [line((f" {link.error}", "error")), line((f" {link.hint}", "dim"))]
        if self._known:
            return [
                line(
                    (" No sweep matches the filter. ", "dim"),
                    ("esc", "key"),
                    (" clears it.", "dim"),
                )
            ]
        return [
            line(
                (" A sweep runs one job many times with other parameters, and looks for the", "dim")
            ),
            line((" best. The search is Optuna's; trials are jobs like any other.", "dim")),
            BLANK,
            line("   ", ("qd sweep sweep.yaml", "key"), ("             starts one", "dim")),
            line(
                "   ", ("qd sweep sweep.yaml --dry-run", "key"), ("   only checks the file", "dim")
            ),
        ]

    def _head(self, width: int, height: int) -> list[Line]:
        glyphs = self.deck.glyphs
        known, shown = len(self._known), self.table.count() if self._known else 0
        shown = min(shown, known)
        what = f" {counted(shown, known, 'sweep')}"
        facts = [(what, "strong"), (f" {glyphs.dot} ", "dim"), *sweeps.totals(self._known)]
        if self._filter.text:
            facts.append((f" {glyphs.dot} filter {self._filter.text}", "key"))
        if self._filter.problem:
            facts.append((f" {glyphs.dot} {self._filter.problem}", "warn"))
        if marked := len(self.table.marked):
            facts.append((f" {glyphs.dot} {marked} marked", "found"))
        layout = table.arrange(sweeps.COLUMNS, width - 2)
        return [line(*facts), table.head(layout, glyphs, self._order)]

    def _row(self, key: str, width: int) -> Line:
        sweep = self._known.get(key)
        if sweep is None:
            return BLANK
        layout = table.arrange(sweeps.COLUMNS, self.size.width - 2)
        return table.row_line(sweep, layout, self.deck.clock.wall(), self.deck.glyphs)

    # Filter and order.

    def do_table_filter(self) -> None:
        self.query_one(Prompt).open(self._filter.text)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self._set_filter(message.value)

    @on(Prompt.Closed)
    def _filter_closed(self, message: Prompt.Closed) -> None:
        if not message.kept:
            self._set_filter("")
        self.table.focus()

    def _set_filter(self, text: str) -> None:
        self._filter = sweeps.sweep_filter(text)
        self.show(self.deck.world)

    def do_table_sort(self) -> None:
        self._set_order(self._order.next(sweeps.SORTABLE))

    def do_table_turn(self) -> None:
        self._set_order(self._order.turned())

    @on(SweepHead.Picked)
    def _column_picked(self, message: SweepHead.Picked) -> None:
        self._set_order(self._order.picked(message.column))

    def _set_order(self, order: Order) -> None:
        self._order = order
        self.show(self.deck.world)

    def do_app_back(self) -> None:
        if self.table.marked:
            self.table.clear_marks()
            self.query_one("#head", Panel).redraw()
        elif self._filter.text:
            self._set_filter("")
        else:
            self.deck.do_app_back()

    # What a person does.

    def _picked(self) -> list[SweepView]:
        """What is marked, else what the cursor is on."""
        return [self._known[key] for key in self.table.chosen if key in self._known]

    @on(Marked.Marks)
    def _marks_changed(self) -> None:
        self.query_one("#head", Panel).redraw()

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        self.deck.open_sweep(message.key)

    def do_sweep_pause(self) -> None:
        self.propose(commands.pause(self._picked()))

    def do_sweep_stop(self) -> None:
        self.propose(commands.stop(self._picked()))

    def do_id_copy(self) -> None:
        if picked := self._picked():
            self.deck.copy(" ".join(sweep["id"] for sweep in picked))
