"""Pipelines: runs, how far each is, and when schedules start the next ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core.base.commands import Command
from console.tui.core.base.filter import Filter
from console.tui.core.base.world import World
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.flows import commands, schedules
from console.tui.core.flows import list as flows
from console.tui.screens.lists import Head, ListScreen
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.wire.flowviews import PipelineView, ScheduleView

EVERY = 5.0
"""Seconds between two looks at the schedules, which no watch tells of."""

MOST = 7
"""Lines that schedules take at most; more of them scroll."""


class PipelineTable(Rows):
    PANE = "pipelines"
    BINDINGS = bindings("pipelines")


class Schedules(Rows):
    PANE = "schedules"
    BINDINGS = bindings("schedules")


class PipelinesScreen(ListScreen[PipelineView]):
    NAME = "Pipelines"
    SCOPE = "pipelines_screen"
    TOPIC = "pipelines"
    TOPICS = ("pipelines",)
    PANES = ("table", "schedules")
    ORDER = "pipelines"
    TABLE = PipelineTable
    COLUMNS = flows.COLUMNS
    EXAMPLE = "user:mira state:running name:digits cached>0 !old text"
    BINDINGS = bindings("pipelines_screen")

    def __init__(self) -> None:
        super().__init__()
        self._asked = float("-inf")
        self._schedules: dict[str, ScheduleView] = {}
        self._error: QuarterdeckError | None = None
        self._answered = False

    def body(self) -> Iterable[Widget]:
        yield Head(self._head, id="head", focusable=False)
        yield PipelineTable(self._row, id="table")
        yield Schedules(self._schedule_row, id="schedules")
        yield Prompt("/", self.EXAMPLE, id="filter")

    def parse(self, text: str) -> Filter[PipelineView]:
        return flows.pipeline_filter(text)

    def show(self, world: World) -> None:
        self._known = world.pipelines
        self._keys = flows.rows(self._known, self._filter, self._order)
        self.present(world)
        self._show_schedules()

    def lesson(self) -> list[Line]:
        return [
            line((" A pipeline chains steps: jobs, sweeps, checks, gates, approvals, deployments.", "dim")),
            line((" What a step leaves goes to the next; what has not changed is not run again.", "dim")),
            BLANK,
            line("   ", ("qd pipeline run digits.yaml", "key"), ("             starts one", "dim")),
            line("   ", ("qd pipeline run digits.yaml --dry-run", "key"), ("   says what would run", "dim")),
        ]  # fmt: skip

    def totals(self) -> Line:
        return flows.totals(self._known)

    # Schedules.

    def on_mount(self) -> None:
        self.tick()

    def tick(self) -> None:
        if not self.deck.frozen and self.deck.clock.mono() - self._asked >= EVERY:
            self._asked = self.deck.clock.mono()
            self.deck.fetch("schedules", self.deck.source.schedules)

    def acted(self) -> None:
        self._asked = float("-inf")
        self.tick()

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        self._error = error
        if error is None:
            self._answered = True
            by_moment = sorted(value, key=lambda one: (not one["next"], *one["next"][:1]))
            self._schedules = {one["name"]: one for one in by_moment}
        self._show_schedules()

    def _show_schedules(self) -> None:
        pane = self.query_one(Schedules)
        pane.set_keys(list(self._schedules), self._no_schedules())
        pane.styles.height = max(1, min(pane.count(), MOST)) + 1
        title = f"Schedules {len(self._schedules)}" if self._answered else "Schedules"
        if self._answered and self._error is not None:
            title += f" {self.deck.glyphs.dot} not read again: {self._error.message}"
        self.set_title("schedules", title)

    def _no_schedules(self) -> list[Line]:
        if not self._answered:
            told, tone = (self._error.message, "error") if self._error else ("reading", "dim")
            return [line((f" {told}", tone))]
        command = 'qd schedule add digits.yaml --cron "0 3 * * *"'
        return [line((" None yet. ", "dim"), (command, "key"), (" runs one each night", "dim"))]

    def _schedule_row(self, key: str, width: int) -> Line:
        now = self.deck.clock.wall()
        return schedules.schedule_line(self._schedules[key], now, width, self.deck.glyphs)

    # What a person does.

    @on(Rows.Opened, "#table")
    def _opened(self, message: Rows.Opened) -> None:
        self.deck.open_pipeline(message.key)

    @on(Rows.Opened, "#schedules")
    def _schedule_opened(self, message: Rows.Opened) -> None:
        schedule, now, glyphs = (
            self._schedules[message.key],
            self.deck.clock.wall(),
            self.deck.glyphs,
        )
        self.deck.page(
            f"schedule {message.key}",
            lambda width: schedules.detail_lines(schedule, now, width, glyphs),
        )

    def do_flow_cancel(self) -> None:
        self.propose(commands.cancel(self.picked()))

    def do_flow_retry(self) -> None:
        self.propose(commands.retry(self.picked()))

    def do_schedule_pause(self) -> None:
        self.propose(self._of_schedule(commands.pause))

    def do_schedule_fire(self) -> None:
        self.propose(self._of_schedule(commands.fire))

    def _of_schedule(self, how: Any) -> Command | None:
        schedule = self._schedules.get(self.query_one(Schedules).cursor_key or "")
        made: Command | None = None if schedule is None else how(schedule)
        return made
