"""One sweep: its board, its trials, and its pictures, all of which show the same chosen trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core.base.world import World
from console.tui.core.draw.format import clock
from console.tui.core.draw.lines import Line, line
from console.tui.core.sweeps import board, plots, replay, space, words
from console.tui.core.sweeps import trials as table_of
from console.tui.core.sweeps.curves import MOST, Curves
from console.tui.core.sweeps.plots import Curve, Scene
from console.tui.screens.lists import Head
from console.tui.screens.sweeppictures import (
    Contour,
    Edf,
    Front,
    History,
    Importance,
    Parallel,
    Race,
    Rank,
)
from console.tui.screens.sweeptable import Board, TrialActions, Trials
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from jobs.base.errors import QuarterdeckError
from jobs.wire.sweepviews import SWEEP_ENDED, CurveView, SweepView, TrialView

POINTS = 60
"""Points of a learning curve: a chart in a terminal has not many more columns."""

REFRESH = 2.0
"""Seconds between two looks at the curves of what runs; between them they grow by what is watched."""

WEIGH = 10.0
"""The same for importance, which takes the controller a moment."""

LEAST_TABLE = 8
"""Lines that the board leaves for the trials."""

PANES = (
    "board",
    "trials",
    "race",
    "front",
    "history",
    "parallel",
    "importance",
    "rank",
    "contour",
    "edf",
)


class SweepScreen(TrialActions):
    NAME = "Sweeps"
    SCOPE = "sweep"
    PANES = PANES
    TABS = PANES
    BINDINGS = bindings("sweep")
    AUTO_FOCUS = "#table"

    def __init__(self, sweep_id: str) -> None:
        super().__init__()
        self.sweep_id = sweep_id
        self._spec: Mapping[str, Any] = {}
        self._seen: object = None  # the snapshot that `_sorted` is made from
        self._sorted: Sequence[TrialView] = ()  # in the order of their numbers
        self._asked: dict[str, float] = {}
        self._curves = Curves()
        self._complete = -1  # trials that were complete when importance was asked for

    @property
    def place(self) -> str:
        return self.sweep_id

    @property
    def topics(self) -> tuple[str, ...]:
        return (f"sweep:{self.sweep_id}", "nodes")

    def crumbs(self) -> tuple[str, ...]:
        return (self.NAME, f"{self.sweep_id} {self.sweep['name'] if self.sweep else ''}".rstrip())

    def body(self) -> Iterable[Widget]:
        yield Panel(self._summary, id="summary", focusable=False)
        trials = Vertical(
            Head(self._head, id="trialhead", focusable=False),
            Trials(self._row, id="table"),
            id="trials",
        )
        left = Vertical(Board(self.lane_row, id="board"), trials, id="left", classes="column")
        pictures = Vertical(
            Race(self.race_lines, id="race"),
            Parallel(self.parallel_lines, id="parallel"),
            History(self.history_lines, id="history"),
            Front(self.front_lines, id="front"),
            Edf(self.edf_lines, id="edf"),  # in a wide terminal it has the place of the history
            Importance(self.importance_lines, id="importance"),
            Rank(self.rank_lines, id="rank"),
            Contour(self.contour_lines, id="contour"),
            id="pictures",
            classes="column",
        )
        yield Horizontal(left, pictures, id="body")
        yield Prompt("/", "state:run value>0.9 lr<0.01 !sgd", id="filter")

    # Panes.

    @property
    def several(self) -> bool:
        """Whether it has several objectives."""
        return self.sweep is not None and len(self.sweep["objectives"]) > 1

    def panes(self) -> tuple[str, ...]:
        return PANES if self.several else tuple(name for name in PANES if name != "front")

    def groups(self) -> tuple[tuple[str, ...], ...]:
        if self.compact or self._full:
            rest = (name for name in self.panes() if name != "trials")
            return (("trials", *rest),)
        front = ("front",) if self.several else ()
        if self.has_class("-wide"):
            return ((*front, "history", "edf"), ("importance", "rank", "contour"))
        return ((*front, "history", "parallel", "importance", "rank", "contour", "edf"),)

    def do_pane_full(self) -> None:
        focused = self.focused
        here = next(
            (p for p in self.panes() if (w := self.pane(p)) is not None and w.has_focus_within),
            None,
        )
        self._full = not self._full
        self.set_class(self._full, "-full")
        if here is not None:
            self._recent = [*(pane for pane in self._recent if pane != here), here]
        self._lay_out_tabs()
        if focused is not None:
            focused.focus()

    # Snapshots in.

    def show(self, world: World) -> None:
        held = world.sweep.get(self.sweep_id)
        if held is not None and self.sweep_id in held:
            self._take(held)
        self.gpus = board.gpus_by_uuid(world.nodes.values())
        if self.sweep is not None:
            self._see(now=False)
            self.tick()
        else:
            self.query_one(Trials).set_keys([], self._nothing(world))
        self.query_one("#summary", Panel).redraw()

    def _take(self, held: Mapping[str, Any]) -> None:
        if held is self._seen:
            return
        before, self._seen = self._seen, held
        sweep = held[self.sweep_id]
        several = self.several
        self._present = cast("SweepView", sweep)
        if "spec" in sweep:
            self._spec = sweep["spec"]
        known = [value for key, value in held.items() if key != self.sweep_id]
        known.sort(key=lambda trial: trial["number"])
        self._sorted = known
        self._curves.grow(known)
        if self.sweep is None:
            self.sweep = self._present
        if before is None or several != self.several:
            self._lay_out_tabs()

    def _see(self, *, now: bool) -> None:
        """Work out what there is to be seen: the present, or the moment of the replay."""
        trials, sweep = self._sorted, self._present
        curves: Mapping[int, Curve] = self._curves.known
        if self.at is not None:
            trials = replay.trials_at(trials, curves, self.at)
            sweep = replay.sweep_at(sweep, trials, self.at)
            known = ((t, curves.get(t["number"], ())) for t in self._sorted)
            curves = {t["number"]: replay.curve_at(t, c, self.at) for t, c in known}
        self.sweep, self.curves = sweep, curves
        key = (id(self._seen), self._curves.reads, self.at, self.brush, self.look, str(self.zoom))
        changed = now or key != self._key
        if changed:
            self._key = key
            self._work_out(sweep, trials)
        self._show_table()
        self._show_board(sweep)
        if changed:
            self.redraw_pictures(now=now)

    def _work_out(self, sweep: SweepView, trials: Sequence[TrialView]) -> None:
        objective = sweep["objectives"][0]
        complete = [t["values"][0] for t in trials if t["state"] == "COMPLETE" and t["values"]]
        quality = words.Quality(complete, objective)
        best = table_of.best(trials, objective)
        found = self._space()
        self.axes = space.dimensions(found, trials, objective, log=self.look.log)
        self.axis = min(self.axis, len(self.axes) - 1)
        axes = {axis.name: axis for axis in self.axes}
        passing = None
        if self.brush:
            passing = frozenset(t["number"] for t in trials if self.brush.passes(t, axes))
        self.best = best
        self.front = plots.front(trials, sweep["objectives"]) if self.several else []
        self.scene = Scene(
            trials,
            sweep["objectives"],
            quality,
            best["number"] if best else None,
            passing,
            self.look.log,
            self.look.by_time,
        )
        known, self._columns = (
            self._columns,
            table_of.columns(
                list(found),
                sweep["objectives"],
                quality,
                self.shares or {},
                lineage=any(trial["parent"] is not None for trial in trials),
            ),
        )
        if not known:
            self._order = self.remembered()
        self._by_number = {str(t["number"]): t for t in trials}

    def _space(self) -> Mapping[str, Mapping[str, Any]]:
        """The search space; of a sweep whose file is not known, what was ever tried, also in a replay of
        the time before it was."""
        found: dict[str, Any] = dict(self._spec.get("space") or {})
        return found or {name: {} for t in self._sorted for name in t["params"]}

    def _show_board(self, sweep: SweepView) -> None:
        scene, pane = self.scene, self.query_one(Board)
        if scene is None:
            return
        now = self.deck.clock.wall()
        begin, end = replay.extent(sweep, scene.trials, now)
        if self.at is not None:
            end = self.at
        elif sweep["state"] not in SWEEP_ENDED:
            end = max(end, now)
        room = max(10, pane.room.width - self.names - 7)
        width = board.window(scene.trials, begin, end, room, self.zoom.get("board", 0))
        self.span = (end - width, end)
        found = board.lanes(scene.trials, self.gpus, *self.span)
        self.names = max((len(lane.name) for lane in found), default=4)
        self.lanes = {lane.key: lane for lane in found}
        pane.set_keys(list(self.lanes), [line((" No trial has begun yet.", "dim"))])
        self.title_board()
        if self.compact or self._full:
            pane.styles.height = "1fr"
            return
        column = self.query_one("#left").size.height
        pane.styles.height = max(3, min(len(self.lanes) + 1, column - LEAST_TABLE, column // 2))

    def _nothing(self, world: World) -> list[Line]:
        topic = f"sweep:{self.sweep_id}"
        if topic in world.refused:
            return [
                line((f" {world.refused[topic]}", "error")),
                line(" ", ("3", "key"), (" lists the sweeps there are.", "dim")),
            ]
        if world.link.tries:
            return [line((f" {world.link.error}", "error")), line((f" {world.link.hint}", "dim"))]
        return [
            line((" reading the sweep" if world.link.phase == "open" else " connecting", "dim"))
        ]

    # Lines out.

    def _summary(self, width: int, height: int) -> list[Line]:
        if self.sweep is None:
            return []
        now = self.deck.clock.wall() if self.at is None else self.at
        out = words.summary(self.sweep, self.best, self.front, now, width, self.deck.glyphs)
        if self.at is not None:
            told = f"replay of {clock(self.at, seconds=True)}, R ends it"
            out[2] = (*line((f" {told} ", "found"), " "), *out[2])
        return out

    # Fetches.

    def tick(self) -> None:
        if self.sweep is None or self.scene is None:
            return
        now = self.deck.clock.mono()
        source, name = self.deck.source, self.sweep_id
        wanted = self._curves.wanted(self._sorted)
        if (wanted or not self._curves.reads) and self._due("curves", now, REFRESH):
            some = [*wanted] if self._curves.reads else []
            self.deck.fetch(
                "curves", lambda: (wanted, source.sweep_curves(name, POINTS, MOST, some))
            )
        complete = self._present["counts"]["complete"]
        if complete != self._complete and self._due("importance", now, WEIGH):
            self._complete = complete
            self.deck.fetch("importance", lambda: source.importance(name))

    def _due(self, what: str, now: float, every: float) -> bool:
        if now - self._asked.get(what, -every) < every:
            return False
        self._asked[what] = now
        return True

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        if error is not None:
            if key == "save":
                self.deck.tell(f"{error.message}", severity="error")
            return  # the badge tells; what is shown stays
        if key == "curves":
            asked, read = cast("tuple[dict[int, str], list[CurveView]]", value)
            self._curves.take(asked, read)
        elif key == "importance":
            self.shares = value
        else:
            super().fetched(key, value, error)
            return
        self._key = None
        self._see(now=True)

    def look_again(self) -> None:
        if self.sweep is not None:
            self._see(now=True)
            self.query_one("#summary", Panel).redraw()

    def do_app_back(self) -> None:
        if self.at is not None:
            self.do_sweep_replay()
        elif self._full:
            self.do_pane_full()
        elif not self.narrowed():
            if self.brush:
                self.do_brush_clear()
            else:
                self.deck.do_app_back()
