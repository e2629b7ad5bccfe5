"""One sentence about a job that runs."""

from __future__ import annotations

from typing import Any

from console.tui.core.jobs.diagnosis import diagnose, pace
from jobs.wire.views import JobDetail, NodeView, SeriesPoint
from tests.console.tui.fake_views import NOW, detail, nodes
from tests.console.tui.fake_views import job as job_view

JOB = detail(job_view(412, "RUNNING"))


def placed(**odd: Any) -> dict[str, NodeView]:
    """The nodes of j412; `odd` changes GPU 3 of n03, which r11 has."""
    out = {view["name"]: view for view in nodes() if view["name"] in ("n02", "n03")}
    for view in out.values():
        for gpu in view["gpus"]:
            gpu.update(power=690.0, util=99.0, throttle=[])  # type: ignore[call-arg]
    out["n03"]["gpus"][3].update(odd)  # type: ignore[typeddict-item]
    return out


def beats(gap: float, count: int = 60, *, last: float = 0.5, late: float | None = None) -> Any:
    """A metric each step, the newest `last` seconds ago; the last fifth every `late` seconds."""
    gaps = [gap] * (count * 4 // 5) + [gap if late is None else late] * (count // 5)
    at = NOW - last - sum(gaps)
    out: list[SeriesPoint] = []
    for step, one in enumerate(gaps):
        at += one
        out.append({"step": step, "at": at, "value": 1.0})
    return {"loss": out}


def test_a_rank_that_draws_less_than_the_others_is_named() -> None:
    told = diagnose(JOB, placed(power=310.0, util=31.0), beats(1.0))
    assert told is not None
    assert told.outlier == 11
    assert "r11 (n03 GPU 3) draws 310 W at 31% where the median is 690 W" in told.text
    assert "A step takes 1.0s" in told.text


def test_full_utilisation_does_not_hide_a_straggler_and_low_power_of_all_is_none() -> None:
    told = diagnose(JOB, placed(power=310.0, util=100.0), beats(1.0))
    assert told is not None
    assert told.outlier == 11
    low = placed()
    for view in low.values():
        for gpu in view["gpus"]:
            gpu["power"] = 100.0
    calm = diagnose(JOB, low, beats(1.0))
    assert calm is not None
    assert calm.outlier is None


def test_two_that_differ_are_not_a_straggler() -> None:
    some = placed(power=310.0)
    some["n03"]["gpus"][4]["power"] = 300.0
    told = diagnose(JOB, some, beats(1.0))
    assert told is not None
    assert told.outlier is None


def test_stalled_is_what_the_cluster_found() -> None:
    """It sees the ranks' processes; a screen that judged by steps alone said otherwise."""
    found: JobDetail = {**JOB, "stalled": True, "reason": "no rank has written for 4m10s"}
    told = diagnose(found, placed(), beats(1.0, last=300))
    assert told is not None and told.tone == "error"
    assert told.text.startswith("Stalled: no rank has written for 4m10s. A step usually takes 1")
    silent = diagnose(JOB, placed(), beats(1.0, last=300))
    assert silent is not None and silent.tone != "error"


def test_throttling_slowness_and_hunger_are_told_in_that_order() -> None:
    told = diagnose(JOB, placed(throttle=["hw thermal"]), beats(1.0))
    assert told is not None
    assert "r11 is throttled: hw thermal" in told.text
    slow = diagnose(JOB, placed(), beats(1.0, late=3.0))
    assert slow is not None
    assert "3.0 times the usual" in slow.text
    hungry = placed()
    for view in hungry.values():
        for gpu in view["gpus"]:
            gpu["util"] = 8.0
    starved = diagnose(JOB, hungry, beats(1.0))
    assert starved is not None
    assert "at 8%" in starved.text


def test_a_job_that_is_well_tells_its_pace_and_one_that_ended_nothing() -> None:
    told = diagnose(JOB, placed(), beats(0.8))
    assert told is not None
    assert told.text == "A step takes 0.8s, all 16 ranks alike."
    assert diagnose(detail(job_view(407, "FAILED")), placed(), beats(1.0)) is None
    assert diagnose({**JOB, "attempts": []}, placed(), beats(1.0)) is None
    assert diagnose(JOB, {}, {}) is None


def test_pace_needs_enough_points_and_counts_by_step() -> None:
    assert pace([]) is None
    assert pace(beats(1.0, count=5)["loss"]) is None
    sparse: list[SeriesPoint] = beats(1.0)["loss"]
    for point in sparse:
        point["step"] *= 50
    found = pace(sparse)
    assert found is not None
    assert round(found.usual, 3) == 0.02
