"""Job: its ranks as a strip, logs below; metrics, GPUs and attempts beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core import commands, job
from console.tui.core.lines import Line, line
from console.tui.core.world import World
from console.tui.joblogs import JobLogs
from console.tui.messages import LogsCame
from console.tui.screens.base import Frame
from console.tui.widgets.grid import Grid
from console.tui.widgets.logview import LogView
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from jobs.errors import QuarterdeckError
from jobs.views import TERMINAL, AttemptView, HistoryPoint, JobDetail, RankView, SeriesPoint

SERIES_POINTS = 400
GPU_SECONDS = 600
GPU_POINTS = 120
REFRESH = 2.0
"""Seconds between two looks at metrics and GPUs of a job that runs."""

LOG_REFRESH = 0.3
"""Seconds between two looks at a rank's log; an answer without news is a few bytes."""


class Ranks(Grid):
    PANE = "ranks"
    BINDINGS = bindings("ranks")


class JobScreen(Frame):
    NAME = "Job"
    SCOPE = "job"
    PANES = ("ranks", "logs", "metrics", "gpus", "attempts")
    TABS = ("logs", "metrics", "gpus", "attempts")
    BINDINGS = bindings("job")
    AUTO_FOCUS = "#logs"

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self.job_id = job_id
        self._series: dict[str, list[SeriesPoint]] = {}
        self._gpus: dict[str, list[HistoryPoint]] = {}
        self._metric: str | None = None
        self._asked = -REFRESH
        self._settled = False  # ended, and looked at once after that
        self._logs: JobLogs | None = None
        self._ranks: dict[str, RankView] = {}
        self._indices: dict[str, int] = {}  # GPU UUID -> index on its node, once nodes were seen
        self._cells = job.RankCells(2, 3)

    @property
    def topics(self) -> tuple[str, ...]:
        return (f"job:{self.job_id}",)

    def crumbs(self) -> tuple[str, ...]:
        return ("Jobs", self.job_id)

    def body(self) -> Iterable[Widget]:
        yield Panel(self._summary, id="summary", focusable=False)
        left = Vertical(
            Ranks(self._rank_cell, by_column=False, id="ranks"),
            LogView(id="logs"),
            id="left",
            classes="column",
        )
        right = Vertical(
            Panel(self._metric_lines, id="metrics"),
            Panel(self._gpu_lines, id="gpus"),
            Panel(self._attempt_lines, id="attempts"),
            id="right",
            classes="column",
        )
        yield Horizontal(left, right, id="body")
        yield Prompt("/", "text to find in the logs", id="find")

    def on_mount(self) -> None:
        self._logs = JobLogs(
            self.deck.source, self.job_id, self.deck.fetch, lambda: self.post_message(LogsCame())
        )
        self.set_interval(LOG_REFRESH, self._poll_logs)

    def on_screen_suspend(self) -> None:
        if self._logs is not None and self.deck.top is not self:
            self._logs.pause()

    def on_unmount(self) -> None:
        if self._logs is not None:
            self._logs.pause()

    # Snapshots in.

    @property
    def detail(self) -> JobDetail | None:
        return self.deck.world.details.get(self.job_id)

    @property
    def attempt(self) -> AttemptView | None:
        return job.current(self.detail) if self.detail else None

    def show(self, world: World) -> None:
        if self._logs is None:
            return
        glyphs, detail, attempt = self.deck.glyphs, self.detail, self.attempt
        if attempt is not None:
            self._show_ranks(attempt)
        for name in ("summary", "metrics", "gpus", "attempts"):
            self.query_one(f"#{name}", Panel).redraw()
        self.set_title("metrics", f"Metrics {glyphs.dot} {self._metric or 'none yet'}")
        sim = any(job.simulated(uuid) for uuid in self._gpus)
        self.set_title("gpus", f"GPU util {glyphs.dot} 10 min{' · sim' if sim else ''}")
        count = len(detail["attempts"]) if detail else 0
        self.set_title("attempts", f"Attempts {count}" if count else "Attempts")
        self._title_logs()
        if detail is not None and not self._series and not self._settled:
            self.tick()

    def _show_ranks(self, attempt: AttemptView) -> None:
        assert self._logs is not None
        ranks = attempt["ranks"]
        now = self.deck.clock.wall()
        fresh = self._logs.attend(attempt["number"])
        self._logs.quiet.look([(rank["rank"], rank["log_bytes"]) for rank in ranks], now)
        self._indices = {
            gpu["uuid"]: gpu["index"]
            for node in self.deck.world.nodes.values()
            for gpu in node["gpus"]
        }
        self._ranks = {str(rank["rank"]): rank for rank in ranks}
        strip = self.query_one(Ranks)
        self._cells = job.rank_cells(ranks, self._indices)
        strip.set_cells(list(self._ranks), self._cells.width)
        rows = min(strip.rows_needed(max(1, strip.room.width)), 2 if self.compact else 5)
        strip.styles.height = max(1, rows) + 1  # and its title
        self.set_title("ranks", job.ranks_title(attempt, self._logs.quiet, now, self.deck.glyphs))
        if fresh:
            if len(ranks) == 1:
                self._logs.select(ranks[0]["rank"])
            self._show_log()

    def tick(self) -> None:
        now = self.deck.clock.mono()
        detail = self.detail
        if detail is None or now - self._asked < REFRESH:
            return
        ended = detail["state"] in TERMINAL
        if ended and self._settled:
            return
        self._asked, self._settled = now, ended
        source, job_id = self.deck.source, self.job_id
        self.deck.fetch("series", lambda: source.series(job_id, SERIES_POINTS))
        if any(rank["gpus"] for rank in self._ranks.values()):
            self.deck.fetch("gpus", lambda: source.job_gpus(job_id, GPU_SECONDS, GPU_POINTS))

    def _poll_logs(self) -> None:
        detail = self.detail
        if self._logs is not None and detail is not None and self.alive and self.deck.top is self:
            self._logs.poll(live=detail["state"] not in TERMINAL)
            self._logs.go_on()

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        assert self._logs is not None
        if key in ("log", "earlier"):
            if error is not None:
                self._logs.error = error.message
                self._title_logs()
            elif self._logs.arrived(value, self.deck.clock.wall()):
                self.query_one(LogView).grew()
            self.query_one(LogView).set_empty(self._no_lines())
        elif error is not None:
            return  # the badge tells; what was drawn stays
        elif key == "series":
            self._series = value
            if self._metric not in value:
                self._metric = next(iter(job.metric_names(value)), None)
            self.show(self.deck.world)
        elif key == "gpus":
            self._gpus = value
            self.show(self.deck.world)

    @on(LogsCame)
    def _logs_came(self) -> None:
        if self._logs is not None and self.alive:
            if self._logs.drain():
                self.query_one(LogView).grew()
            self.query_one(LogView).set_empty(self._no_lines())

    # Lines out.

    def _summary(self, width: int, height: int) -> list[Line]:
        known = self.detail or self.deck.world.jobs.get(self.job_id)
        if known is None:
            link = self.deck.world.link
            refused = self.deck.world.refused.get(self.topics[0])
            if refused is not None:
                return [line((f" {refused}", "error"))]
            return [line((f" {link.error or 'waiting for the job'}", "dim"), f" {link.hint}")]
        return job.summary(known, self.deck.clock.wall(), width, self.deck.glyphs)

    def _rank_cell(self, key: str, selected: bool) -> Line:
        assert self._logs is not None
        rank = self._ranks[key]
        quiet = self._logs.quiet.since(rank["rank"], self.deck.clock.wall())
        return job.rank_cell(rank, self._cells, self._indices, quiet, selected, self.deck.glyphs)

    def _metric_lines(self, width: int, height: int) -> list[Line]:
        lines = job.metric_lines(self._series, self._metric, width, height, self.deck.glyphs)
        return lines or [
            line((" A script logs metrics with", "dim")),
            line("   ", ("import quarterdeck", "key")),
            line("   ", ("quarterdeck.log(step=step, loss=loss)", "key")),
        ]

    def _gpu_lines(self, width: int, height: int) -> list[Line]:
        return job.gpu_lines(self.attempt, self._gpus, width, self.deck.glyphs)

    def _attempt_lines(self, width: int, height: int) -> list[Line]:
        detail = self.detail
        if detail is None:
            return []
        return job.attempt_lines(detail, self.deck.clock.wall(), width, self.deck.glyphs)

    # Logs.

    def _show_log(self) -> None:
        assert self._logs is not None
        self.query_one(LogView).show_log(self._logs.lines, self._no_lines())
        self._title_logs()
        self._poll_logs()

    def _no_lines(self) -> list[Line]:
        assert self._logs is not None
        if self._logs.error:
            return [line((f" {self._logs.error}", "error"))]
        if not self._logs.opened():
            return [line((" reading", "dim"))]
        return [line((" Nothing was written yet.", "dim"))]

    @on(LogView.Followed)
    def _title_logs(self) -> None:
        if self._logs is None or not self.alive:
            return
        view, dot = self.query_one(LogView), self.deck.glyphs.dot
        what = "all ranks" if self._logs.rank is None else f"r{self._logs.rank}"
        parts = [f"Logs {what}"]
        if self._logs.attempt > 1:
            parts.append(f"attempt {self._logs.attempt}")
        if view.following:
            parts.append("follow")
        else:
            waiting = view.waiting
            parts.append(f"{waiting} {'line waits' if waiting == 1 else 'lines wait'}, G follows")
        if view.needle:
            parts.append(f"/{view.needle}")
        if self._logs.error:
            parts.append(self._logs.error)
        self.set_title("logs", f" {dot} ".join(parts))

    @on(LogView.NeedsEarlier)
    def _needs_earlier(self) -> None:
        if self._logs is not None:
            self._logs.earlier()

    def _select_rank(self, rank: int | None) -> None:
        assert self._logs is not None
        if rank is not None and str(rank) not in self._ranks:
            self.deck.tell(f"{self.job_id} has no rank {rank}.", severity="warning")
            return
        self._logs.select(rank)
        if rank is not None:
            self.query_one(Ranks).select(str(rank))
        self._show_log()

    def _step_rank(self, by: int) -> None:
        assert self._logs is not None
        known = [int(key) for key in self._ranks]
        if known:
            rank = self._logs.rank
            at = known.index(rank) + by if rank in known else (0 if by > 0 else -1)
            self._select_rank(known[at % len(known)])

    @on(Grid.Opened)
    def _rank_opened(self, message: Grid.Opened) -> None:
        self._select_rank(int(message.key))
        self.focus_pane("logs")

    def do_ranks_pick(self, key: str) -> None:
        self._select_rank(int(key))

    def do_logs_rank_next(self) -> None:
        self._step_rank(1)

    def do_logs_rank_previous(self) -> None:
        self._step_rank(-1)

    def do_logs_all(self) -> None:
        self._select_rank(None)

    def do_logs_follow(self) -> None:
        self.query_one(LogView).follow()

    def do_logs_find(self) -> None:
        self.query_one(Prompt).open()

    @on(Prompt.Closed)
    def _find_closed(self, message: Prompt.Closed) -> None:
        view = self.query_one(LogView)
        self.focus_pane("logs")
        if not view.find(message.text if message.kept else ""):
            self.deck.tell(f"'{message.text}' is not in what was read of the log.")
        self._title_logs()

    def do_logs_next(self) -> None:
        self._find_next(backwards=False)

    def do_logs_previous(self) -> None:
        self._find_next(backwards=True)

    def _find_next(self, *, backwards: bool) -> None:
        view = self.query_one(LogView)
        if not view.needle:
            self.deck.tell("Nothing to find yet: / asks for a text.")
        elif not view.find_next(backwards=backwards):
            self.deck.tell(f"'{view.needle}' is not in what was read of the log.")

    # The rest of what a person does.

    def do_metric_next(self) -> None:
        self._step_metric(1)

    def do_metric_previous(self) -> None:
        self._step_metric(-1)

    def _step_metric(self, by: int) -> None:
        names = job.metric_names(self._series)
        if names:
            at = names.index(self._metric) if self._metric in names else -by
            self._metric = names[(at + by) % len(names)]
            self.open_tab("metrics")
            self.show(self.deck.world)

    def do_job_cancel(self) -> None:
        known = self.detail or self.deck.world.jobs.get(self.job_id)
        self.propose(commands.cancel(known) if known else None)

    def do_job_retry(self) -> None:
        known = self.detail or self.deck.world.jobs.get(self.job_id)
        self.propose(commands.retry(known) if known else None)

    def do_job_explain(self) -> None:
        self.deck.explain(self.job_id)

    def do_job_stacks(self) -> None:
        self.deck.stacks(self.job_id)

    def do_id_copy(self) -> None:
        self.deck.copy(self.job_id)
