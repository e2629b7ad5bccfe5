"""Jobs: every job the controller tells of, in a table that filters as you type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from console.tui.actions import bindings
from console.tui.core import commands, jobs, table
from console.tui.core.lines import BLANK, Line, line
from console.tui.core.world import World
from console.tui.screens.base import Frame
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows
from jobs.views import JobView


class JobsScreen(Frame):
    NAME = "Jobs"
    SCOPE = "jobs"
    PANES = ("table",)
    BINDINGS = bindings("jobs")
    AUTO_FOCUS = "#table"

    def __init__(self) -> None:
        super().__init__()
        self._filter = jobs.job_filter("")
        self._shown: Mapping[str, JobView] | None = None
        self._keys: list[str] = []

    def body(self) -> Iterable[Widget]:
        yield Panel(self._head, id="head", focusable=False)
        yield Rows(self._row, id="table")
        yield Prompt("/", "user:mira gpu>4 state:running !eval text", id="filter")

    def show(self, world: World) -> None:
        if world.jobs is not self._shown:
            self._shown = world.jobs
            self._keys = jobs.rows(world.jobs, self._filter)
        self.query_one("#table", Rows).set_keys(self._keys, self._nothing(world))
        self.query_one("#head", Panel).redraw()

    def _nothing(self, world: World) -> list[Line]:
        if "jobs" not in world.ready:
            link = world.link
            if not link.tries:
                return [line((" connecting", "dim"))]
            return [line((f" {link.error}", "error")), line((f" {link.hint}", "dim"))]
        if world.jobs:
            return [
                line(
                    (" No job matches the filter. ", "dim"), ("esc", "key"), (" clears it.", "dim")
                )
            ]
        return [
            line((" A job is a command that runs on the cluster, as one or many ranks.", "dim")),
            BLANK,
            line("   ", ("qd submit -- echo hi", "key"), ("      the smallest one", "dim")),
            line(
                "   ",
                ("qd submit job.yaml", "key"),
                ("        a file with ranks, GPUs, data", "dim"),
            ),
        ]

    def _head(self, width: int, height: int) -> list[Line]:
        glyphs = self.deck.glyphs
        known = len(self.deck.world.jobs)
        facts = [
            (
                f" {len(self._keys)} of {known} jobs" if self._filter.text else f" {known} jobs",
                "strong",
            )
        ]
        if self._filter.text:
            facts.append((f" {glyphs.dot} filter {self._filter.text}", "key"))
        if self._filter.problem:
            facts.append((f" {glyphs.dot} {self._filter.problem}", "warn"))
        return [line(*facts), table.head(table.arrange(jobs.COLUMNS, width - 2), glyphs)]

    def _row(self, key: str, width: int) -> Line:
        job = self.deck.world.jobs.get(key)
        if job is None:
            return BLANK
        # The head has no scroll bar: both are laid out for the width that the rows have at least.
        layout = table.arrange(jobs.COLUMNS, self.size.width - 2)
        return table.row_line(job, layout, self.deck.clock.wall(), self.deck.glyphs)

    # The filter.

    def do_jobs_filter(self) -> None:
        self.query_one(Prompt).open(self._filter.text)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self._set_filter(message.value)

    @on(Prompt.Closed)
    def _filter_closed(self, message: Prompt.Closed) -> None:
        if not message.kept:
            self._set_filter("")
        self.query_one("#table", Rows).focus()

    def _set_filter(self, text: str) -> None:
        self._filter = jobs.job_filter(text)
        self._shown = None
        self.show(self.deck.world)

    def do_app_back(self) -> None:
        if self._filter.text:
            self._set_filter("")
        else:
            self.deck.do_app_back()

    # What a person does.

    def _selected(self) -> JobView | None:
        key = self.query_one("#table", Rows).cursor_key
        return self.deck.world.jobs.get(key) if key is not None else None

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        self.deck.open_job(message.key)

    def do_job_cancel(self) -> None:
        job = self._selected()
        self.propose(commands.cancel(job) if job else None)

    def do_job_retry(self) -> None:
        job = self._selected()
        self.propose(commands.retry(job) if job else None)

    def do_job_explain(self) -> None:
        job = self._selected()
        if job is not None:
            self.deck.explain(job["id"])

    def do_id_copy(self) -> None:
        job = self._selected()
        if job is not None:
            self.deck.copy(job["id"])
