"""One sweep: its board, its trials, and its pictures, all of which show the same chosen trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from textual import events, on
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from console.tui.actions import bindings
from console.tui.core import sweepboard as board
from console.tui.core import sweepplots as plots
from console.tui.core import sweepreplay as replay
from console.tui.core import sweepspace as space
from console.tui.core import sweeptrials as table_of
from console.tui.core import sweepwords as words
from console.tui.core import table
from console.tui.core.format import clock, many
from console.tui.core.lines import BLANK, Line, line
from console.tui.core.order import Order
from console.tui.core.sweepplots import Curve, Scene
from console.tui.core.table import Column
from console.tui.core.world import World
from console.tui.screens.sweepacts import SweepActions
from console.tui.screens.sweeppictures import Front, History, Importance, Parallel, Race
from console.tui.widgets.marks import Marked
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows
from jobs.errors import QuarterdeckError
from jobs.sweepviews import SWEEP_ENDED, CurveView, SweepView, TrialView

POINTS = 60
"""Points of a learning curve: a chart in a terminal has not many more columns."""

CURVES = 2000
"""Trials whose curves are read, the newest."""

REFRESH = 2.0
"""Seconds between two looks at the curves of what runs; between them they grow by what is watched."""

WEIGH = 10.0
"""The same for importance, which takes the controller a moment."""

AT_ONCE = 100
"""Curves that are read anew at once."""

LEAST_TABLE = 8
"""Lines that the board leaves for the trials."""

PANES = ("board", "trials", "race", "front", "history", "parallel", "importance")


class Board(Rows):
    PANE = "board"
    BINDINGS = bindings("board")


class Trials(Rows):
    PANE = "trials"
    BINDINGS = bindings("trials")


class TrialHead(Panel):
    """The names of the columns, which sort when they are clicked."""

    class Clicked(Message):
        def __init__(self, x: int) -> None:
            super().__init__()
            self.x = x

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Clicked(event.x))


class SweepScreen(SweepActions):
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
        self._seen: object = None  # the snapshot of trials that `_all` is made from
        self._sorted: Sequence[TrialView] = ()  # in the order of their numbers
        self._columns: tuple[Column[TrialView], ...] = ()
        self._filter = table_of.trial_filter("", (), ())
        self._order = Order()
        self._asked: dict[str, float] = {}
        self._all: dict[int, Curve] = {}  # curves as far as they are known
        self._read: dict[int, str] = {}  # trial -> its state when its curve was asked for
        self._reads = 0
        self._complete = -1  # trials that were complete when importance was asked for
        self._full = False  # one pane has the whole screen

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
            TrialHead(self._head, id="trialhead", focusable=False),
            Trials(self._row, id="table"),
            id="trials",
        )
        left = Vertical(Board(self.lane_row, id="board"), trials, id="left", classes="column")
        pictures = Vertical(
            Race(self.race_lines, id="race"),
            Parallel(self.parallel_lines, id="parallel"),
            History(self.history_lines, id="history"),
            Front(self.front_lines, id="front"),
            Importance(self.importance_lines, id="importance"),
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
            return ((*front, "history"),)
        return ((*front, "history", "parallel", "importance"),)

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
        for trial in known:
            self._grow(trial)
        if self.sweep is None:
            self.sweep = self._present
        if before is None or several != self.several:
            self._lay_out_tabs()

    def _grow(self, trial: TrialView) -> None:
        """A curve gets the point that the watch has told."""
        step, value = trial["step"], trial["last"]
        if step is None or value is None:
            return
        curve = cast("list[tuple[int, float]]", self._all.setdefault(trial["number"], []))
        if not curve or curve[-1][0] < step:
            curve.append((step, value))

    def _see(self, *, now: bool) -> None:
        """Work out what there is to be seen: the present, or the moment of the replay."""
        trials, sweep, curves = self._sorted, self._present, self._all
        if self.at is not None:
            trials = replay.trials_at(trials, curves, self.at)
            sweep = replay.sweep_at(sweep, trials, self.at)
            known = ((t, curves.get(t["number"], ())) for t in self._sorted)
            curves = {t["number"]: replay.curve_at(t, c, self.at) for t, c in known}
        self.sweep, self.curves = sweep, curves
        key = (id(self._seen), self._reads, self.at, self.brush, self.look, str(self.zoom))
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
        found = self._space(trials)
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
        self._columns = table_of.columns(
            list(found),
            sweep["objectives"],
            quality,
            self.shares or {},
            lineage=any(trial["parent"] is not None for trial in trials),
        )
        self._by_number = {str(t["number"]): t for t in trials}

    def _space(self, trials: Sequence[TrialView]) -> Mapping[str, Mapping[str, Any]]:
        """The search space; of a sweep whose file is not known, what was tried."""
        found: dict[str, Any] = dict(self._spec.get("space") or {})
        return found or {name: {} for t in trials for name in t["params"]}

    def _show_table(self) -> None:
        scene = self.scene
        assert scene is not None and self.sweep is not None
        passing = scene.brushed

        def wanted(trial: TrialView) -> bool:
            inside = passing is None or trial["number"] in passing
            return inside and self._filter.matches(trial)

        key = (self._key, self._filter.text, self._order)
        if key != self._row_key:
            self._row_key = key
            self._keys = table_of.rows(
                scene.trials, wanted, scene.objectives, self._columns, self._order
            )
        self.query_one(Trials).set_keys(self._keys, self._no_trial())
        self.query_one("#trialhead", Panel).redraw()
        dot = f" {self.deck.glyphs.dot} "
        parts = ["Trials", words.counted(len(self._keys), len(scene.trials), "trial")]
        parts += [f"/{self._filter.text}"] if self._filter.text else []
        parts += [self._filter.problem] if self._filter.problem else []
        if self.brush:
            axes = {axis.name: axis for axis in self.axes}
            parts.append(f"brush {self.brush.words(axes, scene.objectives[0]['metric'])}")
        if hidden := len(self._columns) - len(self._layout()):
            parts.append(f"{many(hidden, 'column')} more" + ("" if self._full else " with z"))
        if marked := len(self.query_one(Trials).marked):
            parts.append(f"{marked} marked")
        self.set_title("trials", dot.join(parts))
        self._choose()

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

    def _no_trial(self) -> list[Line]:
        if self.scene is not None and self.scene.trials:
            told = " No trial matches. "
            return [line((told, "dim"), ("esc", "key"), (" shows all.", "dim"))]
        return [line((" The first trials are being asked for.", "dim"))]

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

    def _layout(self) -> list[tuple[Column[TrialView], int]]:
        return table.arrange(self._columns, self.query_one("#trials").size.width - 2)

    def _head(self, width: int, height: int) -> list[Line]:
        return [table.head(self._layout(), self.deck.glyphs, self._order)] if self._columns else []

    def _row(self, key: str, width: int) -> Line:
        trial = self._by_number.get(key)
        if trial is None:
            return BLANK
        now = self.deck.clock.wall() if self.at is None else self.at
        return table.row_line(trial, self._layout(), now, self.deck.glyphs)

    # Fetches.

    def tick(self) -> None:
        if self.sweep is None or self.scene is None:
            return
        now = self.deck.clock.mono()
        source, name = self.deck.source, self.sweep_id
        if not self._read:
            states: dict[int, str] = {-1: ""}  # so that it is not empty without trials
            states |= {t["number"]: t["state"] for t in self._sorted[-CURVES:]}
            if self._due("all", now, REFRESH):
                self.deck.fetch(
                    "curves", lambda: (states, source.sweep_curves(name, POINTS, CURVES))
                )
        elif (stale := self._stale()) and self._due("curves", now, REFRESH):
            self.deck.fetch(
                "curves", lambda: (stale, source.sweep_curves(name, POINTS, AT_ONCE, [*stale]))
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

    def _stale(self) -> dict[int, str]:
        """Trials whose curves were read before they had ended, and their states now; what runs is read
        once, and then grows."""
        out = {}
        for trial in reversed(self._sorted[-CURVES:]):
            if trial["step"] is not None and self._read.get(trial["number"]) != trial["state"]:
                out[trial["number"]] = trial["state"]
                if len(out) == AT_ONCE:
                    break
        return out

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        if error is not None:
            if key == "save":
                self.deck.tell(f"{error.message}", severity="error")
            return  # the badge tells; what is shown stays
        if key == "curves":
            states, curves = cast("tuple[dict[int, str], list[CurveView]]", value)
            self._read.update(states)
            for curve in curves:
                points = [(step, at) for step, at in curve["points"]]
                held = self._all.get(curve["number"], [])
                if points and held and held[-1][0] > points[-1][0]:
                    points.append(held[-1])  # the watch was faster
                self._all[curve["number"]] = points or held
            self._reads += 1
        elif key == "importance":
            self.shares = value
        else:
            super().fetched(key, value, error)
            return
        self._key = None
        self._see(now=True)

    # The chosen trial.

    def _chosen_number(self) -> int | None:
        key = self.query_one(Trials).cursor_key
        return int(key) if key is not None else None

    def _choose(self) -> None:
        chosen = self._chosen_number()
        if self.chosen != chosen:
            self.chosen = chosen
            self.query_one(Board).update_lines()
            self.redraw_soon()

    def picked(self) -> list[TrialView]:
        keys = self.query_one(Trials).chosen
        return [self._by_number[key] for key in keys if key in self._by_number]

    def step_trial(self, by: int) -> None:
        rows = self.query_one(Trials)
        if by > 0:
            rows.do_move_down()
        else:
            rows.do_move_up()

    def step_number(self, by: int) -> None:
        numbers = sorted(int(key) for key in self.query_one(Trials).keys)
        chosen = self._chosen_number()
        if numbers:
            at = numbers.index(chosen) + by if chosen in numbers else 0
            self.query_one(Trials).select(str(numbers[max(0, min(len(numbers) - 1, at))]))

    @on(Rows.Moved, "#table")
    def _trial_chosen(self) -> None:
        self._choose()

    @on(Rows.Moved, "#board")
    def _lane_chosen(self, message: Rows.Moved) -> None:
        lane = self.lanes.get(message.key)
        if lane is not None and lane.stays:
            self.query_one(Trials).select(str(lane.stays[-1].number))

    @on(Marked.Marks)
    def _marks_changed(self) -> None:
        if self.scene is not None:
            self._show_table()

    @on(Rows.Opened)
    def _row_opened(self, message: Rows.Opened) -> None:
        lane = self.lanes.get(message.key) if message.control.id == "board" else None
        if lane is not None and lane.stays:
            self.query_one(Trials).select(str(lane.stays[-1].number))
            self._choose()  # its message has not come yet
        self.open_trial()

    # Filter and order.

    def look_again(self) -> None:
        if self.sweep is not None:
            self._see(now=True)
            self.query_one("#summary", Panel).redraw()

    def do_trials_filter(self) -> None:
        self.query_one(Prompt).open(self._filter.text)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self._set_filter(message.value)

    @on(Prompt.Closed)
    def _filter_closed(self, message: Prompt.Closed) -> None:
        if not message.kept:
            self._set_filter("")
        self.focus_pane("trials")

    def _set_filter(self, text: str) -> None:
        names = [axis.name for axis in self.axes if axis.name]
        objectives = self.sweep["objectives"] if self.sweep else ()
        self._filter = table_of.trial_filter(text, names, objectives)
        self.look_again()

    def do_table_sort(self) -> None:
        self._set_order(self._order.next(table_of.sortable(self._columns)))

    def do_table_turn(self) -> None:
        self._set_order(self._order.turned())

    @on(TrialHead.Clicked)
    def _column_clicked(self, message: TrialHead.Clicked) -> None:
        column = table.column_at(self._layout(), message.x)
        if column is not None and column.order is not None:
            self._set_order(self._order.picked(column.title))

    def _set_order(self, order: Order) -> None:
        self._order = order
        self.look_again()

    def do_app_back(self) -> None:
        rows = self.query_one(Trials)
        if self.at is not None:
            self.do_sweep_replay()
        elif self._full:
            self.do_pane_full()
        elif rows.marked:
            rows.clear_marks()
        elif self._filter.text:
            self._set_filter("")
        elif self.brush:
            self.do_brush_clear()
        else:
            self.deck.do_app_back()
