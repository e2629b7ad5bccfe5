"""The pictures of the Sweep screen: what each pane shows, and how it is looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from textual import on
from textual.timer import Timer

from console.tui.actions import PICTURES, bindings
from console.tui.core.draw.format import many, span
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.sweeps import board, plots, rank, space, surface
from console.tui.core.sweeps.plots import Curve, Scene, Strokes
from console.tui.core.sweeps.space import Brush, Dimension
from console.tui.screens.base import Frame
from console.tui.widgets.panel import Panel
from console.tui.widgets.picture import Picture
from jobs.wire.sweepviews import SweepView, TrialView
from jobs.wire.views import GpuView

DEEPEST = 6
"""Zoom is by powers of two."""

SOON = 0.08
"""Seconds after a key until the pictures follow it."""

LEAST_SLICE = 5
"""Lines of a slice below the bars of importance."""

PACE = 10.0
"""The pictures of a sweep are drawn again when this many times what drawing them took has passed: a
sweep of ten thousand trials moves more slowly, but its keys do not."""


class Race(Picture):
    PANE = "race"
    BINDINGS = bindings("race")


class History(Picture):
    PANE = "history"
    BINDINGS = bindings("history")


class Front(Picture):
    PANE = "front"
    BINDINGS = bindings("front")


class Importance(Picture):
    PANE = "importance"
    BINDINGS = bindings("importance")


class Parallel(Picture):
    PANE = "parallel"
    BINDINGS = bindings("parallel")


class Rank(Picture):
    PANE = "rank"
    BINDINGS = bindings("rank")


class Edf(Picture):
    PANE = "edf"
    BINDINGS = bindings("edf")


class Contour(Picture):
    PANE = "contour"
    BINDINGS = bindings("contour")


class PictureActions(Frame):
    """What the pictures show, and what a person does with them."""

    sweep: SweepView | None = None
    scene: Scene | None = None
    curves: Mapping[int, Curve]
    axes: list[Dimension]
    brush: Brush
    axis: int  # of the parallel coordinates, that keys work on
    other: int | None  # the second parameter of the rank plot; None for the most important
    shares: Mapping[str, float] | None  # importance; None before it is known
    zoom: Mapping[str, int]
    lanes: Mapping[str, board.Lane]
    gpus: Mapping[str, tuple[str, GpuView]]
    span: tuple[float, float]  # what the board shows
    names: int  # cells of the lanes' names
    chosen: int | None  # the trial that the cursor is on
    at: float | None  # the moment that is shown; None for the present

    def __init__(self) -> None:
        super().__init__()
        self.curves, self.axes, self.brush, self.axis = {}, [], Brush(), 0
        self.other = None
        self.shares, self.zoom, self.lanes, self.gpus = None, {}, {}, {}
        self.chosen = None
        self.span, self.names = (0.0, 1.0), 4
        self._strokes = Strokes()
        self._grounds: dict[str, tuple[object, plots.Picture]] = {}
        self._drawn, self._took = 0.0, 0.0
        self._later: Timer | None = None

    # Lines out.

    def _picture(
        self,
        name: str,
        width: int,
        height: int,
        draw: Callable[[Scene], plots.Picture],
        *more: object,
    ) -> list[Line]:
        """A picture: all trials are drawn again only when they have changed, the chosen one each time.

        Args:
            draw: makes it.
            more: what else it hangs on besides the scene and its size.
        """
        scene = self.scene
        if scene is None:
            return [line((" connecting", "dim"))]
        key = (id(scene), width, height, *more)
        held = self._grounds.get(name)
        if held is None or held[0] != key:
            held = self._grounds[name] = (key, draw(scene))
        return held[1](self.one())

    def race_lines(self, width: int, height: int) -> list[Line]:
        glyphs, zoom = self.deck.glyphs, self.zoom.get("race", 0)
        return self._picture(
            "race",
            width,
            height,
            lambda scene: plots.race(
                scene, self.curves, width, height, glyphs, self._strokes, zoom
            ),
            zoom,
        )

    def history_lines(self, width: int, height: int) -> list[Line]:
        glyphs, zoom = self.deck.glyphs, self.zoom.get("history", 0)
        return self._picture(
            "history",
            width,
            height,
            lambda scene: plots.history(scene, width, height, glyphs, zoom),
            zoom,
        )

    def front_lines(self, width: int, height: int) -> list[Line]:
        glyphs = self.deck.glyphs
        return self._picture(
            "front", width, height, lambda scene: plots.front_lines(scene, width, height, glyphs)
        )

    def importance_lines(self, width: int, height: int) -> list[Line]:
        glyphs = self.deck.glyphs
        names = [axis.name for axis in self.axes if axis.name]
        axis = self._chosen_axis()
        out = space.importance(self.shares, names, axis.name if axis else "", width, glyphs)
        rest = height - len(out) - 1
        if axis is not None and axis.name and rest >= LEAST_SLICE:
            out += [
                BLANK,
                *self._picture(
                    "slice",
                    width,
                    rest,
                    lambda scene: space.slice_of(scene, axis, width, rest, glyphs),
                    self.axis,
                ),
            ]
        return out

    def parallel_lines(self, width: int, height: int) -> list[Line]:
        glyphs = self.deck.glyphs
        return self._picture(
            "parallel",
            width,
            height,
            lambda scene: space.parallel(
                scene, self.axes, self.brush, self.axis, width, height, glyphs
            ),
            self.axis,
        )

    def _pair(self) -> tuple[int, int] | None:
        return rank.pair(self.axes, self.axis, self.other, self.shares)

    def rank_lines(self, width: int, height: int) -> list[Line]:
        glyphs, chosen = self.deck.glyphs, self._pair()
        if chosen is None:
            return [line((" It takes a sweep of two parameters.", "dim"))]
        across, up = (self.axes[index] for index in chosen)
        return self._picture(
            "rank",
            width,
            height,
            lambda scene: rank.rank(scene, across, up, width, height, glyphs),
            chosen,
        )

    def edf_lines(self, width: int, height: int) -> list[Line]:
        glyphs = self.deck.glyphs
        return self._picture(
            "edf", width, height, lambda scene: surface.edf(scene, width, height, glyphs)
        )

    def contour_lines(self, width: int, height: int) -> list[Line]:
        glyphs, chosen = self.deck.glyphs, self._pair()
        if chosen is None:
            return [line((" It takes a sweep of two parameters.", "dim"))]
        across, up = (self.axes[index] for index in chosen)
        return self._picture(
            "contour",
            width,
            height,
            lambda scene: surface.contour(scene, across, up, width, height, glyphs),
            chosen,
        )

    def lane_row(self, key: str, width: int) -> Line:
        lane = self.lanes.get(key)
        if lane is None:
            return ()
        gpu = self.gpus.get(lane.gpu or "")
        return board.lane_line(
            lane,
            gpu[1] if gpu and self.at is None else None,
            *self.span,
            self.names,
            width,
            self.deck.glyphs,
            self.chosen,
        )

    def redraw_pictures(self, *, now: bool = True) -> None:
        """Draw what has changed.

        Args:
            now: at once; else, of a large sweep, when it may be drawn again.
        """
        wait = 0.0 if now else self._drawn + PACE * self._took - time.monotonic()
        if wait <= 0:
            self._draw()
        elif self._later is None:
            self._later = self.set_timer(wait, self._draw)

    def redraw_soon(self) -> None:
        """Draw when no key has been pressed for a moment: a cursor that runs through the table is not
        held up by pictures, nor is a slow link filled with them."""
        if self._later is not None:
            self._later.stop()
        self._later = self.set_timer(SOON, self._draw)

    @property
    def pending(self) -> bool:
        return self._later is not None

    def _draw(self) -> None:
        if self._later is not None:
            self._later.stop()
            self._later = None
        if not self.alive:
            return
        began = time.monotonic()
        for name in PICTURES:
            self.query_one(f"#{name}", Panel).redraw()
        self._drawn = time.monotonic()
        self._took = self._drawn - began
        self._title_pictures()

    def _title_pictures(self) -> None:
        dot = f" {self.deck.glyphs.dot} "
        scene = self.scene
        if scene is None:
            return
        metric = scene.objectives[0]["metric"]
        log = ["log"] if scene.log else []

        def zoom(name: str) -> list[str]:
            return [f"best x{2 ** self.zoom[name]}"] if self.zoom.get(name) else []

        count = sum(1 for t in scene.trials if self.curves.get(t["number"]))
        most = [f"newest {plots.MOST_CURVES} of {count}"] if count > plots.MOST_CURVES else []
        self.set_title("race", dot.join(["Race", metric, *most, *zoom("race"), *log]))
        by = ["by time"] if scene.by_time else []
        self.set_title("history", dot.join(["History", *by, *zoom("history"), *log]))
        both = " by ".join(objective["metric"] for objective in scene.objectives[1::-1])
        self.set_title("front", dot.join(["Front", both]))
        self.set_title("importance", "Importance")
        self.set_title("rank", dot.join(["Rank", *self._rank_words(scene)]))
        self.set_title("edf", dot.join(["EDF", metric, *log]))
        self.set_title("contour", dot.join(["Contour", *self._contour_words(scene)]))
        told = self.brush.words({axis.name: axis for axis in self.axes}, metric)
        trials = len(scene.trials)
        some = [f"newest {space.MOST_LINES}"] if trials > space.MOST_LINES else []
        self.set_title("parallel", dot.join(["Parallel", *some, *([told] if told else [])]))

    def _rank_words(self, scene: Scene) -> list[str]:
        if (chosen := self._pair()) is None:
            return []
        across, up = (self.axes[index] for index in chosen)
        missing = rank.without(scene, across, up)
        return [f"{up.name} by {across.name}", *([f"{missing} without both"] if missing else [])]

    def _contour_words(self, scene: Scene) -> list[str]:
        if (chosen := self._pair()) is None:
            return []
        across, up = (self.axes[index].name for index in chosen)
        many_ = len(surface.ended_well(scene.trials))
        some = [f"newest {surface.MOST_TRIALS}"] if many_ > surface.MOST_TRIALS else []
        return ["means", f"{up} by {across}", *some]

    def title_board(self) -> None:
        dot = f" {self.deck.glyphs.dot} "
        gpus = len({lane.gpu for lane in self.lanes.values() if lane.gpu})
        what = many(gpus, "GPU") if gpus else many(len(self.lanes), "place")
        sim = ["sim"] if any(gpu["simulated"] for _, gpu in self._board_gpus()) else []
        begin, end = self.span
        title = dot.join(["Board", what, *sim, f"last {span(end - begin)}"])
        self.set_title("board", title if self.lanes else "Board")

    def _board_gpus(self) -> Sequence[tuple[str, GpuView]]:
        uuids = {lane.gpu for lane in self.lanes.values() if lane.gpu}
        return [self.gpus[uuid] for uuid in uuids if uuid in self.gpus]

    # How it is looked at.

    def one(self) -> TrialView | None:
        """The trial that the cursor is on."""
        raise NotImplementedError

    def look_again(self) -> None:
        """Work out the scene anew, and show it."""
        raise NotImplementedError

    def step_trial(self, by: int) -> None:
        """Choose the trial that many rows on."""
        raise NotImplementedError

    def step_number(self, by: int) -> None:
        """Choose the trial before or after in the order of their numbers."""
        raise NotImplementedError

    def choose_number(self, number: int) -> None:
        """Choose a trial by its number."""
        raise NotImplementedError

    def open_trial(self) -> None:
        raise NotImplementedError

    @on(Picture.Stepped)
    def _stepped(self, message: Picture.Stepped) -> None:
        if isinstance(message.picture, Rank | Contour):
            self._step_rank(message.right, message.down)
        elif message.down:
            if isinstance(message.picture, Importance):
                self._step_axis(message.down, by_importance=True)
            else:
                self.step_trial(message.down)
        elif isinstance(message.picture, Parallel | Importance):
            self._step_axis(message.right, by_importance=isinstance(message.picture, Importance))
        elif isinstance(message.picture, Edf):
            self._step_value(message.right)
        elif isinstance(message.picture, History):
            self.step_number(message.right)
        else:
            self.step_trial(message.right)

    def _step_value(self, by: int) -> None:
        """Choose the trial with the next greater value, or the next smaller one."""
        scene, one = self.scene, self.one()
        if scene is None:
            return
        known = sorted(surface.ended_well(scene.trials), key=lambda pair: pair[1])
        if not known:
            return
        numbers = [trial["number"] for trial, _ in known]
        at = numbers.index(one["number"]) + by if one and one["number"] in numbers else 0
        self.choose_number(numbers[max(0, min(len(numbers) - 1, at))])

    def _step_axis(self, by: int, *, by_importance: bool) -> None:
        order = list(range(len(self.axes)))
        if not order:
            return
        if by_importance:
            shares = self.shares or {}
            order = [i for i in order if self.axes[i].name]
            order.sort(key=lambda i: -shares.get(self.axes[i].name, 0.0))
        at = order.index(self.axis) if self.axis in order else -by
        self.axis = order[(at + by) % len(order)]
        self.redraw_pictures()

    def _step_rank(self, right: int, down: int) -> None:
        """Another parameter across, or up; the two are never the same."""
        if (chosen := self._pair()) is None:
            return
        across, up = chosen
        names = [index for index, axis in enumerate(self.axes) if axis.name]
        if right:
            names.remove(up)
            across = names[(names.index(across) + right) % len(names)]
        else:
            names.remove(across)
            up = names[(names.index(up) + down) % len(names)]
        self.axis, self.other = across, up
        self.redraw_pictures()

    @on(Picture.Opened)
    def _picture_opened(self) -> None:
        self.open_trial()

    def do_sweep_zoom_in(self) -> None:
        self._zoom(1)

    def do_sweep_zoom_out(self) -> None:
        self._zoom(-1)

    def _zoom(self, by: int) -> None:
        pane = self.focused.id if self.focused is not None else None
        if pane is not None:
            least = -DEEPEST if pane == "board" else 0
            self.zoom = {**self.zoom, pane: max(least, min(DEEPEST, self.zoom.get(pane, 0) + by))}
            self.look_again()

    # The brush.

    def _chosen_axis(self) -> Dimension | None:
        return self.axes[self.axis] if self.axis < len(self.axes) else None

    def _brush_with(self, brush: Brush) -> None:
        if brush != self.brush:
            self.brush = brush
            self.look_again()

    def do_brush_set(self) -> None:
        axis, scene = self._chosen_axis(), self.scene
        if axis is None or scene is None:
            return
        trial = self.one() or next((t for t in scene.trials if t["number"] == scene.best), None)
        self._brush_with(self.brush.toggled(axis, space.place(trial, axis) if trial else None))

    def do_brush_up(self) -> None:
        if (axis := self._chosen_axis()) is not None:
            self._brush_with(self.brush.moved(axis, 1))

    def do_brush_down(self) -> None:
        if (axis := self._chosen_axis()) is not None:
            self._brush_with(self.brush.moved(axis, -1))

    def do_brush_wider(self) -> None:
        if (axis := self._chosen_axis()) is not None:
            self._brush_with(self.brush.widened(axis, 1))

    def do_brush_narrower(self) -> None:
        if (axis := self._chosen_axis()) is not None:
            self._brush_with(self.brush.widened(axis, -1))

    def do_brush_clear(self) -> None:
        self._brush_with(Brush())
