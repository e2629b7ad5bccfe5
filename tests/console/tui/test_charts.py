"""Zoom, crosshair, smoothing, comparison: charts as plain values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from console.tui.core.draw.chart import PERCENT, Sample, overlay
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.core.draw.look import DEEPEST, Look, nearest, smoothed
from console.tui.core.draw.timeline import timeline
from console.tui.core.jobs import job, metrics
from jobs.wire.views import SeriesPoint
from tests.console.tui.fake_views import NOW, detail, history
from tests.console.tui.fake_views import job as job_view
from tests.console.tui.fakes import FakeSource


def points(*values: float | None, each: float = 1.0) -> list[SeriesPoint]:
    return [{"step": 10 * i, "at": NOW + i * each, "value": v} for i, v in enumerate(values)]


def test_the_window_is_the_whole_run_until_it_is_zoomed() -> None:
    assert Look().window(0, 100) == (0, 100)
    assert Look(zoom=1).window(0, 100) == (50, 100)
    assert Look(zoom=1, cross=40.0).window(0, 100) == (15, 65)
    assert Look(zoom=1, cross=2.0).window(0, 100) == (0, 50)
    assert Look().window(5, 5) == (5, 6)


def test_the_crosshair_starts_at_the_end_and_stays_inside() -> None:
    look = Look().moved(-1, 0, 80)
    assert look.cross == 80
    assert look.moved(-1, 0, 80).cross == 79
    assert look.moved(1, 0, 80).cross == 80
    assert Look(cross=0.5).moved(-1, 0, 80).cross == 0
    assert Look(zoom=3, cross=40.0).moved(1, 0, 80).cross == 40.125


def test_zoom_ends_somewhere() -> None:
    look = Look()
    for _ in range(30):
        look = look.zoomed(1)
    assert look.zoom == DEEPEST
    assert Look().zoomed(-1).zoom == 0
    assert Look(zoom=2, log=True, smooth=1, by_time=True).words == [
        "x4",
        "log",
        "smooth 0.6",
        "by time",
    ]


def test_smoothing_starts_at_the_first_value_and_skips_gaps() -> None:
    assert smoothed([4.0, None, 4.0, 4.0], 0.9) == [4.0, None, 4.0, 4.0]
    assert smoothed([1.0, 2.0], 0.0) == [1.0, 2.0]
    end = smoothed([0.0] * 50 + [1.0], 0.9)[-1]
    assert end is not None
    assert 0.09 < end < 0.11


def test_nearest_takes_the_closer_side() -> None:
    held = points(1.0, 2.0, 3.0)
    assert nearest(held, NOW + 0.4) == held[0]
    assert nearest(held, NOW + 0.6) == held[1]
    assert nearest(held, NOW + 99) == held[2]
    assert nearest([], NOW) is None


def test_a_chart_tells_the_value_under_the_crosshair() -> None:
    series = {"loss": points(5.0, 9.0, 3.0)}
    told = metrics.lines(series, "loss", Look(cross=NOW + 1), NOW, NOW + 2, 60, 8, UNICODE)
    assert "9 at step 10" in plain(told[0])
    assert any(span.text == "┊" for line in told[1:] for span in line)
    without = metrics.lines(series, "loss", Look(), NOW, NOW + 2, 60, 8, UNICODE)
    assert "3 at step 20" in plain(without[0])
    assert not any("┊" in plain(line) for line in without)


def test_metrics_with_nothing_finite_say_so() -> None:
    told = metrics.lines({"loss": points(None)}, "loss", Look(), NOW, NOW + 1, 60, 10, UNICODE)
    assert "1 not drawn" in plain(told[0])
    assert "no value" in plain(told[1])
    assert metrics.lines({}, None, Look(), NOW, NOW + 1, 60, 10, UNICODE) == []


@pytest.mark.parametrize("smooth", [0, 2])
def test_infinite_values_are_told_and_not_drawn(smooth: int) -> None:
    series = {"loss": points(5.0, -math.inf, 3.0, math.inf)}
    look = Look(smooth=smooth)
    told = metrics.lines(series, "loss", look, NOW, NOW + 3, 60, 8, UNICODE)
    assert "inf at step 30" in plain(told[0])
    assert "2 not drawn" in plain(told[0])
    assert "min -inf max inf" in plain(told[0])
    drawn = metrics.curve(series["loss"], look, NOW, NOW + 3)
    assert all(math.isfinite(sample.low) for sample in drawn.samples)
    assert len(drawn.samples) == 2
    only = metrics.lines({"loss": points(math.inf)}, "loss", look, NOW, NOW + 1, 60, 8, UNICODE)
    assert "no value" in plain(only[1])
    told = metrics.compare_lines({"j1": series}, {}, "loss", Look(cross=30.0), 90, 14, UNICODE)
    assert any("min -inf max inf" in plain(line) for line in told)


def test_a_log_scale_leaves_out_what_it_cannot_show_and_names_real_values() -> None:
    series = {"loss": points(1000.0, -1.0, 0.0, 10.0)}
    told = metrics.lines(series, "loss", Look(log=True), NOW, NOW + 3, 60, 8, UNICODE)
    assert "2 not drawn" in plain(told[0])
    assert plain(told[1]).startswith("   1000┤")
    assert plain(told[-2]).startswith("     10┤") and "┴10" in plain(told[-1])


def test_by_time_and_by_step_put_the_crosshair_on_the_same_point() -> None:
    held = [points(1.0, 2.0, 3.0)]
    assert metrics.cross_x(held, Look(cross=NOW + 1.1)) == 10
    assert metrics.cross_x(held, Look(cross=NOW + 1.1, by_time=True)) == NOW + 1.1
    assert metrics.cross_x([[]], Look(cross=NOW)) is None


def test_curves_lie_over_each_other_and_keep_their_dots() -> None:
    rising = [Sample(x, x, x) for x in range(0, 101, 10)]
    falling = [Sample(x, 100 - x, 100 - x) for x in range(0, 101, 10)]
    told = overlay([(rising, "ok"), (falling, "warn")], 40, 6, PERCENT, UNICODE, x0=0, x1=100)
    tones = {span.tone for line in told for span in line}
    assert {"ok", "warn"} <= tones
    alone = overlay([(rising, "ok")], 40, 6, PERCENT, UNICODE, x0=0, x1=100)

    def dots(lines: list[tuple[object, ...]]) -> int:
        text = "".join(plain(line) for line in lines)  # type: ignore[arg-type]
        return sum((ord(c) - 0x2800).bit_count() for c in text if 0x2800 <= ord(c) <= 0x28FF)

    assert dots(told) > 1.5 * dots(alone)  # type: ignore[arg-type]
    assert all(
        plain(line).isascii()
        for line in overlay(
            [(rising, "ok"), (falling, "warn")], 40, 6, PERCENT, ASCII, x0=0, x1=100, cross=50
        )
    )


def test_runs_are_compared_from_their_own_beginnings() -> None:
    one = metrics.since_start({"loss": points(3.0, 2.0)})
    other = metrics.since_start({"loss": [{"step": 0, "at": 5.0, "value": 4.0}], "lr": []})
    assert other["loss"][0]["at"] == 0
    told = metrics.compare_lines(
        {"j1": one, "j2": other}, {"j1": "first"}, "loss", Look(), 80, 12, UNICODE
    )
    assert "j1" in plain(told[0])
    assert "first" in plain(told[0])
    assert "min 2 max 3" in plain(told[0])
    assert len(told) == 12
    assert metrics.since_start({}) == {}


def runs_of_two_speeds() -> dict[str, dict[str, list[SeriesPoint]]]:
    """The second run logs its steps in half the time, one of them beyond the others."""
    slow: list[SeriesPoint] = [{"step": s, "at": float(s), "value": 100.0 + s} for s in range(100)]
    fast: list[SeriesPoint] = [
        {"step": s, "at": s / 2, "value": 200.0 + s} for s in (*range(100), 120)
    ]
    return {"j1": {"loss": slow}, "j2": {"loss": fast}}


def test_by_step_the_crosshair_of_a_comparison_is_one_step_of_all_runs() -> None:
    runs = runs_of_two_speeds()
    told = metrics.compare_lines(runs, {}, "loss", Look(cross=30.0), 90, 14, UNICODE)
    said = [plain(row).split("at step ")[1] for row in told[:2]]
    steps = {int(one.split(":")[0]) for one in said}
    assert len(steps) == 1, said
    by_time = Look(cross=30.0, by_time=True)
    told = metrics.compare_lines(runs, {}, "loss", by_time, 90, 14, UNICODE)
    assert "at step 30: 130" in plain(told[0]) and "at step 60: 260" in plain(told[1])


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("x", [12, 40, 70])
def test_a_click_in_a_comparison_puts_the_crosshair_there(x: int, by_time: bool, log: bool) -> None:
    runs, look = runs_of_two_speeds(), Look(by_time=by_time, log=log)
    at = metrics.compare_moment_at(runs, "loss", look, 90, 14, x, 8)
    assert at is not None
    shown = replace(look, cross=at)
    told = [plain(row) for row in metrics.compare_lines(runs, {}, "loss", shown, 90, 14, UNICODE)]
    columns = {row.index("┊") for row in told if "┊" in row}
    assert columns and max(abs(column - x) for column in columns) <= 1
    assert metrics.compare_moment_at(runs, "loss", look, 90, 14, x, 1) is None, "the legend"
    assert metrics.compare_moment_at(runs, "loss", look, 90, 14, 2, 8) is None, "the axis"
    assert metrics.compare_moment_at({}, "loss", look, 90, 14, x, 8) is None


@pytest.mark.parametrize("width", [46, 84])
def test_a_click_on_the_gpus_marks_the_cell_under_it(width: int) -> None:
    attempt = detail(job_view(412, "RUNNING"))["attempts"][-1]
    held = {rank["gpus"][0]: history(600, 120, 50.0) for rank in attempt["ranks"]}
    window = (NOW - 600, NOW)
    for x in range(width):
        at = job.gpu_moment_at(attempt, window, width, x, 0)
        if at is None:
            continue
        drawn = job.gpu_lines(attempt, held, Look(cross=at), window, width, UNICODE)[0]
        before = plain(drawn[: next(i for i, s in enumerate(drawn) if s.tone == "found")])
        assert len(before) == x
    assert job.gpu_moment_at(attempt, window, width, width // 2, 0) is not None
    assert job.gpu_moment_at(attempt, window, width, width // 2, 999) is None
    assert job.gpu_moment_at(None, window, width, 20, 0) is None


def test_gpus_show_the_window_and_the_value_under_the_crosshair() -> None:
    attempt = detail(job_view(412, "RUNNING"))["attempts"][-1]
    held = {rank["gpus"][0]: history(600, 120, 50.0) for rank in attempt["ranks"]}
    window = (NOW - 600, NOW)
    told = job.gpu_lines(attempt, held, Look(cross=NOW - 300), window, 80, UNICODE)
    assert all(width(line) <= 80 for line in told)
    assert sum(span.tone == "found" for span in told[0]) == 1
    assert " " not in plain(told[0])[9:70]  # no gap that was not measured
    narrow = job.bins(held["GPU-02-0"], 600, *window)
    assert None not in narrow[10:590]
    assert job.bins([], 10, 0, 10) == [None] * 10


def test_a_dip_in_the_telemetry_stays_open() -> None:
    early = [p for p in history(600, 120) if p["at"] < NOW - 300]
    held = job.bins(early, 60, NOW - 600, NOW)
    assert held[10] is not None
    assert held[45] is None


def test_the_timeline_needs_more_than_one_attempt() -> None:
    full = detail(job_view(412, "RUNNING", submitted_at="2026-09-21T12:00:00Z"))
    told = timeline(full, NOW, 60, UNICODE)
    assert [plain(line).split()[0] for line in told] == ["j412.1", "j412.2"]
    assert all(width(line) <= 60 for line in told)
    assert timeline({**full, "attempts": full["attempts"][:1]}, NOW, 60, UNICODE) == []
    assert timeline(full, NOW, 12, UNICODE) == []


def test_series_of_the_fake_are_drawn_whole() -> None:
    series = FakeSource().series("j412", 200)
    known = metrics.extent(series)
    assert known is not None
    assert math.isclose(known[1] - known[0], 8955)
