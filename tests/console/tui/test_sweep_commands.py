"""What the console asks of sweeps, in words, and what it makes of what is typed."""

from __future__ import annotations

from typing import Any

import pytest

from console.tui.core.base.commands import Command, Refusal
from console.tui.core.sweeps import commands, space
from jobs.wire.sweepviews import ObjectiveView, SweepView
from tests.console.tui import fake_sweeps

UP: ObjectiveView = {"metric": "val_acc", "goal": "maximize"}
TRIALS = fake_sweeps.trials()
LIVE = fake_sweeps.sweep(4, TRIALS)
OVER = fake_sweeps.sweep(3, TRIALS, "FINISHED")
AXES = {a.name: a for a in space.dimensions(fake_sweeps.SPACE, TRIALS, UP, log=False) if a.name}


def asked(proposal: Command | Refusal) -> Command:
    assert isinstance(proposal, Command), proposal
    return proposal


def refused(proposal: Command | Refusal) -> str:
    assert isinstance(proposal, Refusal), proposal
    return proposal.why


def test_pause_turns_into_resume() -> None:
    assert asked(commands.pause([LIVE])).verb == "pause"
    paused: SweepView = {**LIVE, "state": "PAUSED"}
    assert asked(commands.pause([paused])).verb == "resume"
    both = asked(commands.pause([paused, LIVE]))
    assert (both.verb, both.targets) == ("pause", ("s4",))
    assert "1 other of the marked stay" in " ".join(both.effects)
    assert "over" in refused(commands.pause([OVER]))


def test_stop_is_dangerous_and_says_what_it_ends() -> None:
    stop = asked(commands.stop([LIVE, OVER]))
    assert stop.dangerous and stop.targets == ("s4",)
    assert "4 open trials" in " ".join(stop.effects)
    assert "over" in refused(commands.stop([OVER]))


def test_only_live_trials_are_pruned_and_pinned() -> None:
    prune = asked(commands.prune(LIVE, [TRIALS[36], TRIALS[0], TRIALS[37]]))
    assert prune.targets == ("s4/36", "s4/37")
    assert "1 other of the marked stay" in " ".join(prune.effects)
    assert "runs or waits" in refused(commands.prune(LIVE, [TRIALS[0]]))
    assert asked(commands.pin(LIVE, [TRIALS[36]])).verb == "pin"
    assert asked(commands.pin(LIVE, [{**TRIALS[36], "pinned": True}])).verb == "unpin"


def test_running_again_a_sweep_that_is_over_says_that_it_goes_on() -> None:
    again = asked(commands.rerun(OVER, [TRIALS[0]]))
    assert again.targets == ("s3/0",)
    assert "goes on" in " ".join(again.effects)
    assert "There is no trial" in refused(commands.rerun(LIVE, []))


@pytest.mark.parametrize(
    ("typed", "body"),
    [
        ("trials=80", {"trials": 80}),
        ("parallel=8 time=2h", {"parallel": 8, "time": 7200.0}),
        ("time=1h30m", {"time": 5400.0}),
        ("time=90", {"time": 90.0}),
        ("time=90 gpu_hours=1.5", {"time": 90.0, "gpu_hours": 1.5}),
    ],
)
def test_limits_are_typed(typed: str, body: dict[str, Any]) -> None:
    assert asked(commands.extend(LIVE, typed)).body == body


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "nothing is changed"),
        ("trials=60", "nothing is changed"),
        ("trails=60", "no limit 'trails'"),
        ("trials=0", "trials: a number above 0"),
        ("trials=2.5", "trials: a number above 0"),
        ("time=soon", "time: a time such as"),
        ("time=inf", "time: a time such as"),
        ("gpu_hours=-1", "gpu_hours: a number above 0"),
        ("gpu_hours=nan", "gpu_hours: a number above 0"),
    ],
)
def test_limits_that_cannot_be_are_refused_in_words(typed: str, why: str) -> None:
    assert why in refused(commands.extend(LIVE, typed))


def test_the_limits_there_are_can_be_typed_again() -> None:
    budget: SweepView = {**LIVE, "time_budget": 600.0, "gpu_hours_budget": 2.0}
    assert commands.limits_text(budget) == "trials=60 parallel=4 time=600s gpu_hours=2"
    assert "nothing is changed" in refused(commands.extend(budget, commands.limits_text(budget)))


def test_fewer_trials_than_there_are_is_said() -> None:
    assert "40 trials already" in " ".join(asked(commands.extend(LIVE, "trials=10")).effects)


def test_a_point_is_typed_and_what_is_left_out_is_drawn() -> None:
    point = asked(commands.add(LIVE, "lr=1e-3 width=128 optimizer=adam", AXES))
    assert point.body == {"points": [{"lr": 1e-3, "width": 128, "optimizer": "adam"}]}
    assert "layers, dropout, momentum" in " ".join(point.effects)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "type a point"),
        ("lr", "no parameter 'lr'"),
        ("eta=1", "no parameter 'eta'"),
        ("lr=fast", "not a number"),
        ("lr=5", "lr is from 1.0e-4 to 0.1"),
        ("width=100", "width is one of 64, 128, 192, 256"),
        ("layers=1.5", "layers is a whole number"),
        ("lr='", "no closing quotation"),
    ],
)
def test_points_outside_of_the_space_are_refused_in_words(typed: str, why: str) -> None:
    assert why in refused(commands.add(LIVE, typed, AXES))


def test_a_trials_own_point_is_one() -> None:
    for trial in TRIALS:
        asked(commands.add(LIVE, commands.point_text(trial["params"]), AXES))


@pytest.mark.parametrize("typed", ["8", " 8 ", "parallel=8"])
def test_the_number_of_trials_at_a_time_is_a_number(typed: str) -> None:
    command = commands.parallel(LIVE, typed)
    assert isinstance(command, Command) and command.body == {"parallel": 8}


@pytest.mark.parametrize("typed", ["", "0", "1.5", "many", "inf", "nan"])
def test_what_is_no_number_of_trials_is_refused(typed: str) -> None:
    assert refused(commands.parallel(LIVE, typed))
