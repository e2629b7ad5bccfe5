"""The table of a sweep's trials, and the trial that is chosen in it or on the board."""

from __future__ import annotations

from textual import events, on
from textual.message import Message
from textual.widgets import Input

from console.tui.actions import bindings
from console.tui.core import sweeptrials as table_of
from console.tui.core import sweepwords as words
from console.tui.core import table
from console.tui.core.format import many
from console.tui.core.lines import BLANK, Line, line
from console.tui.core.order import Order
from console.tui.core.table import Column
from console.tui.screens.sweepacts import SweepActions
from console.tui.widgets.marks import Marked
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows
from jobs.sweepviews import TrialView


class Board(Rows):
    PANE = "board"
    BINDINGS = bindings("board")


class Trials(Rows):
    PANE = "trials"
    BINDINGS = bindings("trials")


class TrialHead(Panel):
    """The names of the columns, which sort when they are clicked."""

    class Clicked(Message):
        def __init__(self, x: int) -> None:
            super().__init__()
            self.x = x

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Clicked(event.x))


class TrialActions(SweepActions):
    """What is done in the table: choosing, marking, filtering, sorting."""

    def __init__(self) -> None:
        super().__init__()
        self._columns: tuple[Column[TrialView], ...] = ()
        self._filter = table_of.trial_filter("", (), ())
        self._order = Order()
        self._full = False  # one pane has the whole screen

    def _show_table(self) -> None:
        scene = self.scene
        assert scene is not None and self.sweep is not None
        passing = scene.brushed

        def wanted(trial: TrialView) -> bool:
            inside = passing is None or trial["number"] in passing
            return inside and self._filter.matches(trial)

        key = (self._key, self._filter.text, self._order)
        if key != self._row_key:
            self._row_key = key
            self._keys = table_of.rows(
                scene.trials, wanted, scene.objectives, self._columns, self._order
            )
        self.query_one(Trials).set_keys(self._keys, self._no_trial())
        self.query_one("#trialhead", Panel).redraw()
        dot = f" {self.deck.glyphs.dot} "
        parts = ["Trials", words.counted(len(self._keys), len(scene.trials), "trial")]
        parts += [f"/{self._filter.text}"] if self._filter.text else []
        parts += [self._filter.problem] if self._filter.problem else []
        if self.brush:
            axes = {axis.name: axis for axis in self.axes}
            parts.append(f"brush {self.brush.words(axes, scene.objectives[0]['metric'])}")
        if hidden := len(self._columns) - len(self._layout()):
            parts.append(f"{many(hidden, 'column')} more" + ("" if self._full else " with z"))
        if marked := len(self.query_one(Trials).marked):
            parts.append(f"{marked} marked")
        self.set_title("trials", dot.join(parts))
        self._choose()

    def _no_trial(self) -> list[Line]:
        if self.scene is not None and self.scene.trials:
            told = " No trial matches. "
            return [line((told, "dim"), ("esc", "key"), (" shows all.", "dim"))]
        return [line((" The first trials are being asked for.", "dim"))]

    def _layout(self) -> list[tuple[Column[TrialView], int]]:
        return table.arrange(self._columns, self.query_one("#trials").size.width - 2)

    def _head(self, width: int, height: int) -> list[Line]:
        return [table.head(self._layout(), self.deck.glyphs, self._order)] if self._columns else []

    def _row(self, key: str, width: int) -> Line:
        trial = self._by_number.get(key)
        if trial is None:
            return BLANK
        now = self.deck.clock.wall() if self.at is None else self.at
        return table.row_line(trial, self._layout(), now, self.deck.glyphs)

    # The chosen trial.

    def _chosen_number(self) -> int | None:
        key = self.query_one(Trials).cursor_key
        return int(key) if key is not None else None

    def _choose(self) -> None:
        chosen = self._chosen_number()
        if self.chosen != chosen:
            self.chosen = chosen
            self.query_one(Board).update_lines()
            self.redraw_soon()

    def picked(self) -> list[TrialView]:
        keys = self.query_one(Trials).chosen
        return [self._by_number[key] for key in keys if key in self._by_number]

    def step_trial(self, by: int) -> None:
        rows = self.query_one(Trials)
        if by > 0:
            rows.do_move_down()
        else:
            rows.do_move_up()

    def step_number(self, by: int) -> None:
        numbers = sorted(int(key) for key in self.query_one(Trials).keys)
        chosen = self._chosen_number()
        if numbers:
            at = numbers.index(chosen) + by if chosen in numbers else 0
            self.query_one(Trials).select(str(numbers[max(0, min(len(numbers) - 1, at))]))

    @on(Rows.Moved, "#table")
    def _trial_chosen(self) -> None:
        self._choose()

    @on(Rows.Moved, "#board")
    def _lane_chosen(self, message: Rows.Moved) -> None:
        lane = self.lanes.get(message.key)
        if lane is not None and lane.stays:
            self.query_one(Trials).select(str(lane.stays[-1].number))

    @on(Marked.Marks)
    def _marks_changed(self) -> None:
        if self.scene is not None:
            self._show_table()

    @on(Rows.Opened)
    def _row_opened(self, message: Rows.Opened) -> None:
        lane = self.lanes.get(message.key) if message.control.id == "board" else None
        if lane is not None and lane.stays:
            self.query_one(Trials).select(str(lane.stays[-1].number))
            self._choose()  # its message has not come yet
        self.open_trial()

    # Filter and order.

    def do_trials_filter(self) -> None:
        self.query_one(Prompt).open(self._filter.text)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self._set_filter(message.value)

    @on(Prompt.Closed)
    def _filter_closed(self, message: Prompt.Closed) -> None:
        if not message.kept:
            self._set_filter("")
        self.focus_pane("trials")

    def _set_filter(self, text: str) -> None:
        names = [axis.name for axis in self.axes if axis.name]
        objectives = self.sweep["objectives"] if self.sweep else ()
        self._filter = table_of.trial_filter(text, names, objectives)
        self.look_again()

    def do_table_sort(self) -> None:
        self._set_order(self._order.next(table_of.sortable(self._columns)))

    def do_table_turn(self) -> None:
        self._set_order(self._order.turned())

    @on(TrialHead.Clicked)
    def _column_clicked(self, message: TrialHead.Clicked) -> None:
        column = table.column_at(self._layout(), message.x)
        if column is not None and column.order is not None:
            self._set_order(self._order.picked(column.title))

    def _set_order(self, order: Order) -> None:
        self._order = order
        self.look_again()
