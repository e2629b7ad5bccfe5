"""Jobs: every job there is, in a table that filters as you type. The trials of a sweep are folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textual import on
from textual.message import Message

from console.tui.actions import bindings
from console.tui.core.base import commands, table
from console.tui.core.base.filter import Filter
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column
from console.tui.core.base.world import NOTHING, World
from console.tui.core.draw.format import many
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.jobs import columns, folds, jobs
from console.tui.core.jobs.folds import Group, Listing
from console.tui.screens.lists import ListScreen
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.wire.runviews import RunView
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
        self._chosen: list[str] = []  # names of columns; the usual ones where there is none
        self._skipped = 0  # columns that were scrolled away
        self._columns: Sequence[Column[JobView]] = jobs.COLUMNS
        self._facts: dict[str, RunView] = {}
        self._read_at: dict[str, float] = {}  # job -> when its facts were asked for
        self._unread = ""  # why facts could not be read
        self._asking: Sequence[str] = ()  # jobs whose facts are on their way

    def on_mount(self) -> None:
        session = self.deck.memory.session
        self._filter = self.parse(session.filter)
        self._unfolded = dict.fromkeys(session.unfolded.split())
        self._chosen = session.columns.split("\n") if session.columns else []
        self._make_columns()

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
                columns=self._columns,
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
        """Whether there are more jobs or columns, and why values are missing."""
        told: list[tuple[str, str]] = []
        if self._older or len(self.deck.world.jobs) >= PAGE:
            told.append(("older ones follow at the end" if self._more else "that is all", "dim"))
        if hidden := len(self._columns) - len(self.laid_out()):
            told.append((f"{many(hidden, 'column')} more: < >", "dim"))
        if self._unread:
            told.append((f"values not read: {self._unread}", "warn"))
        gap = (f" {self.deck.glyphs.dot} ", "dim")
        return line(*(part for one in told for part in (gap, one)))[1:]

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

    # Columns.

    def laid_out(self) -> Sequence[tuple[Column[JobView], int]]:
        fixed = len(columns.FIXED)
        shown = (*self._columns[:fixed], *self._columns[fixed + self._skipped :])
        return table.arrange(shown, self.size.width - 2)

    def sortable(self) -> Sequence[str]:
        return table.sortable(self._columns)

    def do_jobs_columns(self) -> None:
        from console.tui.screens.columns import Columns

        self.deck.push_screen(Columns(self._offered, self._choose))
        self._ask_facts(columns.TREND_CELLS)

    def _offered(self) -> tuple[list[str], list[str]]:
        """The columns that are shown, and all that can be."""
        chosen = self._chosen or [*columns.DEFAULT]
        return chosen, columns.offered(chosen, self._known.values(), self._facts)

    def _choose(self, names: list[str]) -> None:
        self._chosen = names if names != [*columns.DEFAULT] else []
        self._skipped = 0
        self.deck.memory.note(columns="\n".join(self._chosen))
        self._make_columns()
        if self._order.column not in self.sortable():
            self._order = Order()
        self.sift()
        self._look_for_facts()

    def _make_columns(self) -> None:
        self._columns = columns.made(self._chosen, self._facts, self.deck.clock.wall())

    def do_jobs_right(self) -> None:
        """On to the columns that do not fit."""
        if len(self.laid_out()) + self._skipped < len(self._columns):
            self._skipped += 1
            self._restyle_rows()

    def do_jobs_left(self) -> None:
        self._skipped = max(0, self._skipped - 1)
        self._restyle_rows()

    def _restyle_rows(self) -> None:
        self.rows.update_lines()
        self._redraw_head()

    # What rows do not say: parameters, metrics, tags that a program logged, the objective's course.

    def tick(self) -> None:
        self._look_for_facts()

    def _look_for_facts(self) -> None:
        if columns.needs_facts(self._chosen) and not self.deck.frozen:
            self._ask_facts(columns.TREND_CELLS if columns.TREND in self._chosen else 0)

    def _ask_facts(self, points: int) -> None:
        """Ask for the rows on the screen; for all of them where they are sorted by such a value."""
        if self._asking:
            return
        now, rows = self.deck.clock.mono(), self.rows
        own = {column.title for column in jobs.COLUMNS} | {"", columns.GPU_HOURS}
        if self._order.column in own:
            top = rows.scroll_offset.y
            keys: Sequence[str] = self._keys[top : top + max(1, rows.size.height)]
        else:
            keys = list(self._known)
        known = [self._known[key] for key in keys if key in self._known]
        wanted = columns.asked(known, self._facts, self._read_at, now)
        if wanted:
            self._asking = wanted
            self._read_at |= dict.fromkeys(wanted, now)
            source = self.deck.source
            self.deck.fetch("facts", lambda: source.runs_of(wanted, points))

    def _forget_asking(self) -> None:
        """What was on its way will not come: it is asked for again."""
        for job in self._asking:
            self._read_at.pop(job, None)
        self._asking = ()

    def on_screen_resume(self) -> None:
        self._forget_asking()  # an answer goes to the screen that is on top

    def _take_facts(self, value: list[RunView] | None, error: QuarterdeckError | None) -> None:
        if error is not None:
            self._forget_asking()
        self._asking = ()
        self._unread = "" if error is None else error.message
        for run in value or ():
            before = self._facts.get(run["job"])
            if before is not None and "curve" not in run and "curve" in before:
                run["curve"] = before["curve"]
            self._facts[run["job"]] = run
        self._make_columns()
        self.sift()
        if error is None:
            self._look_for_facts()

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
        if key == "facts":
            self._take_facts(value, error)
        elif error is not None:
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
