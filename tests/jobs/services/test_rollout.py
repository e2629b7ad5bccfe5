"""The rollout as a state machine: what it promises in any order of events, and its ordinary stories."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import Conflict
from jobs.services.evidence import NONE, Counts
from jobs.services.histogram import Seen
from jobs.services.rollout import (
    DRAIN,
    Ask,
    Broken,
    Deployed,
    Deployment,
    Event,
    Learnt,
    Observed,
    Plan,
    Ready,
    Release,
    Shadowed,
    Tick,
    handle,
    wants,
)
from jobs.services.shadow import Tally
from jobs.services.stored import from_json, to_json

EMPTY = Deployment(1, "digits", "production")
CANARY = Plan(steps=(5, 25, 50), rest=60, least=20)


def story(deployment: Deployment, *events: tuple[float, Event]) -> Deployment:
    for now, event in events:
        deployment = handle(deployment, event, now).deployment
    return deployment


def serving(plan: Plan = CANARY) -> Deployment:
    """Version 1 serves; version 2 has its first step."""
    return story(
        EMPTY,
        (0, Deployed(1, "1", 2, Plan(), "ann")),
        (1, Ready(1)),
        (10, Deployed(2, "2", 2, plan, "ann")),
        (20, Ready(2)),
    )


def good(n: int = 100) -> Observed:
    return Observed(old=Counts(n, 1), new=Counts(n, 1))


def test_the_first_version_has_all_of_the_traffic_once_it_is_ready() -> None:
    new = story(EMPTY, (0, Deployed(1, "1", 2, CANARY, "ann")))
    assert (wants(new).stable, wants(new).replicas) == (None, {1: 2})
    new = story(new, (5, Ready(1)))
    assert (wants(new).stable, wants(new).candidate, new.busy) == (1, None, False)


def test_a_canary_goes_through_its_steps_and_the_old_one_stays_warm() -> None:
    now, deployment = 20.0, serving()
    shares = []
    for _ in range(3):
        shares.append(wants(deployment).share)
        deployment = story(deployment, (now + 1, good()), (now + 61, Tick()))
        now += 61
    assert shares == [5, 25, 50]
    assert (wants(deployment).stable, wants(deployment).share) == (2, 0)
    assert wants(deployment).replicas == {1: 2, 2: 2}
    assert wants(story(deployment, (now + 901, Tick()))).replicas == {2: 2}


def test_one_that_errs_is_rolled_back_with_the_numbers() -> None:
    result = handle(serving(), Observed(old=Counts(950, 10), new=Counts(50, 25)), 30)
    assert result.deployment.rollout is not None
    assert result.deployment.rollout.phase == "rolled_back"
    assert "25 of 50 requests (50.0%) against 10 of 950 (1.1%)" in result.notes[0].message
    after = wants(result.deployment)
    assert (after.stable, after.candidate, after.share) == (1, None, 0)
    assert wants(story(result.deployment, (31 + DRAIN, Tick()))).replicas == {1: 2}


def test_one_that_is_slow_is_rolled_back() -> None:
    slow = Observed(old_slow=Counts(950, 20), new_slow=Counts(50, 40), edge=0.015)
    after = story(serving(), (30, slow))
    assert after.rollout is not None
    assert "it is slower: 40 of 50" in after.rollout.reason
    assert "15 ms" in after.rollout.reason


def test_one_that_is_wrong_more_often_is_rolled_back_with_the_numbers() -> None:
    wrong = Learnt(2, old=Counts(200, 10), new=Counts(40, 20))
    after = story(serving(), (30, wrong))
    assert after.rollout is not None
    assert after.rollout.phase == "rolled_back"
    assert "it is wrong more often: 20 of 40 answers (50.0%) against 10 of 200 (5.0%)" in (
        after.rollout.reason
    )
    far = Learnt(2, old=Counts(200, 100), new=Counts(40, 39), far=0.25)
    after = story(serving(), (30, far))
    assert after.rollout is not None
    assert "it is less accurate: 39 of 40 answers" in after.rollout.reason
    assert "off by more than 0.25" in after.rollout.reason
    late = story(serving(), (30, replace(wrong, release=1)))
    assert late.busy, "truths of another rollout are not this one's"


def test_a_step_waits_for_the_truths_that_it_asks_for() -> None:
    plan = replace(CANARY, truths=30)
    waiting = story(serving(plan), (21, good()), (90, Tick()))
    assert wants(waiting).share == 5
    some = story(waiting, (91, Learnt(2, Counts(500, 5), Counts(20, 0))), (92, Tick()))
    assert wants(some).share == 5
    asked = story(some, (20 + 601, Tick()))
    assert asked.rollout is not None
    assert asked.rollout.phase == "paused"
    assert "the truth of 20 of 30 answers" in asked.rollout.reason
    enough = story(some, (93, Learnt(2, NONE, Counts(10, 1))), (94, Tick()))
    assert (wants(enough).share, enough.rollout and enough.rollout.told) == (25, 0)


def test_what_was_stored_before_there_were_truths_is_read() -> None:
    stored = json.loads(json.dumps(to_json(serving())))
    for name in ("wrong", "told", "far", "began", "block"):
        del stored["rollout"][name]
    del stored["rollout"]["plan"]["truths"]
    read = from_json(1, "digits", "production", stored)
    assert read.rollout is not None
    assert story(read, (30, Learnt(2, Counts(90, 1), Counts(40, 39)))).busy is False


def test_too_few_requests_are_no_verdict() -> None:
    waiting = story(serving(), (21, Observed(new=Counts(3, 0))), (100, Tick()))
    assert waiting.rollout is not None
    assert waiting.rollout.phase == "stepping"
    asked = story(waiting, (20 + 601, Tick()))
    assert asked.rollout is not None
    assert (asked.rollout.phase, wants(asked).share) == ("paused", 5)
    assert "3 of 20 requests" in asked.rollout.reason
    on = story(asked, (700, Ask("resume", "ann")), (701, good()), (761, Tick()))
    assert wants(on).share == 25


def test_a_paused_one_that_errs_is_rolled_back_all_the_same() -> None:
    paused = story(serving(), (21, Ask("pause", "ann")))
    bad = story(paused, (30, Observed(old=Counts(950, 1), new=Counts(50, 50))))
    assert bad.rollout is not None
    assert bad.rollout.phase == "rolled_back"


def test_back_to_the_version_before_at_once_while_it_is_warm_and_by_a_start_when_it_is_not() -> (
    None
):
    done = story(serving(), (21, Ask("promote", "ann")))
    back = story(done, (30, Ask("rollback", "bob")))
    assert (wants(back).stable, back.busy) == (1, False)
    assert wants(back).replicas == {1: 2, 2: 2}
    cold = story(done, (2000, Tick()))
    assert wants(cold).replicas == {2: 2}
    starting = story(cold, (2001, Ask("rollback", "bob")))
    assert (wants(starting).stable, wants(starting).replicas) == (2, {1: 2, 2: 2})
    assert wants(story(starting, (2010, Ready(1)))).stable == 1


def test_one_that_does_not_start_never_has_traffic() -> None:
    begun = story(serving(), (21, Ask("abort", "ann")), (30, Deployed(3, "3", 1, CANARY, "ann")))
    broken = story(begun, (31, Broken(3, "exit code 1")))
    assert broken.rollout is not None
    assert (broken.rollout.phase, wants(broken).stable) == ("rolled_back", 1)
    late = story(begun, (30 + 301, Tick()))
    assert late.rollout is not None
    assert "not ready within 300 s" in late.rollout.reason


@pytest.mark.parametrize("what", ["pause", "resume", "abort", "promote", "rollback"])
def test_what_makes_no_sense_is_refused_in_words(what: str) -> None:
    with pytest.raises(Conflict, match="digits has"):
        handle(EMPTY, Ask(what, "ann"), 0)  # type: ignore[arg-type]


def test_one_rollout_at_a_time() -> None:
    with pytest.raises(Conflict, match="rolls out 2 at production already"):
        handle(serving(), Deployed(3, "3", 1, CANARY, "bob"), 30)


# -- any order of events --------------------------------------------------------------------------

counts = st.builds(
    lambda seen, bad: Counts(seen, min(seen, bad)), st.integers(0, 80), st.integers(0, 80)
)
asks = st.sampled_from(["pause", "resume", "abort", "promote", "rollback", "remove"])
plans = st.sampled_from(
    [
        Plan(),
        CANARY,
        Plan(steps=(5,), shadow=10, agree=50),
        Plan(steps=(50,), rest=0, least=0),
        Plan(warm=0),
    ]
)
events = st.one_of(
    st.builds(lambda plan: ("deploy", plan), plans),
    st.builds(lambda last: ("ready", last), st.integers(0, 2)),
    st.builds(lambda last: ("broken", last), st.integers(0, 2)),
    st.builds(lambda a, b, c, d: Observed(a, b, c, d, 0.01), counts, counts, counts, counts),
    st.builds(lambda last, a, b: ("learnt", last, a, b), st.integers(0, 2), counts, counts),
    st.builds(lambda last, new: ("shadowed", last, new), st.integers(0, 2), counts),
    st.just(Tick()),
    st.builds(lambda what: Ask(what, "ann"), asks),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(events, st.sampled_from([0.0, 1.0, 61.0, 700.0])), max_size=40))
def test_whatever_happens(steps: list[tuple[object, float]]) -> None:
    deployment, now, newest = EMPTY, 0.0, 0
    were_ready: set[int] = set()
    for step, passed in steps:
        now += passed
        event: Event
        match step:
            case ("deploy", Plan() as plan):
                event = Deployed(newest + 1, f"v{newest + 1}", 2, plan, "ann")
            case ("ready", int() as last):
                event = Ready(newest - last)
                started = deployment.release(event.release)
                if started is not None and started.state != "retired":
                    were_ready.add(event.release)
            case ("broken", int() as last):
                event = Broken(newest - last, "exit code 1")
            case ("learnt", int() as last, Counts() as old, Counts() as new):
                event = Learnt(newest - last, old, new)
            case ("shadowed", int() as last, Counts() as some):
                before = Seen(some.seen, 0, {30: some.seen})
                event = Shadowed(
                    newest - last, {"a": Tally(before, Seen(some.seen, some.bad, {31: some.seen}))}
                )
            case _:
                event = step  # type: ignore[assignment]
        # A controller that is killed here and reads the registry goes on as if it had not been.
        stored = json.loads(json.dumps(to_json(deployment)))
        again = from_json(1, "digits", "production", stored)
        assert again == deployment
        try:
            after = handle(deployment, event, now).deployment
        except Conflict:
            continue
        assert handle(again, event, now).deployment == after
        if isinstance(event, Deployed):
            newest += 1
        check(deployment, after, were_ready)
        deployment = after


def check(before: Deployment, after: Deployment, were_ready: set[int]) -> None:
    wanted = wants(after)
    assert 0 <= wanted.share <= 100
    for number in (wanted.stable, wanted.candidate):
        if number is not None:
            assert number in were_ready, "traffic for what was never ready"
            assert wanted.replicas.get(number) == 2, "traffic for what is being stopped"
    assert (wanted.share > 0) <= (wanted.candidate is not None)
    if wanted.candidate is not None:
        assert wanted.stable is not None
        assert wanted.candidate != wanted.stable
    if before.live is not None and not after.removed:
        assert after.live is not None, "nobody serves any more"
    live = after.release(after.live)
    assert live is None or live.state == "live"
    assert sum(release.state == "live" for release in after.releases) == (live is not None)
    if before.rollout is not None and not before.busy and after.rollout is not None:
        same = replace(after.rollout, since=0) == replace(before.rollout, since=0)
        # What is over stays so; only a person begins another one, or goes back.
        assert same or after.rollout.phase in ("starting", "rolled_back")
    assert all(isinstance(item, Release) for item in after.releases)


def test_a_person_goes_back_to_the_version_before_also_after_a_canary_that_failed() -> None:
    both = story(serving(Plan()), (30, Ready(2)))
    assert (both.live, both.previous) == (2, 1)
    failed = story(
        both,
        (40, Deployed(3, "3", 1, CANARY, "ann")),
        (50, Ready(3)),
        (60, Ask("abort", "ann")),
        (70, Ask("rollback", "ann")),
    )
    assert (failed.live, wants(failed).stable) == (1, 1)
    with pytest.raises(Conflict, match="no version to go back to"):
        handle(failed, Ask("rollback", "ann"), 80)


def test_going_back_to_a_version_that_has_stopped_starts_it_first_and_is_not_taken_back() -> None:
    old = story(serving(Plan()), (30, Ready(2)), (10_000, Tick()), (10_001, Ask("rollback", "ann")))
    assert (old.live, wants(old).stable, set(wants(old).replicas)) == (2, 2, {1, 2})
    back = from_json(1, "digits", "production", json.loads(json.dumps(to_json(old))))
    back = story(back, (10_010, Ready(1)))
    assert (back.live, back.previous) == (1, None)
