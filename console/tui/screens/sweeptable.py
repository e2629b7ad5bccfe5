"""The table of a sweep's trials, and the trial that is chosen in it or on the board."""

from __future__ import annotations

from textual import on

from console.tui.actions import bindings
from console.tui.core.base import table
from console.tui.core.base.filter import Filter
from console.tui.core.base.table import Column
from console.tui.core.draw.format import counted, many
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.sweeps import trials as table_of
from console.tui.screens.lists import Sifted
from console.tui.screens.sweepacts import SweepActions
from console.tui.widgets.marks import Marked
from console.tui.widgets.panel import Panel
from console.tui.widgets.rows import Rows
from jobs.wire.sweepviews import TrialView


class Board(Rows):
    PANE = "board"
    BINDINGS = bindings("board")


class Trials(Rows):
    PANE = "trials"
    BINDINGS = bindings("trials")


class TrialActions(Sifted, SweepActions):
    """What is done in the table: choosing, marking, filtering, sorting."""

    ORDER = "trials"

    def __init__(self) -> None:
        super().__init__()
        self._columns: tuple[Column[TrialView], ...] = ()
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
        self.rows.set_keys(self._keys, self._no_trial())
        self.query_one("#trialhead", Panel).redraw()
        dot = f" {self.deck.glyphs.dot} "
        parts = ["Trials", counted(len(self._keys), len(scene.trials), "trial")]
        parts += [f"/{self._filter.text}"] if self._filter.text else []
        parts += [self._filter.problem] if self._filter.problem else []
        if self.brush:
            axes = {axis.name: axis for axis in self.axes}
            parts.append(f"brush {self.brush.words(axes, scene.objectives[0]['metric'])}")
        if hidden := len(self._columns) - len(self.laid_out()):
            parts.append(f"{many(hidden, 'column')} more" + ("" if self._full else " with z"))
        if marked := len(self.rows.marked):
            parts.append(f"{marked} marked")
        self.set_title("trials", dot.join(parts))
        self._choose()

    def _no_trial(self) -> list[Line]:
        if self.scene is not None and self.scene.trials:
            told = " No trial matches. "
            return [line((told, "dim"), ("esc", "key"), (" shows all.", "dim"))]
        return [line((" The first trials are being asked for.", "dim"))]

    def laid_out(self) -> list[tuple[Column[TrialView], int]]:
        return table.arrange(self._columns, self.query_one("#trials").size.width - 2)

    def _head(self, width: int, height: int) -> list[Line]:
        return [table.head(self.laid_out(), self.deck.glyphs, self._order)] if self._columns else []

    def _row(self, key: str, width: int) -> Line:
        trial = self._by_number.get(key)
        if trial is None:
            return BLANK
        now = self.deck.clock.wall() if self.at is None else self.at
        return table.row_line(trial, self.laid_out(), now, self.deck.glyphs)

    # The chosen trial.

    @property
    def rows(self) -> Rows:
        return self.query_one(Trials)

    def _chosen_number(self) -> int | None:
        key = self.rows.cursor_key
        return int(key) if key is not None else None

    def _choose(self) -> None:
        chosen = self._chosen_number()
        if self.chosen != chosen:
            self.chosen = chosen
            self.query_one(Board).update_lines()
            self.redraw_soon()

    def picked(self) -> list[TrialView]:
        keys = self.rows.chosen
        return [self._by_number[key] for key in keys if key in self._by_number]

    def step_trial(self, by: int) -> None:
        self.rows.step(by)

    def choose_number(self, number: int) -> None:
        self.rows.select(str(number))

    def step_number(self, by: int) -> None:
        numbers = sorted(int(key) for key in self.rows.keys)
        chosen = self._chosen_number()
        if numbers:
            at = numbers.index(chosen) + by if chosen in numbers else 0
            self.rows.select(str(numbers[max(0, min(len(numbers) - 1, at))]))

    @on(Rows.Moved, "#table")
    def _trial_chosen(self) -> None:
        self._choose()

    @on(Rows.Moved, "#board")
    def _lane_chosen(self, message: Rows.Moved) -> None:
        lane = self.lanes.get(message.key)
        if lane is not None and lane.stays:
            self.rows.select(str(lane.stays[-1].number))

    @on(Marked.Marks)
    def _marks_changed(self) -> None:
        if self.scene is not None:
            self._show_table()

    @on(Rows.Opened)
    def _row_opened(self, message: Rows.Opened) -> None:
        lane = self.lanes.get(message.key) if message.control.id == "board" else None
        if lane is not None and lane.stays:
            self.rows.select(str(lane.stays[-1].number))
            self._choose()  # its message has not come yet
        self.open_trial()

    # Filter and order.

    def do_trials_filter(self) -> None:
        self.do_table_filter()

    def parse(self, text: str) -> Filter[TrialView]:
        names = [axis.name for axis in self.axes if axis.name]
        objectives = self.sweep["objectives"] if self.sweep else ()
        return table_of.trial_filter(text, names, objectives)

    def sortable(self) -> tuple[str, ...]:
        return table.sortable(self._columns)

    def sift(self) -> None:
        self.look_again()

    def return_focus(self) -> None:
        self.focus_pane("trials")
