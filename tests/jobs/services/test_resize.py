"""How many replicas releases have, through rollouts, scaling and what people set."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import Conflict
from jobs.services import resize
from jobs.services.rollout import (
    Ask,
    Deployed,
    Deployment,
    Event,
    Plan,
    Ready,
    Rescale,
    Result,
    Scaled,
    Short,
    Tick,
    handle,
    wants,
)
from jobs.services.scaling import Decision, Scale
from jobs.services.stored import from_json, to_json

EMPTY = Deployment(1, "digits", "production")
SCALE = Scale(min=0, max=4)
CANARY = Plan(steps=(5, 50), rest=60, least=20)


def story(deployment: Deployment, *events: tuple[float, Event]) -> Deployment:
    for now, event in events:
        deployment = handle(deployment, event, now).deployment
    return deployment


def sized(release: int, replicas: int) -> Scaled:
    return Scaled(release, Decision(replicas, "20 requests in progress"))


def serving(scale: Scale | None = SCALE) -> Deployment:
    return story(EMPTY, (0, Deployed(1, "1", None, Plan(), "ann", scale)), (1, Ready(1)))


def test_it_begins_with_one_and_is_scaled_with_a_note() -> None:
    first = serving()
    assert wants(first).replicas == {1: 1}
    grown = handle(first, sized(1, 3), 50)
    assert wants(grown.deployment).replicas == {1: 3}
    (note,) = grown.notes
    assert (note.kind, note.message) == (
        "service.scaled",
        "digits 1 at production goes from 1 to 3 replicas: 20 requests in progress",
    )
    none = story(grown.deployment, (400, sized(1, 0)))
    assert wants(none).replicas == {1: 0}
    assert (none.live, wants(none).stable) == (1, 1)
    assert handle(none, sized(1, 0), 500) == Result(none)


def test_a_new_version_begins_with_as_many_and_neither_shrinks_while_both_serve() -> None:
    both = story(
        serving(), (50, sized(1, 3)), (60, Deployed(2, "2", None, CANARY, "ann")), (61, Ready(2))
    )
    assert wants(both).replicas == {1: 3, 2: 3}
    assert [release.number for release in resize.scaled(both)] == [1, 2]
    assert story(both, (70, sized(1, 1))) == both
    assert wants(story(both, (70, sized(2, 4)))).replicas == {1: 3, 2: 4}
    more = handle(both, sized(1, 4), 70)
    assert wants(more.deployment).replicas == {1: 4, 2: 4}  # it may get all requests in a moment
    assert more.notes[1].message.endswith(
        "2 at production goes from 3 to 4 replicas: as many as 1 has"
    )
    done = story(both, (80, Ask("promote", "ann")))
    assert [release.number for release in resize.scaled(done)] == [2]
    back = story(done, (90, Ask("rollback", "ann")))
    assert wants(back).replicas == {1: 3, 2: 3}
    assert [release.number for release in resize.scaled(back)] == [1]
    again = back.release(1)
    assert again is not None
    assert again.scaled == 90  # that nobody asked while it was warm says nothing


def test_a_new_version_is_ready_before_it_may_have_none() -> None:
    none = story(serving(), (400, sized(1, 0)))
    new = story(none, (500, Deployed(2, "2", None, CANARY, "ann")))
    assert wants(new).replicas == {1: 0, 2: 1}
    own = story(none, (500, Deployed(2, "2", 2, CANARY, "ann")))
    assert wants(own).replicas == {1: 0, 2: 2}
    assert [release.number for release in resize.scaled(own)] == [1]  # it has a number of its own
    cold = story(none, (500, Deployed(2, "2", 1, Plan(), "ann")), (501, Ready(2)), (9000, Tick()))
    assert wants(story(cold, (9001, Ask("rollback", "ann")))).replicas == {1: 1, 2: 1}


def test_a_person_sets_a_number_or_bounds_without_a_rollout() -> None:
    fixed = handle(serving(), Rescale(None, 3, "ann"), 10)
    assert wants(fixed.deployment).replicas == {1: 3}
    assert resize.scaled(fixed.deployment) == []
    (note,) = fixed.notes
    assert (note.kind, note.user) == ("service.rescaled", "ann")
    assert "from 1 to 3 replicas; scaled by hand, set by ann" in note.message
    narrow = story(fixed.deployment, (20, Rescale(Scale(min=1, max=2), 1, "ann")))
    assert wants(narrow).replicas == {1: 2}
    none = story(serving(), (400, sized(1, 0)), (500, Rescale(Scale(min=0, max=9), 1, "ann")))
    assert wants(none).replicas == {1: 0}
    assert wants(story(none, (500, Rescale(Scale(min=2, max=9), 1, "ann")))).replicas == {1: 2}
    with pytest.raises(Conflict, match="no version that serves"):
        handle(EMPTY, Rescale(None, 3, "ann"), 10)


def test_that_there_is_no_room_is_said_once() -> None:
    said = handle(serving(), Short(1, "j4 is queued: needs 1 GPU"), 10)
    (note,) = said.notes
    assert (note.kind, note.severity) == ("service.short", "warning")
    assert "finds no room for a replica: j4 is queued" in note.message
    assert handle(said.deployment, Short(1, "j4 is queued: needs 2 GPUs"), 11).notes == ()
    again = handle(said.deployment, Short(1, ""), 12)
    assert again.notes == ()
    assert len(handle(again.deployment, Short(1, "x"), 13).notes) == 1


def test_what_serves_is_kept_before_what_does_not() -> None:
    standings: dict[int, resize.Standing] = {0: "coming", 1: "ready", 2: "over", 3: "ready"}
    assert resize.chosen(standings, 1) == {1}
    assert resize.chosen(standings, 3) == {0, 1, 3}
    assert resize.chosen(standings, 0) == set()
    assert resize.places(2, {0, 2}) == [1, 3]
    assert resize.places(-1, set()) == []


numbers = st.integers(1, 3)
events = st.one_of(
    st.sampled_from(["deploy", "deploy scaled", "deploy 2"]),
    st.builds(Ready, numbers),
    st.builds(sized, numbers, st.integers(0, 4)),
    st.builds(lambda n, low: Rescale(Scale(min=low, max=4), n, "ann"), numbers, st.integers(0, 2)),
    st.builds(lambda n: Rescale(None, n, "ann"), numbers),
    st.builds(Short, numbers, st.sampled_from(["", "no room"])),
    st.just(Tick()),
    st.builds(Ask, st.sampled_from(["abort", "promote", "rollback", "remove"]), st.just("ann")),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(events, st.sampled_from([1.0, 61.0, 1000.0])), max_size=30))
def test_whatever_happens(steps: list[tuple[Event | str, float]]) -> None:
    deployment, now, newest = EMPTY, 0.0, 0
    for step, passed in steps:
        now += passed
        event = step
        if isinstance(event, str):
            scale = SCALE if event == "deploy scaled" else None
            count = 2 if event == "deploy 2" else None
            event = Deployed(newest + 1, f"v{newest + 1}", count, CANARY, "ann", scale)
        stored = json.loads(json.dumps(to_json(deployment)))
        assert from_json(1, "digits", "production", stored) == deployment
        try:
            after = handle(deployment, event, now).deployment
        except Conflict:
            continue
        newest += isinstance(event, Deployed)
        before = {release.number: release for release in deployment.releases}
        for release in after.releases:
            was = before.get(release.number)
            if release.replicas == 0:
                assert release.scale is not None and release.scale.min == 0, (
                    "nobody answers or holds"
                )
                assert release.ready or release.state == "retired", "at zero before it ever ran"
            if was is not None and isinstance(event, Scaled) and deployment.busy:
                assert release.replicas >= was.replicas
            if was is not None and was.state == "warm" and after.live == deployment.live:
                assert release.replicas == was.replicas
        deployment = after
