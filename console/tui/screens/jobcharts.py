"""The charts of the Job screen: metrics, GPUs, the crosshair through both, and the logs it points to."""

from __future__ import annotations

from dataclasses import replace

from textual import on

from console.tui.actions import bindings
from console.tui.core.draw.format import clock, moment
from console.tui.core.draw.lines import Line, line
from console.tui.core.draw.look import SMOOTHINGS, Look, Reach
from console.tui.core.jobs import job, metrics
from console.tui.screens.joblogs import LogActions
from console.tui.widgets.chart import ChartPanel
from console.tui.widgets.panel import Panel
from jobs.wire.views import HistoryPoint, SeriesPoint

CLOSER_POINTS = 1000
"""Points of a window: more than the widest terminal draws of it and of what is held on either side."""


class Metrics(ChartPanel):
    PANE = "metrics"
    BINDINGS = bindings("metrics")


class Gpus(ChartPanel):
    PANE = "gpus"
    BINDINGS = bindings("gpus")


class ChartActions(LogActions):
    """What a person does with charts. They share one `Look`: one window of time, one moment."""

    look: Look
    closer: tuple[Reach, dict[str, list[SeriesPoint]]] | None
    asked_closer: Reach | None
    series: dict[str, list[SeriesPoint]]
    gpus: dict[str, list[HistoryPoint]]
    metric: str | None
    looked_at: float  # when series and GPUs were asked for, by the wall clock

    def extent(self) -> tuple[float, float]:
        """When the attempt began, and when it ended or was last looked at."""
        attempt = self.attempt
        begin = moment(attempt["started_at"]) if attempt else None
        end = moment(attempt["ended_at"]) if attempt else None
        logged = metrics.extent(self.series)
        if begin is None:
            begin = logged[0] if logged else self.looked_at - 60
        # Metrics of earlier attempts belong to the same run.
        begin = min(begin, logged[0]) if logged else begin
        end = self.looked_at if end is None else end
        return begin, max(end, begin + 1, logged[1] if logged else 0.0)

    @property
    def objective(self) -> str | None:
        """The metric that the job is judged by, where its file names one."""
        spec = self.detail["spec"] if self.detail else {}
        name: str | None = (spec.get("objective") or {}).get("metric")
        return name

    def in_window(self) -> dict[str, list[SeriesPoint]]:
        """The points to draw: asked for anew for a window into the run, since of the whole only as many
        are held as the whole needs, and less would show waves that nobody logged."""
        closer = self.closer
        if closer is not None and closer[0].serves(self.look.window(*self.extent())):
            return closer[1]
        return self.series

    def look_closer(self, *, again: bool = False) -> None:
        """Ask for the points of the window, unless they are here or on their way."""
        window = self.look.window(*self.extent())
        if not self.look.zoom:
            self.closer = self.asked_closer = None
            return
        held = self.asked_closer
        if held is not None and held.serves(window) and not again:
            return
        reach = self.asked_closer = Reach.around(window)
        source, job_id = self.deck.source, self.job_id
        self.deck.fetch(
            "closer",
            lambda: (reach, source.series(job_id, CLOSER_POINTS, reach.begin, reach.end)),
        )

    def metric_lines(self, width: int, height: int) -> list[Line]:
        begin, end = self.extent()
        lines = metrics.lines(
            self.in_window(),
            self.metric,
            self.look,
            begin,
            end,
            width,
            height,
            self.deck.glyphs,
            self.objective,
        )
        return lines or [
            line((" A script logs metrics with", "dim")),
            line("   ", ("import quarterdeck", "key")),
            line("   ", ("quarterdeck.log(step=step, loss=loss)", "key")),
        ]

    def gpu_lines(self, width: int, height: int) -> list[Line]:
        window = self.look.window(*self.extent())
        return job.gpu_lines(self.attempt, self.gpus, self.look, window, width, self.deck.glyphs)

    def title_charts(self) -> None:
        dot = f" {self.deck.glyphs.dot} "
        x0, x1 = self.look.window(*self.extent())
        cross = self.look.cross
        at = [clock(cross, seconds=True)] if cross is not None else []
        self.set_title(
            "metrics", dot.join(["Metrics", self.metric or "none yet", *self.look.words])
        )
        sim = ["sim"] if any(job.simulated(uuid) for uuid in self.gpus) else []
        span = f"{clock(x0)}-{clock(x1)}"
        self.set_title("gpus", dot.join(["GPU util", *(at or [span]), *sim]))

    def redraw_charts(self) -> None:
        for name in ("metrics", "gpus"):
            self.query_one(f"#{name}", Panel).redraw()
        self.title_charts()

    def _look_at(self, look: Look) -> None:
        self.look = look
        self.look_closer()
        self.redraw_charts()

    # The crosshair.

    @on(ChartPanel.Moved)
    def _cross_moved(self, message: ChartPanel.Moved) -> None:
        self._look_at(self.look.moved(message.by, *self.extent()))
        if self.look.cross is not None:
            self.desks["logs"].at(self.look.cross)

    @on(ChartPanel.Pointed, "#metrics")
    def _cross_put(self, message: ChartPanel.Pointed) -> None:
        """A click puts the crosshair on the point that is drawn there."""
        size = message.size
        at = metrics.moment_at(
            self.in_window(), self.metric, self.objective, self.look, *self.extent(),
            size.width, size.height, message.x, message.y,
        )  # fmt: skip
        self._put_cross(at)

    @on(ChartPanel.Pointed, "#gpus")
    def _cross_put_on_gpus(self, message: ChartPanel.Pointed) -> None:
        window = self.look.window(*self.extent())
        width = self.query_one(Gpus).drawn_width
        self._put_cross(job.gpu_moment_at(self.attempt, window, width, message.x, message.y))

    def _put_cross(self, at: float | None) -> None:
        if at is not None:
            self._look_at(replace(self.look, cross=at))
            self.desks["logs"].at(at)

    @on(ChartPanel.Opened)
    def _cross_opened(self) -> None:
        if self.look.cross is None:
            self.deck.tell("h and l put the crosshair on a moment; enter shows its log lines.")
        else:
            self.focus_pane("logs")

    def do_chart_clear(self) -> None:
        self._look_at(replace(self.look, cross=None))

    # How it is looked at.

    def do_chart_zoom_in(self) -> None:
        self._look_at(self.look.zoomed(1))

    def do_chart_zoom_out(self) -> None:
        self._look_at(self.look.zoomed(-1))

    def do_chart_log(self) -> None:
        self._look_at(replace(self.look, log=not self.look.log))

    def do_chart_smooth(self) -> None:
        self._look_at(replace(self.look, smooth=(self.look.smooth + 1) % len(SMOOTHINGS)))

    def do_chart_axis(self) -> None:
        self._look_at(replace(self.look, by_time=not self.look.by_time))

    def do_metric_next(self) -> None:
        self._step_metric(1)

    def do_metric_previous(self) -> None:
        self._step_metric(-1)

    def _step_metric(self, by: int) -> None:
        names = metrics.names(self.series, self.objective)
        if names:
            at = names.index(self.metric) if self.metric in names else -by
            self.metric = names[(at + by) % len(names)]
            self.remember_metric(self.metric)
            self.open_tab("metrics")
            self.redraw_charts()

    def remember_metric(self, name: str) -> None:
        """Jobs of the same name open with the same metric."""
        if self.detail is not None:
            held = {**self.deck.memory.session.metrics, self.detail["name"]: name}
            self.deck.memory.note(metrics=held)
