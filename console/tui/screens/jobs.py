"""Jobs: every job there is, in a table that filters as you type. The trials of a sweep are folded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import on
from textual.message import Message

from console.tui.actions import bindings
from console.tui.core.base import commands
from console.tui.core.base.filter import Filter
from console.tui.core.base.world import NOTHING, World
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.jobs import folds, jobs
from console.tui.core.jobs.folds import Group, Listing
from console.tui.screens.lists import ListScreen
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.wire.sweepviews import SweepView
from jobs.wire.views import JobView

PAGE = 200
"""Finished jobs read at once beyond those that the watch tells."""


PAGES = 10
"""Pages that are read for one key, where none of them brings a row."""


class JobTable(Rows):
    """Left and right fold the trials of a sweep."""

    PANE = "table"
    BINDINGS = bindings("table")

    class Folded(Message):
        def __init__(self, key: str, folded: bool) -> None:
            super().__init__()
            self.key, self.folded = key, folded

    class Ended(Message):
        """The cursor is on the last row, and was to go further."""

    def do_jobs_fold(self) -> None:
        self._fold(True)

    def do_jobs_unfold(self) -> None:
        self._fold(False)

    def _fold(self, folded: bool) -> None:
        if self.cursor_key is not None:
            self.post_message(self.Folded(self.cursor_key, folded))

    def _move_to(self, index: int) -> None:
        super()._move_to(index)
        if self._keys and index >= len(self._keys) - 1:
            self.post_message(self.Ended())


class JobsScreen(ListScreen[JobView]):
    NAME = "Jobs"
    SCOPE = "jobs"
    TOPIC = "jobs"
    TOPICS = ("sweeps",)
    ORDER = "sort"
    TABLE = JobTable
    COLUMNS = jobs.COLUMNS
    EXAMPLE = "user:mira gpu>4 state:running sweep:s1 !eval text"
    BINDINGS = bindings("jobs")

    def __init__(self) -> None:
        super().__init__()
        self._shown: Mapping[str, JobView] | None = None  # the watched ones in `_known`
        self._older: dict[str, JobView] = {}
        self._more = True  # whether the controller may know older jobs
        self._pages = 0  # that were read for the last key
        self._sweeps: Mapping[str, SweepView] = NOTHING
        self._listing = Listing()
        self._unfolded: dict[str, None] = {}  # sweeps, the last one last
        self._folded: frozenset[str] = frozenset()  # of those that the filter has unfolded

    def on_mount(self) -> None:
        session = self.deck.memory.session
        self._filter = self.parse(session.filter)
        self._unfolded = dict.fromkeys(session.unfolded.split())

    def parse(self, text: str) -> Filter[JobView]:
        return jobs.job_filter(text)

    def show(self, world: World) -> None:
        if world.jobs is not self._shown or world.sweeps is not self._sweeps:
            self._shown, self._sweeps = world.jobs, world.sweeps
            self._known = {**self._older, **world.jobs} if self._older else world.jobs
            self._listing = folds.listing(
                self._known,
                self._filter,
                self._order,
                sweeps=world.sweeps,
                unfolded=self._unfolded,
                folded=self._folded,
            )
            self._keys = self._listing.keys
        self.present(world)

    def sift(self) -> None:
        self._shown = None
        super().sift()

    def set_filter(self, text: str) -> None:
        self.deck.memory.note(filter=text)
        self._folded = frozenset()
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
        """How many sweeps have trials among them, and whether there are more jobs."""
        if not self._older and len(self.deck.world.jobs) < PAGE:
            return BLANK
        return line(("older ones follow at the end" if self._more else "that is all", "dim"))

    def counts(self) -> tuple[int, int]:
        return self._listing.matching, len(self._known)

    def picked(self) -> list[JobView]:
        """As in every list; a sweep stands for its trials, as far as the filter leaves them."""
        keys = [id_ for key in self.rows.chosen for id_ in self._listing.jobs_of(key)]
        return [self._known[key] for key in dict.fromkeys(keys) if key in self._known]

    def _row(self, key: str, width: int) -> Line:
        group = self._listing.groups.get(key)
        if group is None:
            return super()._row(key, width)
        return folds.group_line(group, self.laid_out(), self.deck.glyphs)

    # Folding.

    @on(JobTable.Folded)
    def _fold_asked(self, message: JobTable.Folded) -> None:
        group = self._listing.groups.get(message.key)
        if group is not None:
            self._fold(group, folded=message.folded)
        elif message.folded and (job := self._known.get(message.key)) is not None:
            self.rows.select(job["tags"].get("sweep", ""))  # which folds next

    def _fold(self, group: Group, *, folded: bool) -> None:
        if group.folded == folded:
            return
        self._unfolded.pop(group.id, None)
        self._folded -= {group.id}
        if folded:
            self._folded |= {group.id}
        else:
            self._unfolded[group.id] = None
        kept = [*self._unfolded][-folds.UNFOLDED_KEPT :]
        self.deck.memory.note(unfolded=" ".join(kept))
        self.sift()

    # Older jobs.

    @on(JobTable.Ended)
    def _at_end(self) -> None:
        """At the end of the table, older jobs are read: the watch sends only the newest."""
        self._pages = 0
        self._read_older()

    def _read_older(self) -> None:
        if self._more and self._known and self._pages < PAGES:
            self._pages += 1
            oldest = min(self._known.values(), key=jobs.number_of)["id"]
            source = self.deck.source
            self.deck.fetch("older", lambda: source.jobs_page(oldest, PAGE))

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        if error is not None:
            self.deck.tell(f"Older jobs: {error.message}.", severity="error")
        elif key == "older":
            self._older.update({job["id"]: job for job in value["jobs"]})
            self._more = value["next"] is not None
            before = len(self._keys)
            self.sift()
            if len(self._keys) == before:  # the filter leaves none, or they are folded
                self._read_older()

    # What a person does.

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        group = self._listing.groups.get(message.key)
        if group is not None:
            self._fold(group, folded=not group.folded)
        else:
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
        if (job := self._at_cursor()) is not None:
            self.deck.explain(job["id"])

    def do_row_describe(self) -> None:
        if (job := self._at_cursor()) is not None:
            self.deck.describe(job["id"])

    def _at_cursor(self) -> JobView | None:
        """The job under the cursor; what can be said of one alone is not said of a sweep."""
        key = self.rows.cursor_key or ""
        if key in self._listing.groups:
            self.deck.tell(f"{key} is a sweep: enter lists its trials, o opens it.")
        return self._known.get(key)

    def do_job_origin(self) -> None:
        key = self.rows.cursor_key or ""
        if key in self._listing.groups:
            self.deck.open_sweep(key)
        elif (job := self._known.get(key)) is not None:
            self.deck.open_origin(job)

    def do_jobs_compare(self) -> None:
        if len(picked := self.picked()) < 2:
            self.deck.tell("Mark two or more jobs with space, then compare them.")
        else:
            self.deck.compare([job["id"] for job in picked])

    def do_jobs_new(self) -> None:
        self.deck.write_job()
