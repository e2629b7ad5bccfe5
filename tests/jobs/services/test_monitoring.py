"""The course of a monitor: windows that do not overlap, drift that begins and ends, the rate of alarms."""

from __future__ import annotations

import pytest

from jobs.base.errors import InvalidInput
from jobs.services.monitoring import Status, Watch, due, judged, window
from jobs.services.spec import ServiceSpec
from jobs.services.watching import MonitorSpec


def course(*statuses: Status) -> list[str | None]:
    watch = Watch(0.0, 0.0)
    found: list[str | None] = []
    for number, status in enumerate(statuses, start=1):
        watch, told = judged(watch, status, float(number))
        found.append(told)
    return found


def test_drift_is_over_only_after_two_clean_windows_in_a_row() -> None:
    assert course("ok", "drift", "ok", "drift", "ok", "ok", "ok") == [
        None, "drift", None, "drift", None, "settled", None,
    ]  # fmt: skip
    assert course("drift", "ok", "not enough data", "ok") == ["drift", None, None, "settled"]
    assert course("not enough data", "reference", "ok") == [None, None, None]


def test_windows_that_drift_are_counted_in_a_row() -> None:
    watch = Watch(0.0, 0.0)
    for number in (1.0, 2.0):
        watch, _ = judged(watch, "drift", number)
    assert watch.windows == 2
    watch, _ = judged(watch, "not enough data", 3.0)
    assert watch.windows == 2
    assert judged(watch, "ok", 4.0)[0].windows == 0


def test_no_request_is_judged_twice_and_few_wait_for_more() -> None:
    watch = Watch(judged=1000.0, looked=1000.0)
    assert not due(watch, 60.0, 1059.0)
    assert due(watch, 60.0, 1060.0)
    assert window(watch, 60.0, 1060.0) == (1000.0, 1060.0)
    watch, _ = judged(watch, "not enough data", 1060.0)
    assert not due(watch, 60.0, 1061.0)
    assert window(watch, 60.0, 1120.0) == (1000.0, 1120.0)
    watch, _ = judged(watch, "ok", 1120.0)
    assert window(watch, 60.0, 1180.0) == (1120.0, 1180.0)
    assert window(watch, 60.0, 9000.0) == (8400.0, 9000.0)  # not all of a long absence


def test_the_alarms_of_a_month_are_shared_among_its_looks() -> None:
    day = MonitorSpec.model_validate({"every": "1d"})
    hour = MonitorSpec.model_validate({"every": "1h", "alarms": 0.5})
    assert day.level == pytest.approx(1 / 30)
    assert hour.level == pytest.approx(0.5 / 720)
    assert MonitorSpec.model_validate({"every": "30d"}).level == 0.05


def test_a_service_says_how_it_is_monitored() -> None:
    def of(value: object) -> MonitorSpec | None:
        spec = ServiceSpec.from_json({"name": "a", "command": "x", "monitor": value})
        assert ServiceSpec.from_json(spec.to_json()) == spec
        return spec.monitor

    assert of("6h") == MonitorSpec(every=21_600.0)
    assert of(True) == MonitorSpec()
    assert of(False) is None
    with pytest.raises(InvalidInput, match=r"monitor\.every"):
        of({"every": "1s"})
