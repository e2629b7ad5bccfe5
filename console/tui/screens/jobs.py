"""Jobs: every job the controller tells of, in a table that filters as you type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import on

from console.tui.actions import bindings
from console.tui.core.base import commands
from console.tui.core.base.filter import Filter
from console.tui.core.base.world import World
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.jobs import jobs
from console.tui.screens.lists import ListScreen
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.wire.views import JobView

PAGE = 200
"""Finished jobs read at once beyond those that the watch tells."""


class JobTable(Rows):
    PANE = "table"
    BINDINGS = bindings("table")


class JobsScreen(ListScreen[JobView]):
    NAME = "Jobs"
    SCOPE = "jobs"
    TOPIC = "jobs"
    ORDER = "sort"
    TABLE = JobTable
    COLUMNS = jobs.COLUMNS
    EXAMPLE = "user:mira gpu>4 state:running !eval text"
    BINDINGS = bindings("jobs")

    def __init__(self) -> None:
        super().__init__()
        self._shown: Mapping[str, JobView] | None = None  # the watched ones in `_known`
        self._older: dict[str, JobView] = {}
        self._more = True  # whether the controller may know older jobs

    def on_mount(self) -> None:
        self._filter = self.parse(self.deck.memory.session.filter)

    def parse(self, text: str) -> Filter[JobView]:
        return jobs.job_filter(text)

    def show(self, world: World) -> None:
        if world.jobs is not self._shown:
            self._shown = world.jobs
            self._known = {**self._older, **world.jobs} if self._older else world.jobs
            self._keys = jobs.rows(self._known, self._filter, self._order)
        self.present(world)

    def sift(self) -> None:
        self._shown = None
        super().sift()

    def set_filter(self, text: str) -> None:
        self.deck.memory.note(filter=text)
        super().set_filter(text)

    def lesson(self) -> list[Line]:
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

    def totals(self) -> Line:
        """Whether there are more."""
        if not self._older and len(self.deck.world.jobs) < PAGE:
            return BLANK
        return line(("older ones follow at the end" if self._more else "that is all", "dim"))

    # Older jobs.

    @on(Rows.Moved)
    def _moved(self, message: Rows.Moved) -> None:
        """At the end of the table, older jobs are read: the watch tells the newest only."""
        if self._more and self._keys and message.key == self._keys[-1]:
            oldest = min(self._known.values(), key=jobs.number_of)["id"]
            source = self.deck.source
            self.deck.fetch("older", lambda: source.jobs_page(oldest, PAGE))

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        if error is not None:
            self.deck.tell(f"Older jobs: {error.message}.", severity="error")
        elif key == "older":
            self._older.update({job["id"]: job for job in value["jobs"]})
            self._more = value["next"] is not None
            self.sift()

    # What a person does.

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        self.deck.open_job(message.key)

    def do_job_cancel(self) -> None:
        if len(picked := self.picked()) > 1:
            self.propose(commands.cancel_all(picked))
        elif picked:
            self.propose(commands.cancel(picked[0]))

    def do_job_retry(self) -> None:
        if len(picked := self.picked()) > 1:
            self.propose(commands.retry_all(picked))
        elif picked:
            self.propose(commands.retry(picked[0]))

    def do_job_explain(self) -> None:
        if (key := self.rows.cursor_key) is not None:
            self.deck.explain(key)

    def do_row_describe(self) -> None:
        if (key := self.rows.cursor_key) is not None:
            self.deck.describe(key)

    def do_job_origin(self) -> None:
        job = self._known.get(self.rows.cursor_key or "")
        if job is not None:
            self.deck.open_origin(job)

    def do_jobs_compare(self) -> None:
        marked = self.rows.marked
        if len(marked) < 2:
            self.deck.tell("Mark two or more jobs with space, then compare them.")
        else:
            self.deck.compare(marked)

    def do_jobs_new(self) -> None:
        self.deck.write_job()
