"""Job: its ranks as a strip, logs below; metrics, GPUs and attempts beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core.base import commands
from console.tui.core.base.world import World
from console.tui.core.draw.format import moment
from console.tui.core.draw.lines import Line, fit, line
from console.tui.core.draw.look import Look
from console.tui.core.jobs import diagnosis, job, metrics
from console.tui.core.jobs.diagnosis import Diagnosis
from console.tui.logdesk import LogDesk
from console.tui.messages import LogsCame
from console.tui.screens.jobcharts import ChartActions, Gpus, Metrics
from console.tui.screens.jobfiles import Files
from console.tui.widgets.grid import Grid
from console.tui.widgets.logview import LogView
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from jobs.base.errors import QuarterdeckError
from jobs.base.states import TERMINAL
from jobs.wire.views import AttemptView, NodeView

SERIES_POINTS = 400
GPU_POINTS = 240
LONGEST_HISTORY = 7 * 86400
"""Seconds of GPU history asked for at most; the controller keeps no more."""

REFRESH = 2.0
"""Seconds between two looks at metrics and GPUs of a job that runs."""

NODES_REFRESH = 5.0
NODES_ASKED = 32
"""Nodes whose GPUs are looked at for the diagnosis; of a larger gang, the first ones."""

LOG_REFRESH = 0.3
"""Seconds between two looks at a rank's log; an answer without news is a few bytes."""


class Ranks(Grid):
    PANE = "ranks"
    BINDINGS = bindings("ranks")


