"""A shadow: copies of requests are compared, and nothing else of the rollout's promises changes."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.base.errors import Conflict
from jobs.life.vocabulary import Note
from jobs.services.histogram import Seen
from jobs.services.rollout import (
    Ask,
    Deployed,
    Deployment,
    Event,
    Plan,
    Ready,
    Shadowed,
    Tick,
    handle,
    wants,
)
from jobs.services.shadow import Output, Tally, merged, total
from jobs.services.stored import from_json, to_json

EMPTY = Deployment(1, "digits", "production")
SHADOW = Plan(steps=(5, 50), rest=60, least=20, shadow=10)


def story(deployment: Deployment, *events: tuple[float, Event]) -> Deployment:
    for now, event in events:
        deployment = handle(deployment, event, now).deployment
    return deployment


def serving(plan: Plan = SHADOW) -> Deployment:
    return story(
        EMPTY,
        (0, Deployed(1, "1", 2, Plan(), "ann")),
        (1, Ready(1)),
        (10, Deployed(2, "2", 2, plan, "ann")),
        (20, Ready(2)),
    )


def tally(seen: int, *, bad: int = 0, same: int | None = None, place: int = 30) -> Tally:
    label = Output(seen, seen if same is None else same, seen, 3.0, 1.5)
    return Tally(Seen(seen, 0, {30: seen}), Seen(seen, bad, {place: seen}), 1, {"label": label})


def told(seen: int, source: str = "a", **more: int) -> Shadowed:
    return Shadowed(2, {source: tally(seen, **more)})


def test_a_shadow_has_copies_and_no_traffic_until_a_person_promotes_it() -> None:
    begun = serving()
    wanted = wants(begun)
    assert (wanted.shadow, wanted.copies, wanted.candidate, wanted.share) == (2, 10, None, 0)
    assert wanted.stable == 1 and wanted.replicas == {1: 2, 2: 2}
    waiting = story(begun, (30, told(15)), (85, Tick()))
    assert waiting.rollout is not None and not waiting.rollout.reason
    ready = story(waiting, (90, told(40, same=39)), (91, Tick()), (92, Tick()))
    assert ready.rollout is not None
    assert ready.rollout.reason.startswith("no worse in 40 copies; label is the same in 39 of 40")
    assert wants(ready).shadow == 2, "a person decides"
    first = story(ready, (100, Ask("promote", "ann")))
    assert (wants(first).candidate, wants(first).share, wants(first).shadow) == (2, 5, None)
    assert first.rollout is not None and first.rollout.errors.new.seen == 0
    assert total(first.rollout.sources).new.seen == 40, "what was compared stays to be seen"
    gone = story(ready, (100, Ask("abort", "ann")))
    assert (wants(gone).shadow, wants(gone).stable, gone.busy) == (None, 1, False)


def test_without_steps_a_shadow_is_promoted_to_all() -> None:
    done = story(serving(replace(SHADOW, steps=())), (30, Ask("promote", "ann")))
    assert (wants(done).stable, done.busy) == (2, False)


@pytest.mark.parametrize(("same", "share"), [(99, 5.0), (98, 0.0)])
def test_agreement_decides_where_it_was_asked_for(same: int, share: float) -> None:
    begun = serving(replace(SHADOW, agree=99))
    early = story(begun, (30, told(100, same=same)))
    assert wants(early).shadow == 2, "not before its time"
    after = story(early, (81, Tick()))
    assert wants(after).share == share
    assert after.rollout is not None
    if not share:
        assert after.rollout.phase == "rolled_back"
        assert "it answers otherwise: label is the same in 98 of 100 rows" in after.rollout.reason


def test_one_that_errs_or_is_slow_is_over() -> None:
    bad = story(serving(), (30, told(30)), (31, told(90, bad=30)))
    assert bad.rollout is not None
    assert (bad.rollout.phase, wants(bad).shadow) == ("rolled_back", None)
    assert "it errs more: 30 of 90 requests" in bad.rollout.reason
    slow = story(
        serving(), (30, told(30)), (31, told(30, "b", place=60)), (32, told(90, "b", place=60))
    )
    assert slow.rollout is not None and "it is slower" in slow.rollout.reason


def test_too_few_copies_are_said_once() -> None:
    late = serving()
    notes: list[Note] = []
    for now in (90, 700, 701):
        result = handle(late, Tick(), now)
        late, notes = result.deployment, [*notes, *result.notes]
    assert [note.kind for note in notes] == ["rollout.shadowed"]
    assert late.rollout is not None and late.rollout.reason.startswith("inconclusive: 0 of 20")
    enough = story(late, (702, told(20)), (703, Tick()))
    assert enough.rollout is not None and enough.rollout.reason.startswith("no worse")


def test_there_must_be_something_to_compare_with_and_nothing_to_pause() -> None:
    with pytest.raises(Conflict, match="whose answers could be compared"):
        handle(EMPTY, Deployed(1, "1", 1, SHADOW, "ann"), 0)
    with pytest.raises(Conflict, match="a shadow at production: nothing to pause"):
        handle(serving(), Ask("pause", "ann"), 30)


tallies = st.builds(
    lambda seen, bad, dropped: replace(tally(seen, bad=min(seen, bad)), dropped=dropped),
    st.integers(0, 40), st.integers(0, 40), st.integers(0, 40),
)  # fmt: skip


def grown(one: Tally, more: Tally) -> Tally:
    return one + more


@given(st.lists(st.tuples(st.sampled_from("abc"), tallies), max_size=20), st.randoms())
def test_what_is_told_twice_or_late_changes_nothing(
    steps: list[tuple[str, Tally]], dice: random.Random
) -> None:
    """Whatever the order in which growing counts are read: the sum is of the last of each source."""
    last: dict[str, Tally] = {}
    said: list[dict[str, Tally]] = []
    for source, more in steps:
        last = last | {source: grown(last.get(source, Tally()), more)}
        said.append(dict(last))
    again = [*said, *dice.sample(said, len(said) // 2)]
    dice.shuffle(again)
    known: dict[str, Tally] = {}
    for sources in again:
        known = merged(known, sources)
    assert total(known).size == total(last).size
    assert total(known).new.seen == total(last).new.seen


@given(st.lists(st.one_of(tallies, st.sampled_from([1.0, 61.0, 700.0])), max_size=30))
def test_a_controller_that_is_killed_anywhere_goes_on_as_if_it_had_not_been(
    steps: list[Tally | float],
) -> None:
    deployment, now, sources = serving(), 20.0, {"a": Tally()}
    for step in steps:
        event: Event = Tick()
        if isinstance(step, float):
            now += step
        else:
            sources = {"a": sources["a"] + step}
            event = Shadowed(2, sources)
        again = from_json(1, "digits", "production", json.loads(json.dumps(to_json(deployment))))
        assert again == deployment
        after = handle(deployment, event, now).deployment
        assert handle(after, event, now).deployment == after, "the same once more is nothing new"
        wanted = wants(after)
        assert wanted.stable == 1 and wanted.candidate is None, "it never gets a request of its own"
        assert (wanted.shadow == 2) == after.busy
        deployment = after


def test_a_thousand_shadows_that_are_no_worse() -> None:
    """Looked at after every ten copies: at most 5 % may ever be rolled back."""
    dice, wrong = random.Random(1), 0
    for _ in range(1000):
        deployment, sources = serving(), {"a": Tally()}
        for now in range(30, 50):
            old = [dice.random() < 0.05 for _ in range(10)]
            new = [dice.random() < 0.05 for _ in range(10)]
            slow = [60 if dice.random() < 0.05 else 30 for _ in range(20)]
            more = Tally(
                Seen(10, sum(old), {30: slow[:10].count(30), 60: slow[:10].count(60)}),
                Seen(10, sum(new), {30: slow[10:].count(30), 60: slow[10:].count(60)}),
            )
            sources = {"a": sources["a"] + more}
            deployment = story(deployment, (now, Shadowed(2, sources)))
        wrong += not deployment.busy
    assert wrong <= 50, wrong
