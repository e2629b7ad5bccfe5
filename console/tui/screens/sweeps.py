"""Sweeps: every sweep there is, with how far it is, its best, and how long it will take."""

from __future__ import annotations

from textual import on

from console.tui.actions import bindings
from console.tui.core.base.filter import Filter
from console.tui.core.base.world import World
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.sweeps import commands
from console.tui.core.sweeps import list as sweeps
from console.tui.screens.lists import ListScreen
from console.tui.widgets.rows import Rows
from jobs.wire.sweepviews import SweepView


class SweepTable(Rows):
    PANE = "sweeps"
    BINDINGS = bindings("sweeps")


class SweepsScreen(ListScreen[SweepView]):
    NAME = "Sweeps"
    SCOPE = "sweeps"
    TOPIC = "sweeps"
    TOPICS = ("sweeps",)
    ORDER = "sweeps"
    TABLE = SweepTable
    COLUMNS = sweeps.COLUMNS
    EXAMPLE = "user:mira state:running best>0.9 !old text"
    BINDINGS = bindings("sweeps")

    def parse(self, text: str) -> Filter[SweepView]:
        return sweeps.sweep_filter(text)

    def show(self, world: World) -> None:
        self._known = world.sweeps
        self._keys = sweeps.rows(self._known, self._filter, self._order)
        self.present(world)

    def lesson(self) -> list[Line]:
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

    def totals(self) -> Line:
        return sweeps.totals(self._known)

    # What a person does.

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        self.deck.open_sweep(message.key)

    def do_sweep_pause(self) -> None:
        self.propose(commands.pause(self.picked()))

    def do_sweep_stop(self) -> None:
        self.propose(commands.stop(self.picked()))
