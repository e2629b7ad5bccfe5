"""Compare: one metric of several jobs in one chart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from textual import on
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core.base.world import World
from console.tui.core.draw.lines import Line, line
from console.tui.core.draw.look import SMOOTHINGS, Look
from console.tui.core.jobs import metrics
from console.tui.screens.base import Frame
from console.tui.widgets.chart import ChartPanel
from console.tui.widgets.panel import Panel
from jobs.base.errors import QuarterdeckError

POINTS = 400
MOST = len(metrics.TONES)
"""Jobs that can be told apart by tone."""

REFRESH = 5.0
"""Seconds between two looks at the metrics; the runs that are compared may still go on."""


class Comparison(ChartPanel):
    PANE = "compare"
    BINDINGS = bindings("compare")


class CompareScreen(Frame):
    """Times count from each run's first point, so that runs of different days lie over each other."""

    NAME = "Compare"
    SCOPE = "comparing"
    PANES = ("compare",)
    BINDINGS = bindings("comparing")
    AUTO_FOCUS = "#compare"

    def __init__(self, job_ids: Sequence[str]) -> None:
        super().__init__()
        self._jobs = tuple(job_ids[:MOST])
        self._left_out = len(job_ids) - len(self._jobs)
        self._runs: dict[str, metrics.Series] = {}
        self._metric: str | None = None
        self._look = Look()
        self._asked = -REFRESH
        self._error = ""

    def crumbs(self) -> tuple[str, ...]:
        return ("Jobs", "Compare " + " ".join(self._jobs))

    def body(self) -> Iterable[Widget]:
        yield Comparison(self._lines, id="compare")

    def show(self, world: World) -> None:
        parts = ["Compare", self._metric or "no metric yet", *self._look.words]
        if self._left_out:
            parts.append(f"{self._left_out} more jobs than can be told apart were left out")
        self.set_title("compare", f" {self.deck.glyphs.dot} ".join(parts))
        self.query_one("#compare", Panel).redraw()
        self.tick()

    def tick(self) -> None:
        now = self.deck.clock.mono()
        if now - self._asked < REFRESH:
            return
        self._asked = now
        source, jobs = self.deck.source, self._jobs
        self.deck.fetch(
            "runs", lambda: {job: metrics.since_start(source.series(job, POINTS)) for job in jobs}
        )

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        self._error = error.message if error else ""
        if error is None:
            self._runs = value
            if self._metric not in self._names():
                self._metric = next(iter(self._names()), None)
        self.show(self.deck.world)

    def _names(self) -> list[str]:
        """Metrics that most of the runs have come first."""
        count: dict[str, int] = {}
        for series in self._runs.values():
            for name in series:
                count[name] = count.get(name, 0) + 1
        return sorted(count, key=lambda name: (-count[name], name))

    def _lines(self, width: int, height: int) -> list[Line]:
        if not self._runs:
            return [line((f" {self._error or 'reading'}", "error" if self._error else "dim"))]
        if self._metric is None:
            return [line((" None of these jobs logged a metric.", "dim"))]
        labels = {
            job: view["name"] for job in self._jobs if (view := self.deck.world.jobs.get(job))
        }
        return metrics.compare_lines(
            self._runs, labels, self._metric, self._look, width, height, self.deck.glyphs
        )

    # What a person does.

    def _look_at(self, look: Look) -> None:
        self._look = look
        self.show(self.deck.world)

    def _length(self) -> float:
        """Seconds of the longest run."""
        ends = [known[1] for s in self._runs.values() if (known := metrics.extent(s))]
        return max(ends, default=1.0)

    @on(ChartPanel.Moved)
    def _cross_moved(self, message: ChartPanel.Moved) -> None:
        self._look_at(self._look.moved(message.by, 0.0, self._length()))

    @on(ChartPanel.Pointed)
    def _cross_put(self, message: ChartPanel.Pointed) -> None:
        """A click puts the crosshair on the point that is drawn there."""
        size = message.size
        at = metrics.compare_moment_at(
            self._runs, self._metric, self._look, size.width, size.height, message.x, message.y
        )
        if at is not None:
            self._look_at(replace(self._look, cross=at))

    def do_app_back(self) -> None:
        """The crosshair first, then the screen."""
        if self._look.cross is not None:
            self.do_chart_clear()
        else:
            self.deck.do_app_back()

    def do_chart_clear(self) -> None:
        self._look_at(replace(self._look, cross=None))

    def do_chart_zoom_in(self) -> None:
        self._look_at(self._look.zoomed(1))

    def do_chart_zoom_out(self) -> None:
        self._look_at(self._look.zoomed(-1))

    def do_chart_log(self) -> None:
        self._look_at(replace(self._look, log=not self._look.log))

    def do_chart_smooth(self) -> None:
        self._look_at(replace(self._look, smooth=(self._look.smooth + 1) % len(SMOOTHINGS)))

    def do_chart_axis(self) -> None:
        self._look_at(replace(self._look, by_time=not self._look.by_time))

    def do_metric_next(self) -> None:
        self._step(1)

    def do_metric_previous(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        names = self._names()
        if names:
            at = names.index(self._metric) if self._metric in names else -by
            self._metric = names[(at + by) % len(names)]
            self.show(self.deck.world)
