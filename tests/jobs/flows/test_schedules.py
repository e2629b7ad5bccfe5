"""Moments: time zones, summer time, clocks that are set, and what was missed."""

from __future__ import annotations

import itertools
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput
from jobs.flows.schedules import Schedule, admit, due

HOUR = 3600.0


def at(zone: str, *when: int, fold: int = 0) -> float:
    return datetime(*when, fold=fold, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[arg-type, misc]


def shown(zone: str, cron: str, start: tuple[int, ...], count: int) -> list[str]:
    schedule = Schedule.from_json({"cron": cron, "zone": zone})
    moments = itertools.islice(schedule.moments(at(zone, *start), 0.0), count)
    return [
        datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime("%d. %H:%M %z")
        for moment in moments
    ]


@pytest.mark.parametrize(
    ("zone", "cron", "start", "found"),
    [
        # The hour from 2 to 3 is left out: what was to come in it comes right after.
        ("Europe/Berlin", "30 2 * * *", (2026, 3, 28, 12),
         ["29. 03:00 +0200", "30. 02:30 +0200"]),
        ("America/New_York", "30 2 * * *", (2026, 3, 7, 12),
         ["08. 03:00 -0400", "09. 02:30 -0400"]),
        ("Australia/Lord_Howe", "15 2 * * *", (2026, 10, 3, 12),
         ["04. 02:30 +1100", "05. 02:15 +1100"]),
        # It comes twice: a time of day counts the first time.
        ("Europe/Berlin", "30 2 * * *", (2026, 10, 24, 12),
         ["25. 02:30 +0200", "26. 02:30 +0100"]),
        ("America/New_York", "30 1 * * *", (2026, 10, 31, 12),
         ["01. 01:30 -0400", "02. 01:30 -0500"]),
        ("Australia/Lord_Howe", "45 1 * * *", (2026, 4, 4, 12),
         ["05. 01:45 +1100", "06. 01:45 +1030"]),
        # What comes every hour goes by what has passed.
        ("Europe/Berlin", "30 * * * *", (2026, 10, 25, 1),
         ["25. 01:30 +0200", "25. 02:30 +0200", "25. 02:30 +0100", "25. 03:30 +0100"]),
        ("Europe/Berlin", "0 * * * *", (2026, 3, 29, 0, 30),
         ["29. 01:00 +0100", "29. 03:00 +0200", "29. 04:00 +0200"]),
        ("Asia/Kolkata", "0 9 * * 1-5", (2026, 4, 3, 12), ["06. 09:00 +0530", "07. 09:00 +0530"]),
    ],
)  # fmt: skip
def test_summer_time(zone: str, cron: str, start: tuple[int, ...], found: list[str]) -> None:
    assert shown(zone, cron, start, len(found)) == found


def test_a_distance_counts_from_when_it_was_added() -> None:
    schedule = Schedule.from_json({"every": "6h"})
    moments = itertools.islice(schedule.moments(1000.0, 1000.0), 3)
    assert list(moments) == [1000 + 6 * HOUR, 1000 + 12 * HOUR, 1000 + 18 * HOUR]
    assert next(schedule.moments(1000 + 6 * HOUR, 1000.0)) == 1000 + 12 * HOUR
    assert schedule.told() == "every 6h"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"cron": "0 0 31 2 *"}, "schedule.cron: found '0 0 31 2 .'|never comes"),
        ({"cron": "0 0 30 2 *"}, "bad day-of-month|never comes"),
        ({"cron": "61 * * * *"}, "bad minute; allowed: five fields"),
        ({"cron": "* * *"}, "allowed: five fields as in crontab"),
        ({"cron": "0 3 * * *", "zone": "Europe/Berln"},
         "no time zone 'Europe/Berln'; did you mean Europe/Berlin"),
        ({"cron": "0 3 * * *", "zone": "../etc/passwd"}, "no time zone"),
        ({"cron": "0 3 * * *", "every": "6h"}, "found cron and every of cron, every and on"),
        ({}, "found none of cron, every and on"),
        ({"every": "0s"}, "schedule.every: found '0s'; allowed: 1s or more"),
        ({"every": "6h", "catch_up": "al"}, "did you mean all"),
        ({"every": "6h", "overlap": "kill"}, "allowed: 'skip', 'queue' or 'replace'"),
        ({"every": "6h", "evry": 3}, "did you mean schedule.every|did you mean every"),
    ],
)  # fmt: skip
def test_one_clear_error(data: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Schedule.from_json(data)


def test_three_days_away_with_each_policy() -> None:
    added = at("UTC", 2026, 5, 1)
    seen, now = at("UTC", 2026, 5, 1, 3), at("UTC", 2026, 5, 4, 12)
    days = [at("UTC", 2026, 5, day, 3) for day in (2, 3, 4)]
    daily = {"cron": "0 3 * * *"}
    for policy, fire in (("skip", []), ("once", days[-1:]), ("all", days)):
        schedule = Schedule.from_json(daily | {"catch_up": policy})
        found = due(schedule, "a", added, seen, now)
        assert (list(found.fire), found.seen) == (fire, days[-1])
        assert list(found.missed) == [day for day in days if day not in fire]
        assert found.next == at("UTC", 2026, 5, 5, 3)
        assert due(schedule, "a", added, found.seen, now).fire == ()
    schedule = Schedule.from_json(daily | {"catch_up": "all", "at_most": 2})
    assert list(due(schedule, "a", added, seen, now).fire) == days[1:]
    # A moment that has only just come is not a missed one.
    schedule = Schedule.from_json(daily | {"catch_up": "skip"})
    assert list(due(schedule, "a", added, seen, days[-1] + 30).fire) == days[-1:]


def test_a_clock_that_is_set_back_repeats_nothing() -> None:
    schedule = Schedule.from_json({"cron": "*/10 * * * *"})
    seen = now = at("UTC", 2026, 5, 1)
    fired: list[float] = []
    for step in [*[60.0] * 90, -HOUR, *[60.0] * 150]:
        now += step
        found = due(schedule, "a", 0.0, seen, now)
        fired += found.fire
        seen = found.seen
    assert fired == [at("UTC", 2026, 5, 1) + 600 * n for n in range(1, 19)]


def test_jitter_is_the_same_for_a_moment() -> None:
    schedule = Schedule.from_json({"every": "1h", "jitter": "10m"})
    late = [schedule.late_by("a", HOUR * n) for n in range(50)]
    assert late == [schedule.late_by("a", HOUR * n) for n in range(50)]
    assert all(0 <= item < 600 for item in late)
    assert max(late) - min(late) > 300
    assert late != [schedule.late_by("b", HOUR * n) for n in range(50)]
    when = HOUR + schedule.late_by("a", HOUR)
    assert due(schedule, "a", 0.0, 0.0, when - 1).fire == ()
    assert due(schedule, "a", 0.0, 0.0, when - 1).next == when
    assert due(schedule, "a", 0.0, 0.0, when).fire == (HOUR,)


def test_while_the_run_before_is_not_over() -> None:
    def how(overlap: str, **what: int) -> str:
        schedule = Schedule.from_json({"every": "1h", "overlap": overlap})
        return admit(schedule, running=bool(what.get("running")), waiting=what.get("waiting", 0))

    assert {how(overlap) for overlap in ("skip", "queue", "replace")} == {"start"}
    assert how("skip", running=1) == "skip"
    assert how("queue", running=1) == how("queue", waiting=1) == "wait"
    assert how("queue", running=1, waiting=100) == "skip"
    assert how("replace", running=1) == "replace"


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 */5 * * 1"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    st.sampled_from(["skip", "once", "all"]),
    st.floats(0, 600),
    st.lists(st.floats(-7200, 200_000), min_size=1, max_size=8),
)
def test_whatever_the_clock_does_each_moment_comes_once(
    cron: str, zone: str, policy: str, jitter: float, steps: list[float]
) -> None:
    schedule = Schedule.from_json(
        {"cron": cron, "zone": zone, "catch_up": policy, "at_most": 1000, "jitter": jitter}
    )
    start = seen = now = at("UTC", 2026, 3, 28)
    decided: list[float] = []
    for step in steps:
        now += step
        found = due(schedule, "a", start, seen, now)
        assert found.next > now or found.fire == ()
        decided += [*found.missed, *found.fire]
        seen = found.seen
    assert len(decided) == len(set(decided))
    expected = itertools.takewhile(lambda moment: moment <= seen, schedule.moments(start, start))
    assert sorted(decided) == list(expected)
