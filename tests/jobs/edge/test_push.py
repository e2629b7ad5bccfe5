"""A push to a fleet: what it promises in any order of events, and its ordinary stories."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import Conflict
from jobs.edge.push import (
    At,
    Event,
    Failed,
    Push,
    Returned,
    Rollback,
    Sent,
    Stuck,
    Switched,
    from_json,
    handle,
    to_json,
    todo,
)

HOSTS = ("ssh://a/m", "ssh://b/m", "ssh://c/m", "ssh://d/m")


def fresh() -> Push:
    """Waves of one, two and one."""
    waves = dict(zip(HOSTS, (0, 1, 1, 2), strict=True))
    return Push(7, "shops", "digits:3", 100, {url: At(wave) for url, wave in waves.items()})


def story(push: Push, *events: Event) -> Push:
    for event in events:
        push = handle(push, event, 0).push
    return push


def done(url: str) -> tuple[Event, ...]:
    return Sent(url, 100, whole=True), Switched(url)


def phases(push: Push) -> list[str]:
    return [at.phase for at in push.hosts.values()]


def test_wave_by_wave() -> None:
    a, b, c, d = HOSTS
    push = fresh()
    assert todo(push) == {a: "send"}
    push = story(push, Sent(a, 50))
    assert (todo(push), push.hosts[a].sent) == ({a: "send"}, 50)
    push = story(push, Sent(a, 100, whole=True))
    assert todo(push) == {a: "switch"}
    push = story(push, Switched(a))
    assert todo(push) == {b: "send", c: "send"}
    push = story(push, *done(b))
    assert todo(push) == {c: "send"}
    push = story(push, Stuck(c, "no route"), *done(c), *done(d))
    assert (push.phase, todo(push), push.hosts[c].reason) == ("done", {}, "")


def test_a_failed_wave_stops_and_its_hosts_return() -> None:
    a, b, c, _ = HOSTS
    push = story(fresh(), *done(a), *done(b), Sent(c, 100, whole=True), Failed(c, "it is ill"))
    assert todo(push) == {b: "return", c: "return"}, "the one that failed may have switched"
    assert push.phase == "failing"
    result = handle(story(push, Returned(c)), Returned(b), 0)
    assert (result.push.phase, todo(result.push)) == ("failed", {})
    assert phases(result.push) == ["done", "returned", "failed", "waiting"]
    text = result.notes[-1].message
    assert "with what they had before: b/m, c/m; with the new version: a/m" in text
    assert "c/m: it is ill" in text
    back = story(result.push, Rollback("ann"))
    assert todo(back) == {a: "return"}
    over = story(back, Returned(a))
    assert over.phase == "returned"
    with pytest.raises(Conflict, match="nothing to roll back"):
        handle(over, Rollback("ann"), 0)


def test_a_person_takes_it_back_at_any_time() -> None:
    a, b, *_ = HOSTS
    push = story(fresh(), *done(a), Sent(b, 10), Rollback("ann"))
    assert todo(push) == {a: "return"}
    assert story(push, Returned(a)).phase == "returned"
    assert story(fresh(), Rollback("ann")).phase == "returned"


def test_a_host_that_cannot_return_is_named_and_may_be_tried_again() -> None:
    a, b, *_ = HOSTS
    push = story(fresh(), *done(a), *done(b), Rollback("ann"), Returned(a))
    result = handle(push, Failed(b, "not reached"), 0)
    assert result.push.phase == "returned"
    text = result.notes[-1].message
    assert "with what they had before: a/m; not known what they have" in text
    assert text.endswith(": b/m")
    again = story(result.push, Rollback("ann"))
    assert todo(again) == {b: "return"}
    assert phases(story(again, Returned(b)))[:2] == ["returned", "returned"]
    with pytest.raises(Conflict, match="nothing to roll back"):
        story(again, Returned(b), Rollback("ann"))


urls = st.sampled_from(HOSTS)
events = st.one_of(
    st.builds(Sent, urls, st.integers(0, 100), st.booleans()),
    st.builds(Switched, urls), st.builds(Returned, urls), st.builds(Failed, urls, st.just("no")),
    st.builds(Stuck, urls, st.sampled_from(["", "away"])), st.just(Rollback("ann")),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(events, max_size=60))
def test_whatever_happens(steps: list[Event]) -> None:
    push = fresh()
    for event in steps:
        again = from_json(7, "shops", "digits:3", json.loads(json.dumps(to_json(push))))
        assert again == push
        try:
            after = handle(push, event, 0).push
        except Conflict:
            continue
        begun = {at.wave for at in after.hosts.values() if at.phase != "waiting"}
        for wave in begun - {max(begun, default=0)}:
            moved = {at.phase for at in after.hosts.values() if at.wave == wave}
            assert moved <= {"done", "returning", "returned", "failed"}, (
                "no wave before the one before"
            )
        if after.phase not in ("running", "done"):
            assert "send" not in todo(after).values() and "switch" not in todo(after).values()
        if after.over:
            assert todo(after) == {}
        elif after.phase != "running":
            assert todo(after), "it can go on"
        if after.phase == "done":
            assert set(phases(after)) == {"done"}
        if push.phase == "failing":
            assert after.phase != "running"
        push = after
