"""Jobs: every job the controller tells of, in a table that filters as you type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from textual import events, on
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from console.tui.actions import bindings
from console.tui.core import commands, jobs, table
from console.tui.core.lines import BLANK, Line, line
from console.tui.core.order import Order
from console.tui.core.world import World
from console.tui.screens.base import Frame
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows
from jobs.errors import QuarterdeckError
from jobs.views import JobView

PAGE = 200
"""Finished jobs read at once beyond those that the watch tells."""


class JobTable(Rows):
    PANE = "table"
    BINDINGS = bindings("table")


class Head(Panel):
    """The line of counts, and the names of the columns, which sort when they are clicked."""

    class Picked(Message):
        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def on_click(self, event: events.Click) -> None:
        column = table.column_at(table.arrange(jobs.COLUMNS, self.size.width - 2), event.x)
        if event.y == 1 and column is not None and column.order is not None:
            self.post_message(self.Picked(column.title))


class JobsScreen(Frame):
    NAME = "Jobs"
    SCOPE = "jobs"
    PANES = ("table",)
    BINDINGS = bindings("jobs")
    AUTO_FOCUS = "#table"

    def __init__(self) -> None:
        super().__init__()
        self._filter = jobs.job_filter("")
        self._order = Order()
        self._known: Mapping[str, JobView] = {}
        self._shown: Mapping[str, JobView] | None = None  # the watched ones in `_known`
        self._keys: list[str] = []
        self._older: dict[str, JobView] = {}
        self._more = True  # whether the controller may know older jobs

    def body(self) -> Iterable[Widget]:
        yield Head(self._head, id="head", focusable=False)
        yield JobTable(self._row, id="table")
        yield Prompt("/", "user:mira gpu>4 state:running !eval text", id="filter")

    def on_mount(self) -> None:
        session = self.deck.memory.session
        self._filter = jobs.job_filter(session.filter)
        self._order = Order.parse(session.sort, jobs.SORTABLE)

    @property
    def table(self) -> JobTable:
        return self.query_one(JobTable)

    def show(self, world: World) -> None:
        if world.jobs is not self._shown:
            self._shown = world.jobs
            self._known = {**self._older, **world.jobs} if self._older else world.jobs
            self._keys = jobs.rows(self._known, self._filter, self._order)
        self.table.set_keys(self._keys, self._nothing(world))
        self.query_one("#head", Panel).redraw()

    def _nothing(self, world: World) -> list[Line]:
        if "jobs" not in world.ready:
            link = world.link
            if not link.tries:
                return [line((" connecting", "dim"))]
            return [line((f" {link.error}", "error")), line((f" {link.hint}", "dim"))]
        if self._known:
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
        known = len(self._known)
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
        if marked := len(self.table.marked):
            facts.append((f" {glyphs.dot} {marked} marked", "found"))
        if self._older or len(self.deck.world.jobs) >= PAGE:
            more = "older ones follow at the end" if self._more else "that is all"
            facts.append((f" {glyphs.dot} {more}", "dim"))
        layout = table.arrange(jobs.COLUMNS, width - 2)
        return [line(*facts), table.head(layout, glyphs, self._order)]

    def _row(self, key: str, width: int) -> Line:
        job = self._known.get(key)
        if job is None:
            return BLANK
        # The head has no scroll bar: both are laid out for the width that the rows have at least.
        layout = table.arrange(jobs.COLUMNS, self.size.width - 2)
        return table.row_line(job, layout, self.deck.clock.wall(), self.deck.glyphs)

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
        self._filter = jobs.job_filter(text)
        self.deck.memory.note(filter=text)
        self._again()

    def do_table_sort(self) -> None:
        self._set_order(self._order.next(jobs.SORTABLE))

    def do_table_turn(self) -> None:
        self._set_order(self._order.turned())

    @on(Head.Picked)
    def _column_picked(self, message: Head.Picked) -> None:
        self._set_order(self._order.picked(message.column))

    def _set_order(self, order: Order) -> None:
        self._order = order
        self.deck.memory.note(sort=order.text)
        self._again()

    def _again(self) -> None:
        self._shown = None
        self.show(self.deck.world)

    def do_app_back(self) -> None:
        if self.table.marked:
            self.table.clear_marks()
            self.query_one("#head", Panel).redraw()
        elif self._filter.text:
            self._set_filter("")
        else:
            self.deck.do_app_back()

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
            self._again()

    # What a person does.

    def _selected(self) -> JobView | None:
        key = self.table.cursor_key
        return self._known.get(key) if key is not None else None

    def _marked(self) -> list[JobView]:
        return [self._known[key] for key in self.table.marked if key in self._known]

    @on(Rows.Marks)
    def _marks_changed(self) -> None:
        self.query_one("#head", Panel).redraw()

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        self.deck.open_job(message.key)

    def do_job_cancel(self) -> None:
        job = self._selected()
        if marked := self._marked():
            self.propose(commands.cancel_all(marked))
        else:
            self.propose(commands.cancel(job) if job else None)

    def do_job_retry(self) -> None:
        job = self._selected()
        if marked := self._marked():
            self.propose(commands.retry_all(marked))
        else:
            self.propose(commands.retry(job) if job else None)

    def do_job_explain(self) -> None:
        job = self._selected()
        if job is not None:
            self.deck.explain(job["id"])

    def do_jobs_compare(self) -> None:
        marked = self.table.marked
        if len(marked) < 2:
            self.deck.tell("Mark two or more jobs with space, then compare them.")
        else:
            self.deck.compare(marked)

    def do_jobs_new(self) -> None:
        self.deck.write_job()

    def do_id_copy(self) -> None:
        if chosen := self.table.chosen:
            self.deck.copy(" ".join(chosen))
