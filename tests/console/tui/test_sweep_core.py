"""A sweep in words and pictures: everything that the screen says, as plain values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.tui.core.base import table
from console.tui.core.base.order import Order
from console.tui.core.draw import dots
from console.tui.core.draw.dots import Grid, Layer
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import Line, plain, width
from console.tui.core.sweeps import board, plots, replay, space, words
from console.tui.core.sweeps import list as sweep_list
from console.tui.core.sweeps import trials as trial_table
from console.tui.core.sweeps.curves import Curves
from console.tui.core.sweeps.plots import Scene
from console.tui.core.sweeps.space import Brush, Dimension
from jobs.wire.sweepviews import ObjectiveView, TrialView
from tests.console.tui import fake_sweeps
from tests.console.tui.fake_views import NOW, at, nodes

UP: ObjectiveView = {"metric": "val_acc", "goal": "maximize"}
DOWN: ObjectiveView = {"metric": "ms", "goal": "minimize"}


def scene(trials: list[TrialView], **over: Any) -> Scene:
    complete = [t["values"][0] for t in trials if t["values"]]
    best = trial_table.best(trials, UP)
    number = best["number"] if best else None
    return Scene(trials, [UP], words.Quality(complete, UP), number, **over)


def text(lines: list[Line]) -> str:
    return "\n".join(plain(parts) for parts in lines)


# Dots.


@pytest.mark.parametrize("braille", [True, False])
def test_a_line_touches_every_column_without_a_gap(braille: bool) -> None:
    grid = Grid(12, 6, braille)
    last = grid.width - 1
    bits = grid.polyline([(0, grid.height - 1), (last // 2, 0), (last, grid.height - 1)])
    before: set[int] | None = None
    for x in range(grid.width):
        column = bits >> (x * grid.height) & ((1 << grid.height) - 1)
        rows = {y for y in range(grid.height) if column >> y & 1}
        assert rows
        if before is not None:
            assert min(abs(a - b) for a in rows for b in before) <= 1
        before = rows


@given(st.lists(st.integers(0, 23), min_size=2, max_size=20))
def test_no_line_leaves_its_canvas(rows: list[int]) -> None:
    grid = Grid(20, 6, True)
    points = [(x * 2, y) for x, y in enumerate(rows)]
    assert grid.polyline(points) < 1 << (grid.width * grid.height)
    assert len(dots.render(grid, [Layer(grid.polyline(points), "ok")])) == 6


def test_of_two_layers_in_a_cell_the_upper_one_is_seen() -> None:
    grid = Grid(3, 1, True)
    below, above = grid.polyline([(0, 0), (5, 0)]), grid.polyline([(0, 3), (1, 3)])
    (drawn,) = dots.render(grid, [Layer(below, "faint"), Layer(above, "key")])
    assert [(span.text, span.tone) for span in drawn] == [("⣀", "key"), ("⠉⠉", "faint")]


def test_a_label_is_written_over_dots_and_cut_at_the_edge() -> None:
    grid = Grid(4, 1, True)
    (drawn,) = dots.render(grid, [], {(0, 2): ("#123", "found")})
    assert plain(drawn) == "  #1"


# Words.


def test_how_good_a_value_is_hangs_on_the_goal() -> None:
    assert words.Quality([1.0, 2.0, 3.0], UP).share(3.0) == 1.0
    assert words.Quality([1.0, 2.0, 3.0], DOWN).share(3.0) == 0.0
    assert words.Quality([1.0, 2.0, 3.0], UP).share(9.0) == 1.0
    assert words.Quality([1.0, 2.0, 3.0], DOWN).tone(1.0) == "load4"
    assert words.Quality([], UP).share(5.0) == 1.0


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.00265, "2.7e-3"), (0.1, "0.1"), (0.0, "0"), (123456.0, "1.2e5"), (None, "null"), (7, "7")],
)
def test_values_are_short(value: Any, told: str) -> None:
    assert words.short(value) == told


def test_what_is_left_goes_by_the_pace_or_the_budget() -> None:
    trials = fake_sweeps.trials()
    view = fake_sweeps.sweep(4, trials, trials=72, submitted_at=at(100.0))
    assert words.left(view, NOW) == pytest.approx(100.0)  # 36 of 72
    assert words.left({**view, "time_budget": 130.0}, NOW) == pytest.approx(30.0)
    assert words.left({**view, "state": "PAUSED"}, NOW) is None
    assert words.left({**view, "trials": None}, NOW) is None


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@pytest.mark.parametrize("wide", [20, 80, 200])
def test_the_summary_fits(glyphs: Any, wide: int) -> None:
    trials = fake_sweeps.trials()
    view = fake_sweeps.sweep(4, trials)
    best = trial_table.best(trials, UP)
    for parts in words.summary(view, best, [], NOW, wide, glyphs):
        assert width(parts) <= wide


def test_a_bar_of_progress_has_always_its_width() -> None:
    for many in (1, 5, 39, 40):
        view = fake_sweeps.sweep(4, fake_sweeps.trials()[:many])
        assert width(words.progress(view, 10, UNICODE)) == 10


# The list.


def test_live_sweeps_come_first_and_a_filter_knows_their_fields() -> None:
    known = fake_sweeps.tables()["sweeps"]
    assert sweep_list.rows(known, sweep_list.sweep_filter("")) == ["s4", "s2", "s3", "s1"]
    assert sweep_list.rows(known, sweep_list.sweep_filter("state:run best>0.9")) == ["s4"]
    assert sweep_list.rows(known, sweep_list.sweep_filter("user:chen")) == ["s2"]
    by_best = sweep_list.rows(known, sweep_list.sweep_filter(""), Order("best", descending=True))
    assert by_best[:2] == ["s4", "s2"]


# Trials.


def board_columns(trials: list[TrialView]) -> Any:
    quality = words.Quality([t["values"][0] for t in trials if t["values"]], UP)
    return trial_table.columns(list(fake_sweeps.SPACE), [UP], quality, fake_sweeps.IMPORTANCE)


def test_the_leaderboard_has_what_runs_then_the_best_and_what_waits_last() -> None:
    trials = fake_sweeps.trials()
    columns = board_columns(trials)
    keys = trial_table.rows(trials, lambda t: True, [UP], columns, Order())
    states = [trials[int(key)]["state"] for key in keys]
    assert states[:4] == ["RUNNING", "RUNNING", "RUNNING", "COMPLETE"]
    assert states[-1] == "QUEUED"
    values = [trials[int(key)]["values"] for key in keys if trials[int(key)]["values"]]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]


def test_what_matters_least_leaves_the_table_first_and_the_rest_stays_in_place() -> None:
    columns = board_columns(fake_sweeps.trials())
    wide = [column.title for column, _ in table.arrange(columns, 70)]
    assert "lr" in wide and "optimizer" not in wide
    everything = [column.title for column in columns]
    assert wide == [title for title in everything if title in wide]


def test_where_a_trial_comes_from_matters_when_trials_come_from_each_other() -> None:
    quality = words.Quality([], UP)
    params = list(fake_sweeps.SPACE)
    for lineage in (False, True):
        columns = trial_table.columns(params, [UP], quality, {}, lineage=lineage)
        assert ("from" in [c.title for c, _ in table.arrange(columns, 60)]) == lineage
    copied: TrialView = {**fake_sweeps.trials()[5], "origin": "copied", "parent": 2}
    (cell,) = [column.cell for column in columns if column.title == "from"]
    assert cell(copied, NOW, UNICODE)[0] == "copied #2"


def test_trials_are_sorted_by_a_parameter_that_some_do_not_have() -> None:
    trials = fake_sweeps.trials()
    columns = board_columns(trials)
    keys = trial_table.rows(trials, lambda t: True, [UP], columns, Order("momentum"))
    having = [trials[int(key)]["params"].get("momentum") for key in keys]
    known = [value for value in having if value is not None]
    assert having[: len(known)] == sorted(known)


def test_the_filter_of_trials_knows_parameters() -> None:
    trials = fake_sweeps.trials()
    wanted = "lr<0.01 optimizer:sgd !state:pruned val_acc>0.5"
    found = trial_table.trial_filter(wanted, ["lr", "optimizer"], [UP])
    assert not found.problem
    matching = [t for t in trials if found.matches(t)]
    assert matching
    assert all(t["params"]["lr"] < 0.01 and t["params"]["optimizer"] == "sgd" for t in matching)


def test_the_best_meets_its_constraints() -> None:
    trials = fake_sweeps.trials()
    best = trial_table.best(trials, UP)
    assert best is not None
    rest = [{**t, "feasible": t["number"] != best["number"]} for t in trials]
    second = trial_table.best(rest, UP)  # type: ignore[arg-type]
    assert second is not None and second["number"] != best["number"]


# The board.


def test_each_gpu_is_a_lane_and_no_two_trials_share_a_moment_of_it() -> None:
    trials = fake_sweeps.trials()
    lanes = board.lanes(trials, board.gpus_by_uuid(nodes()), NOW - 600, NOW)
    assert [lane.name for lane in lanes] == ["n01:0", "n01:1", "n01:2", "n01:3"]
    for lane in lanes:
        for one, after in zip(lane.stays, lane.stays[1:], strict=False):
            assert one.end is not None and one.end <= after.begin + 0.05
    assert sorted(lane.now.number for lane in lanes if lane.now) == [36, 37, 38]


def test_trials_that_share_a_gpu_or_have_none_get_lanes_of_their_own() -> None:
    one, two = (fake_sweeps.trial(n, "RUNNING", 0, 30.0) for n in (1, 2))
    shared = board.lanes([one, two], {}, NOW - 60, NOW)
    assert [lane.name for lane in shared] == ["n01:01-0a", "n01:01-0b"]  # an unknown GPU's UUID
    bare = board.lanes([{**one, "gpus": []}, {**two, "gpus": []}], {}, NOW - 60, NOW)
    assert [lane.name for lane in bare] == ["n01.0", "n01.1"]


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_a_lane_has_the_width_of_the_board(glyphs: Any) -> None:
    trials = fake_sweeps.trials()
    gpus = board.gpus_by_uuid(nodes())
    for begin in (NOW - 20, NOW - 90, NOW - 9000):
        for lane in board.lanes(trials, gpus, begin, NOW):
            gpu = gpus[lane.gpu or ""][1]
            drawn = board.lane_line(lane, gpu, begin, NOW, 6, 60, glyphs, 36)
            assert width(drawn) == 60


def test_the_window_shows_usual_trials_wide_enough_and_never_more_than_there_is() -> None:
    trials = fake_sweeps.trials()
    usual = board.window(trials, NOW - 9000, NOW, 50, 0)
    assert usual < 9000
    assert board.window(trials, NOW - 9000, NOW, 50, 1) == pytest.approx(usual / 2)
    assert board.window(trials, NOW - 60, NOW, 5000, 0) == 60


# Pictures.


def pictures(trials: list[TrialView], glyphs: Any, wide: int, high: int) -> list[list[Line]]:
    one = scene(trials)
    curves = {c["number"]: c["points"] for c in fake_sweeps.curves(trials)}
    axes = space.dimensions(fake_sweeps.SPACE, trials, UP, log=False)
    made = (
        plots.race(one, curves, wide, high, glyphs, plots.Strokes()),
        plots.history(one, wide, high, glyphs),
        space.parallel(one, axes, Brush(), 0, wide, high, glyphs),
        space.slice_of(one, axes[0], wide, high, glyphs),
    )
    chosen = trials[0] if trials else None
    return [picture(chosen) for picture in made]


@pytest.mark.parametrize("every", [1, 3])
def test_trials_of_infinite_value_are_drawn_at_the_edge(every: int) -> None:
    trials = fake_sweeps.trials()
    for trial in trials[::every]:
        if trial["values"]:
            trial["values"] = [math.inf if trial["number"] % 2 else -math.inf]
        else:
            trial["last"] = math.inf
    for picture in pictures(trials, UNICODE, 78, 18):
        assert "nan" not in text(picture)


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@pytest.mark.parametrize(("wide", "high"), [(78, 18), (58, 12), (30, 6), (12, 3), (3, 1)])
@pytest.mark.parametrize("many", [0, 1, 40])
def test_pictures_fit_whatever_there_is_to_be_seen(
    glyphs: Any, wide: int, high: int, many: int
) -> None:
    for lines in pictures(fake_sweeps.trials()[:many], glyphs, wide, high):
        assert all(width(parts) <= max(wide, 9) for parts in lines)
        if wide >= 30:
            assert len(lines) <= high


def test_a_diverged_trial_does_not_flatten_the_others() -> None:
    values = [0.9 + i / 1000 for i in range(60)]
    assert plots.value_axis([*values, -1e9], UP, log=False).low >= 0.9
    assert plots.value_axis([1.0, 2.0], UP, log=False) == plots.Axis(1.0, 2.0)


def test_zoom_keeps_the_best_end() -> None:
    assert plots.value_axis([0.0, 8.0], UP, log=False, zoom=2) == plots.Axis(6.0, 8.0)
    assert plots.value_axis([0.0, 8.0], DOWN, log=False, zoom=2) == plots.Axis(0.0, 2.0)


def test_the_race_names_the_best_what_runs_and_the_chosen_one() -> None:
    trials = fake_sweeps.trials()
    curves = {c["number"]: c["points"] for c in fake_sweeps.curves(trials)}
    picture = plots.race(scene(trials), curves, 100, 24, UNICODE, plots.Strokes())
    told = text(picture(trials[20]))
    assert "#12" in told and "#20" in told
    assert "#38" in told


def test_in_a_population_the_race_shows_the_whole_line_of_the_chosen_trial() -> None:
    def turn(number: int, origin: str, parent: int | None, steps: range) -> TrialView:
        view = fake_sweeps.trial(number, "COMPLETE", 0, 60.0)
        curves[number] = [(step, 0.1 * step) for step in steps]
        return {**view, "origin": origin, "parent": parent}  # type: ignore[typeddict-item]

    curves: dict[int, list[tuple[int, float]]] = {}
    trials = [
        turn(0, "drawn", None, range(3)),
        turn(1, "drawn", None, range(3)),
        turn(2, "copied", 0, range(3, 6)),
        turn(3, "rerun", 2, range(3, 6)),
        turn(4, "rerun", 1, range(3)),
    ]
    picture = plots.race(scene(trials), curves, 80, 12, UNICODE, plots.Strokes())

    def lit(trial: TrialView) -> int:
        return sum(len(s.text.strip()) for line in picture(trial) for s in line if s.tone == "key")

    assert lit(trials[2]) > 1.8 * lit(trials[0])
    assert lit(trials[3]) > 1.8 * lit(trials[0])  # begun where the one began that it runs again
    assert lit(trials[4]) < 1.2 * lit(trials[0])  # and that one began with nothing


def test_the_front_holds_what_none_beats() -> None:
    def trial(number: int, first: float, second: float) -> TrialView:
        view = fake_sweeps.trial(number, "COMPLETE", 0, 60.0)
        return {**view, "values": [first, second]}

    trials = [trial(0, 0.9, 9.0), trial(1, 0.8, 5.0), trial(2, 0.7, 7.0), trial(3, 0.9, 8.0)]
    assert [t["number"] for t in plots.front(trials, [UP, DOWN])] == [3, 1]


# Search space and brush.


def test_axes_put_values_where_they_belong() -> None:
    axes = space.dimensions(fake_sweeps.SPACE, fake_sweeps.trials(), DOWN, log=False)
    by_name = {axis.name: axis for axis in axes}
    assert by_name["lr"].share(1e-4) == 0.0
    assert by_name["lr"].share(10**-2.5) == pytest.approx(0.5)
    assert by_name["width"].share(128) == pytest.approx(1 / 3)
    assert by_name["width"].share("128") is None
    assert by_name["layers"].text(0.5) in ("2", "3")
    value = axes[-1]
    assert value.name == space.VALUE and value.flipped
    assert value.text(1.0) == words.short(value.low)  # the least is the best, at the top


def test_true_is_not_one() -> None:
    axis = Dimension("flag", choices=(True, 1, "a"))
    assert axis.share(True) == 0.0
    assert axis.share(1) == 0.5


def test_a_brush_lets_through_what_is_in_all_its_ranges() -> None:
    trials = fake_sweeps.trials()
    axes = {a.name: a for a in space.dimensions(fake_sweeps.SPACE, trials, UP, log=False)}
    brush = Brush().toggled(axes["lr"], 0.5).toggled(axes["momentum"], 0.5)
    passing = [t for t in trials if brush.passes(t, axes)]
    assert passing
    for trial in passing:
        assert "momentum" in trial["params"]  # what has no value is in no range
        assert 0.35 <= (axes["lr"].share(trial["params"]["lr"]) or 0) <= 0.65
    assert not brush.toggled(axes["lr"], None).toggled(axes["momentum"], None)


def test_a_brush_moves_and_grows_within_its_axis() -> None:
    axis = Dimension("lr", 1e-4, 1e-1, log=True)
    brush = Brush().toggled(axis, 0.95)
    for _ in range(30):
        brush = brush.moved(axis, 1)
    assert brush.ranges["lr"][1] == 1.0
    for _ in range(30):
        brush = brush.widened(axis, -1)
    low, high = brush.ranges["lr"]
    assert low < high
    for _ in range(60):
        brush = brush.widened(axis, 1)
    assert brush.ranges["lr"] == (0.0, 1.0)
    choice = Dimension("opt", choices=("a", "b", "c"))
    one = Brush().toggled(choice, 0.5)
    assert one.words({"opt": choice}, "acc") == "opt b"
    assert one.moved(choice, 1).words({"opt": choice}, "acc") == "opt c"


def test_importance_says_when_it_is_not_known_yet() -> None:
    assert "not known yet" in text(space.importance(None, ["lr"], "lr", 40, UNICODE))
    assert "more complete trials" in text(space.importance({}, ["lr"], "lr", 60, UNICODE))
    told = text(space.importance({"lr": 0.75, "b": 0.25}, ["b", "lr"], "b", 40, UNICODE))
    assert told.splitlines()[0].startswith(" lr")
    assert "75%" in told


# Replay.


def test_a_replay_shows_what_was_so_and_ends_in_what_is() -> None:
    trials = fake_sweeps.trials(40, open_=0)
    view = fake_sweeps.sweep(3, trials, "FINISHED")
    curves = {c["number"]: c["points"] for c in fake_sweeps.curves(trials)}
    begin, end = replay.extent(view, trials, NOW)
    assert replay.trials_at(trials, curves, begin - 1) == []
    middle = replay.trials_at(trials, curves, (begin + end) / 2)
    assert 5 < len(middle) < 40
    running = [t for t in middle if t["state"] == "RUNNING"]
    assert 0 < len(running) <= 4
    for trial in running:
        assert trial["values"] is None and trial["ended_at"] is None
        assert trial["step"] is None or trial["step"] <= fake_sweeps.STEPS
    then = replay.sweep_at(view, middle, (begin + end) / 2)
    assert then["state"] == "RUNNING" and then["counts"]["open"] >= len(running)
    assert replay.trials_at(trials, curves, end) == trials
    assert replay.sweep_at(view, trials, end)["state"] == "FINISHED"


def test_a_curve_grows_evenly_while_its_trial_runs() -> None:
    trial = fake_sweeps.trial(1, "COMPLETE", 0, 40.0)  # it ran for 30 of the last 40 seconds
    curve = fake_sweeps.curve(1, trial["params"], 12)
    assert len(replay.curve_at(trial, curve, NOW - 25)) == 6
    assert replay.curve_at(trial, curve, NOW) == curve


def test_trials_keep_their_lanes_while_the_window_moves_on() -> None:
    trials = [{**t, "gpus": []} for t in fake_sweeps.trials()]
    seen: dict[int, str] = {}
    for begin in (NOW - 300, NOW - 100, NOW - 40, NOW - 20):
        for lane in board.lanes(trials, {}, begin, NOW):  # type: ignore[arg-type]
            for stay in lane.stays:
                assert seen.setdefault(stay.number, lane.name) == lane.name


def test_a_trial_that_outlives_thousands_keeps_its_lane() -> None:
    old = fake_sweeps.trial(0, "RUNNING", 1, 9000.0)
    rest = [fake_sweeps.trial(n, "COMPLETE", 0, 8900.0) for n in range(1, 3000)]
    lanes = board.lanes([old, *rest], board.gpus_by_uuid(nodes()), NOW - 60, NOW)
    assert [lane.name for lane in lanes] == ["n01:1"]


# Curves.


def test_curves_are_read_once_and_again_when_their_trials_have_ended() -> None:
    curves, trials = Curves(), fake_sweeps.trials()
    asked = curves.wanted(trials)
    assert len(asked) == 40
    curves.take(asked, fake_sweeps.curves(trials))
    assert curves.wanted(trials) == {}
    ended: list[TrialView] = [{**t, "state": "COMPLETE"} for t in trials]
    assert sorted(curves.wanted(ended)) == [
        t["number"] for t in trials if t["state"] != "COMPLETE" and t["step"]
    ]


def test_a_curve_grows_by_what_is_watched_and_never_goes_back() -> None:
    curves, trial = Curves(), fake_sweeps.trial(1, "RUNNING", 0, 30.0)
    curves.grow([{**trial, "step": 3, "last": 0.5}, {**trial, "step": 3, "last": 0.6}])
    curves.grow([{**trial, "step": None, "last": None}])
    assert curves.known[1] == [(3, 0.5)]
    curves.take({1: "RUNNING"}, [{"number": 1, "state": "RUNNING", "points": [(1, 0.1), (2, 0.3)]}])
    assert curves.known[1] == [(1, 0.1), (2, 0.3), (3, 0.5)]
    curves.take({1: "COMPLETE"}, [{"number": 1, "state": "COMPLETE", "points": []}])
    assert curves.known[1][-1] == (3, 0.5)