class JobScreen(ChartActions):
    NAME = "Job"
    SCOPE = "job"
    PANES = ("ranks", "logs", "beside", "files", "metrics", "gpus", "attempts")
    TABS = ("logs", "files", "metrics", "gpus", "attempts")
    BINDINGS = bindings("job")
    AUTO_FOCUS = "#logs"

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self.job_id = job_id
        self.desks = {}
        self.ranks = {}
        self.look = Look()
        self.closer = self.asked_closer = None
        self.series = {}
        self.gpus = {}
        self.metric = None
        self.looked_at = 0.0
        self.diagnosis: Diagnosis | None = None
        self._placed_on: dict[str, NodeView] = {}
        self._asked = -REFRESH
        self._placed_asked = -NODES_REFRESH
        self._settled = False  # ended, and looked at once after that
        self._indices: dict[str, int] = {}  # GPU UUID -> index on its node, once nodes were seen
        self._cells = job.RankCells(2, 3)

    @property
    def topics(self) -> tuple[str, ...]:
        return (f"job:{self.job_id}",)

    @property
    def place(self) -> str:
        return self.job_id

    def crumbs(self) -> tuple[str, ...]:
        return ("Jobs", self.job_id)

    def body(self) -> Iterable[Widget]:
        yield Panel(self._summary, id="summary", focusable=False)
        beside = LogView(id="beside")
        files = Files(self.job_id, id="files")
        beside.display = files.display = False
        left = Vertical(
            Ranks(self._rank_cell, by_column=False, id="ranks"),
            Horizontal(LogView(id="logs"), beside, id="logrow"),
            files,
            id="left",
            classes="column",
        )
        right = Vertical(
            Metrics(self.metric_lines, id="metrics"),
            Gpus(self.gpu_lines, id="gpus"),
            Panel(self._attempt_lines, id="attempts"),
            id="right",
            classes="column",
        )
        yield Horizontal(left, right, id="body")
        yield Prompt("/", "text to find in the logs", id="find")
        yield Prompt("&", "only lines with this in them, of the whole log; empty: all", id="keep")

    def do_app_back(self) -> None:
        """One step back at a time: what was found, what was filtered, the moment in the charts; then the
        screen itself."""
        desk = self.desk
        if desk.view.leave_range():
            return
        if desk.view.needle:
            desk.find("")
            self.title_logs()
        elif desk.logs.keep:
            desk.select(desk.logs.rank, "")
            self.title_logs()
            self.poll_logs()
        elif self.look.cross is not None:
            self.do_chart_clear()
        else:
            self.deck.do_app_back()

    def on_mount(self) -> None:
        deck = self.deck
        for name in ("logs", "beside"):
            view = self.query_one(f"#{name}", LogView)
            self.desks[name] = LogDesk(
                deck.source,
                self.job_id,
                name,
                view,
                deck.fetch,
                lambda: self.post_message(LogsCame()),
                deck.tell,
            )
        self.looked_at = deck.clock.wall()
        self.set_interval(LOG_REFRESH, self.poll_logs)

    def on_screen_suspend(self) -> None:
        if self.deck.top is not self:
            self._pause_logs()

    def on_unmount(self) -> None:
        self._pause_logs()
        self.sweep()

    def _pause_logs(self) -> None:
        for desk in self.desks.values():
            desk.logs.pause()

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Where there is room for charts beside them, files have the place of the logs."""
        return super().groups() or (("logs", "files"),)

    def _reachable(self, name: str) -> bool:
        """`tab` goes from the logs on to the charts; files would take the logs away."""
        if not self.compact and name in ("logs", "files"):
            return name == self._open_in(("logs", "files"))
        return super()._reachable(name)

    def _lay_out_tabs(self) -> None:
        super()._lay_out_tabs()
        if (row := self.pane("logrow")) is not None:
            row.display = self.query_one("#logs").display

    # Snapshots in.

    def show(self, world: World) -> None:
        if not self.desks:
            return
        detail, attempt = self.detail, self.attempt
        if attempt is not None:
            self._show_ranks(attempt)
        elif detail is not None:
            self.query_one("#logs", LogView).set_empty(self.desks["logs"].nothing())
        self._diagnose()
        for name in ("summary", "attempts"):
            self.query_one(f"#{name}", Panel).redraw()
        self.redraw_charts()
        count = len(detail["attempts"]) if detail else 0
        self.set_title("attempts", f"Attempts {count}" if count else "Attempts")
        self.title_logs()
        if detail is not None and not self.series and not self._settled:
            self.tick()

    def _show_ranks(self, attempt: AttemptView) -> None:
        ranks = attempt["ranks"]
        now = self.deck.clock.wall()
        main = self.desks["logs"]
        fresh = main.logs.attend(attempt["number"])
        main.logs.quiet.look([(rank["rank"], rank["log_bytes"]) for rank in ranks], now)
        nodes = self._placed_on or self.deck.world.nodes
        self._indices = {gpu["uuid"]: gpu["index"] for n in nodes.values() for gpu in n["gpus"]}
        self.ranks = {str(rank["rank"]): rank for rank in ranks}
        strip = self.query_one(Ranks)
        self._cells = job.rank_cells(ranks, self._indices)
        strip.set_cells(list(self.ranks), self._cells.width)
        rows = min(strip.rows_needed(max(1, strip.room.width)), 2 if self.compact else 5)
        strip.styles.height = max(1, rows) + 1  # and its title
        self.set_title("ranks", job.ranks_title(attempt, main.logs.quiet, now, self.deck.glyphs))
        if fresh:
            if main.logs.rank is None and (rank := job.opening_rank(attempt)) is not None:
                main.logs.select(rank, main.logs.keep)
            main.show()
            beside = self.desks["beside"]
            if beside.view.display:
                beside.logs.attend(attempt["number"])
                beside.show()
            self.poll_logs()

    def _diagnose(self) -> None:
        if self.detail is None:
            return
        self.diagnosis = diagnosis.diagnose(self.detail, self._placed_on, self.series)
        outlier = self.diagnosis.outlier if self.diagnosis else None
        for desk in self.desks.values():
            desk.view.outlier = outlier

    def tick(self) -> None:
        self.query_one(Files).tick()
        now = self.deck.clock.mono()
        detail = self.detail
        if detail is None:
            return
        ended = detail["state"] in TERMINAL
        source, job_id = self.deck.source, self.job_id
        if not ended and now - self._placed_asked >= NODES_REFRESH:
            self._placed_asked = now
            names = detail["placed_on"][:NODES_ASKED]
            self.deck.fetch("nodes", lambda: {name: source.node(name) for name in names})
        if now - self._asked < REFRESH or (ended and self._settled):
            return
        self._asked, self._settled = now, ended
        self.looked_at = self.deck.clock.wall()
        self.deck.fetch("series", lambda: source.series(job_id, SERIES_POINTS))
        self.look_closer(again=True)
        if any(rank["gpus"] for rank in self.ranks.values()):
            start = moment(detail["attempts"][-1]["started_at"]) or self.looked_at
            seconds = int(min(LONGEST_HISTORY, max(60.0, self.looked_at - start)))
            self.deck.fetch("gpus", lambda: source.job_gpus(job_id, seconds, GPU_POINTS))

    def poll_logs(self) -> None:
        detail = self.detail
        if detail is None or not self.alive or self.deck.top is not self:
            return
        for desk in self.desks.values():
            if desk.view.display:
                desk.poll(live=detail["state"] not in TERMINAL)

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        name, _, what = key.partition(" ")
        if name in self.desks:
            self.desks[name].fetched(what, value, error, self.deck.clock.wall())
            self.title_logs()
        elif name == "files":
            self.query_one(Files).fetched(what, value, error)
        elif key in ("save", "pager"):
            self.log_fetched(key, value, error)
        elif error is not None:
            if key == "closer":
                self.asked_closer = None  # to be asked for again
            return  # the badge tells; what was drawn stays
        elif key == "series":
            self.series = value
            if self.metric not in value:
                known = self.detail["name"] if self.detail else ""
                liked = self.deck.memory.session.metrics.get(known)
                usual = metrics.opening(value, self.objective)
                self.metric = liked if liked in value else usual
            self.show(self.deck.world)
        elif key == "closer":
            self.closer = value
            self.redraw_charts()
        elif key == "gpus":
            self.gpus = value
            self.redraw_charts()
        elif key == "nodes":
            self._placed_on = value
            self.show(self.deck.world)

    @on(LogsCame)
    def _logs_came(self) -> None:
        if self.alive:
            for desk in self.desks.values():
                desk.came()

    # Lines out.

    def _summary(self, width: int, height: int) -> list[Line]:
        known = self.detail or self.deck.world.jobs.get(self.job_id)
        if known is None:
            link = self.deck.world.link
            refused = self.deck.world.refused.get(self.topics[0])
            if refused is not None:
                return [line((f" {refused}", "error"))]
            return [line((f" {link.error or 'waiting for the job'}", "dim"), f" {link.hint}")]
        out = job.summary(known, self.deck.clock.wall(), width, self.deck.glyphs)
        if self.diagnosis is not None:
            text = fit(self.diagnosis.text, width - 2, ellipsis=self.deck.glyphs.ellipsis)
            out.append(line(" ", (text, self.diagnosis.tone)))
        return out

    def _rank_cell(self, key: str, selected: bool) -> Line:
        rank = self.ranks[key]
        quiet = self.desks["logs"].logs.quiet.since(rank["rank"], self.deck.clock.wall())
        odd = self.diagnosis is not None and self.diagnosis.outlier == rank["rank"]
        return job.rank_cell(
            rank, self._cells, self._indices, quiet, selected, self.deck.glyphs, odd=odd
        )

    def _attempt_lines(self, width: int, height: int) -> list[Line]:
        detail = self.detail
        if detail is None:
            return []
        return job.attempt_lines(detail, self.deck.clock.wall(), width, self.deck.glyphs)

    # What a person does with the job.

    def do_job_cancel(self) -> None:
        known = self.detail or self.deck.world.jobs.get(self.job_id)
        self.propose(commands.cancel(known) if known else None)

    def do_job_retry(self) -> None:
        known = self.detail or self.deck.world.jobs.get(self.job_id)
        self.propose(commands.retry(known) if known else None)

    def do_job_explain(self) -> None:
        self.deck.explain(self.job_id)

    def do_row_describe(self) -> None:
        self.deck.describe(self.job_id)

    def do_job_origin(self) -> None:
        known = self.detail or self.deck.world.jobs.get(self.job_id)
        if known is not None:
            self.deck.open_origin(known)

    def do_job_files(self) -> None:
        """To the files, and back to the logs."""
        self.focus_pane("logs" if isinstance(self.focused, Files) else "files")

    def do_job_stacks(self) -> None:
        self.deck.stacks(self.job_id)

    def do_id_copy(self) -> None:
        self.deck.copy(self.job_id)
