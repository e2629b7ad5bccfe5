"""Watch deltas folded into snapshots."""

from __future__ import annotations

from typing import Any

import pytest

from console.tui.core.base.link import CONNECTING, Link, badge, retry_delay, worst
from console.tui.core.base.world import EVENTS_KEPT, Fold, Resume, events_in_order
from console.tui.core.draw.glyphs import UNICODE
from console.tui.core.draw.lines import plain


def fold(*deltas: dict[str, Any]) -> Fold:
    made = Fold()
    for delta in deltas:
        made.apply({"topic": "jobs", "rev": 1, **delta})  # type: ignore[typeddict-item]
    return made


RESET = {"op": "reset"}
READY = {"op": "ready", "boot": "b"}


def put(key: str, value: Any = 1, **more: Any) -> dict[str, Any]:
    return {"op": "put", "key": key, "value": value, **more}


def test_a_full_state_is_shown_only_when_it_is_complete() -> None:
    state = fold(RESET, put("j1"))
    assert dict(state.table("jobs")) == {}
    assert state.ready == frozenset()
    state.apply({"rev": 1, "op": "ready", "topic": "jobs", "boot": "b"})
    assert dict(state.table("jobs")) == {"j1": 1}
    assert state.ready == {"jobs"}


def test_the_old_state_stays_until_the_new_one_is_complete() -> None:
    state = fold(RESET, put("j1"), READY, RESET, put("j2"))
    assert dict(state.table("jobs")) == {"j1": 1}
    state.apply({"rev": 9, "op": "ready", "topic": "jobs", "boot": "b"})
    assert dict(state.table("jobs")) == {"j2": 1}


def test_put_and_del_change_only_the_next_snapshot() -> None:
    state = fold(RESET, put("j1"), put("j2"), READY)
    before = state.table("jobs")
    state.apply({"rev": 2, "op": "del", "topic": "jobs", "key": "j1"})
    assert dict(before) == {"j1": 1, "j2": 1}
    assert dict(state.table("jobs")) == {"j2": 1}
    with pytest.raises(TypeError):
        before["j3"] = 1  # type: ignore[index]


def test_a_snapshot_is_the_same_object_until_its_topic_changes() -> None:
    state = fold(RESET, put("j1"), READY)
    before = state.table("jobs")
    state.apply({"rev": 2, "op": "ping", "topic": ""})
    assert state.table("jobs") is before
    state.apply({"rev": 3, "op": "put", "topic": "jobs", "key": "j1", "value": 2})
    assert state.table("jobs") is not before


def test_resuming_needs_a_complete_state_and_a_known_controller() -> None:
    assert fold(RESET, put("j1")).resume is None
    state = fold(RESET, READY)
    state.apply({"rev": 7, "op": "put", "topic": "jobs", "key": "j1", "value": 1})
    assert state.resume == Resume(7, "b")


def test_a_cut_within_a_full_state_forgets_where_to_resume() -> None:
    state = fold(RESET, put("j1"), READY, RESET, put("j2"))
    state.cut()
    assert state.resume is None
    assert dict(state.table("jobs")) == {"j1": 1}


def test_a_cut_between_two_changes_keeps_where_to_resume() -> None:
    state = fold(RESET, READY)
    state.cut()
    assert state.resume == Resume(1, "b")


def test_resuming_never_skips_what_changed_while_the_state_was_told() -> None:
    state = fold(
        {**RESET, "rev": 5}, put("j1", rev=5), {**READY, "rev": 9}, {**READY, "topic": "", "rev": 9}
    )
    assert state.resume == Resume(5, "b")
    state.apply({"rev": 7, "op": "put", "topic": "jobs", "key": "j1", "value": 2})
    assert state.resume == Resume(7, "b")


def test_a_restarted_controller_may_count_revisions_from_anew() -> None:
    state = fold(RESET, {**READY, "rev": 900})
    state.apply({"rev": 3, "op": "reset", "topic": "jobs"})
    state.apply({"rev": 3, "op": "ready", "topic": "jobs", "boot": "c"})
    assert state.resume == Resume(3, "c")


def test_one_ready_without_a_topic_completes_all() -> None:
    state = fold(RESET, {"op": "reset", "topic": "nodes"}, put("j1"), {**READY, "topic": ""})
    assert state.ready == {"jobs", "nodes"}


def test_events_are_bounded_and_in_order() -> None:
    state = Fold()
    for number in range(1, EVENTS_KEPT * 2):
        state.apply(
            {
                "rev": number,
                "op": "put",
                "topic": "events",
                "key": str(number),
                "value": {"id": number},
            }
        )
    assert len(state.table("events")) <= EVENTS_KEPT * 5 // 4
    told = [event["id"] for event in events_in_order(state.table("events"))]
    assert told == list(range(EVENTS_KEPT, EVENTS_KEPT * 2))


@pytest.mark.parametrize(
    ("link", "now", "words"),
    [
        (CONNECTING, 5.0, "◌ connecting"),
        (CONNECTING.on_cut("gone", ""), 5.0, "✗ unreachable"),
        (Link("open", 4.4), 5.0, "● live · 0.6s"),
        (Link("open", 1.0), 5.0, "◌ delayed · 4s old"),
        (Link("open", 1.0).on_cut("cut", ""), 13.0, "✗ reconnecting · 12s old"),
    ],
)
def test_the_badge_says_how_fresh_the_screen_is(link: Link, now: float, words: str) -> None:
    assert plain(badge(link, now, UNICODE)) == words


def test_the_badge_is_about_the_worst_stream() -> None:
    fresh, stale = Link("open", 9.0), Link("open", 2.0)
    cut = Link("open", 8.0).on_cut("x", "")
    assert worst([fresh, stale]) is stale
    assert worst([fresh, cut, stale]) is cut
    assert worst([]) is CONNECTING


def test_retries_back_off_to_a_bound() -> None:
    assert [retry_delay(n) for n in (0, 1, 2, 3, 10, 5000)] == [0.0, 0.25, 0.5, 1.0, 5.0, 5.0]


def test_a_sweep_keeps_its_file_when_it_changed_before_anybody_looked() -> None:
    """The file comes once, with the whole state; a sweep that runs changes many times a second."""
    fold, topic = Fold(), "sweep:s4"
    fold.apply({"rev": 1, "op": "reset", "topic": topic})
    whole = {"id": "s4", "state": "RUNNING", "spec": {"space": {"lr": {}}}}
    fold.apply({"rev": 1, "op": "put", "topic": topic, "key": "s4", "value": whole})
    fold.apply({"rev": 1, "op": "ready", "topic": topic, "boot": "b"})
    paused = {"id": "s4", "state": "PAUSED"}
    fold.apply({"rev": 2, "op": "put", "topic": topic, "key": "s4", "value": paused})
    assert fold.table(topic)["s4"] == {**whole, "state": "PAUSED"}
    fold.apply({"rev": 3, "op": "put", "topic": topic, "key": "0", "value": {"number": 0}})
    fold.apply({"rev": 4, "op": "put", "topic": topic, "key": "0", "value": {"state": "RUNNING"}})
    assert fold.table(topic)["0"] == {"state": "RUNNING"}
