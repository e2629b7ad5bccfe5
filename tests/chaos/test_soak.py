"""A minute of random real kills; and that its account notices what must never happen."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.node.staging.environment import WORKER_FOLDER
from tests.chaos.soak import account, story
from tests.chaos.soak.__main__ import report
from tests.chaos.soak.account import Job
from tests.chaos.soak.load import RANK
from tests.chaos.soak.run import Outcome, soak
from tests.chaos.soak.truth import Ask, Fault, Life, Truth, lives

MINUTES, SEED, LARGE = 0.6, 11, 200

FIRST = Life("j1", 1, 0, 101, 10.0, 12.0, 0, 3, 3, None, None, ())
SECOND = Life("j1", 2, 0, 102, 13.0, 15.0, 3, 5, 5, None, 0, ())
KILL = Fault("kill", "rank", 12.0, 12.0, run=("j1", 1), pid=101)


def job(*those: Life, kind: str = "steady", **fields: Any) -> Job:
    """A job whose record is that of its ranks."""
    attempts = sorted({life.attempt for life in those})
    ends = {life.attempt: "FAILED" if life.exit is None else "SUCCEEDED" for life in those}
    return Job(
        fields.get("ask", Ask("k", kind, 9.0, "j1", 9.5)),
        {
            "id": "j1",
            "state": fields.get("state", "SUCCEEDED"),
            "reason": "",
            "attempts": [
                {"number": n, "reason": "", "state": fields.get("attempt", ends[n])}
                for n in attempts
            ],
        },
        those,
        {
            (life.attempt, life.rank): [
                f"start {life.resumed}",
                *(f"tick {n}" for n in range(life.resumed + 1, life.lines + 1)),
                *([] if life.exit is None else [f"end {life.lines}"]),
            ]
            for life in those
        },
        {(life.attempt, life.rank): range(life.resumed + 1, life.points + 1) for life in those},
    )


def found(told: Job, *faults: Fault) -> str:
    wrong = [
        *account.one_at_a_time(told.lives),
        *account.told_once(told, faults),
        *account.ended_well(told, faults),
        *account.obeyed(told, faults),
    ]
    return "; ".join(wrong)


def test_nothing_is_said_of_a_job_that_was_hurt_and_went_on() -> None:
    assert found(job(FIRST, SECOND), KILL) == ""


def test_two_attempts_at_one_time_are_noticed() -> None:
    early = replace(SECOND, began=11.9)
    assert "began 0.100 s before j1.1/r0 was last alive" in found(job(FIRST, early), KILL)
    met = replace(SECOND, doubles=("j1.lock 101",))
    assert "began while j1.lock 101 was alive" in found(job(FIRST, met), KILL)
    twin = replace(FIRST, pid=103)
    assert "j1.1/r0 was started 2 times" in found(job(FIRST, twin, SECOND), KILL)


def test_a_line_that_is_lost_or_doubled_is_noticed() -> None:
    whole = job(FIRST, SECOND)
    log, steps = whole.logs, whole.steps
    short = replace(whole, logs={**log, (1, 0): log[1, 0][:-1]})
    assert "j1.1/r0 wrote 1 to 3, and its log has 1 to 2" in found(short, KILL)
    twice = replace(whole, logs={**log, (1, 0): [*log[1, 0], "tick 3"]})
    assert "its log has 1 to 3, then 3" in found(twice, KILL)
    cut = replace(whole, logs={**log, (2, 0): log[2, 0][:-1]})
    assert "the log of j1.2/r0 ends with ['tick 5']" in found(cut, KILL)
    lost = replace(whole, steps={**steps, (2, 0): [4]})
    assert "j1.2/r0 logged 4 to 5, and its metrics have 4 to 4" in found(lost, KILL)
    last_words = replace(whole, logs={**log, (1, 0): [*log[1, 0], "tick 4"]})
    assert found(last_words, KILL) == "", "killed between the print and the note of it"


def test_an_end_that_nobody_caused_is_noticed() -> None:
    assert "j1.1 is FAILED though nobody hurt it" in found(job(FIRST, SECOND))
    assert "has not ended" in found(job(FIRST, SECOND, state="QUEUED"), KILL)
    assert "nobody asked for it" in found(job(FIRST, attempt="CANCELLED", state="CANCELLED"))
    assert "SUCCEEDED, and its last ranks" in found(job(FIRST, attempt="SUCCEEDED"))
    early = [*job(FIRST, SECOND).view["attempts"], {"number": 3, "reason": "", "state": "LOST"}]
    never = replace(job(FIRST, SECOND), view={**job(SECOND).view, "attempts": early})
    assert "j1.3" not in found(never, KILL), "given up before it was launched"
    away = Fault("kill", "controller", 11.0, 11.0)
    assert "j1.1 is LOST though" in found(job(FIRST, attempt="LOST", state="SUCCEEDED"), away)


def test_what_ran_on_after_its_cancel_is_noticed_but_for_what_kept_the_stop_away() -> None:
    ask = Ask("k", "steady", 9.0, "j1", 9.5, cancelled=11.0)
    late = replace(FIRST, last=18.0)
    told = job(late, ask=ask, state="CANCELLED", attempt="CANCELLED")
    assert "j1.1/r0 ran for 7.0 s after its cancel" in found(told)
    assert found(told, Fault("stop", "agent", 12.0, 14.0)) == ""
    assert account.calm([Fault("stop", "agent", 12.0, 14.0)], 11.0, 50.0) == 1.0 + 16.0


def test_a_submit_that_was_lost_or_became_two_jobs_is_noticed() -> None:
    asks = [Ask("a", "short", 1.0, "j1", 1.1), Ask("b", "short", 2.0, "j2", 2.1)]
    views = [{"id": "j1", "tags": {}}, {"id": "j2", "tags": {}}, {"id": "j9", "tags": {"sweep": 1}}]
    assert list(account.submits(asks, views)) == []
    assert "j2 was acknowledged and is not there" in list(account.submits(asks, views[:1]))
    assert "j1 is the answer to 2 submits" in list(account.submits([*asks, asks[0]], views))
    (told,) = account.submits(asks[:1], views)
    assert told.startswith("j2 is there twice")


def test_a_trial_that_was_told_wrong_is_noticed() -> None:
    ran = job(replace(SECOND, loss=0.5), ask=None)
    view = {"number": 0, "state": "COMPLETE", "params": {"x": 1.0}, "values": [0.5], "job": "j1"}
    view["reason"] = ""
    told = {"number": 0, "state": "COMPLETE", "params": {"x": 1.0}, "values": [0.5]}

    def check(*views: dict[str, Any], seen: dict[str, Any] = told, wanted: int = 1) -> str:
        return "; ".join(account.trials(views, [seen] * len(views), {"j1": ran}, wanted, []))

    assert check(view) == ""
    assert "for Optuna RUNNING" in check(view, seen=told | {"state": "RUNNING"})
    assert "logged [0.5], has [0.4]" in check(view | {"values": [0.4]})
    went_on = replace(ran, lives=[*ran.lives, replace(SECOND, attempt=3, loss=None)])
    assert list(account.trials([view], [told], {"j1": went_on}, 1, [])) == []
    assert "was given to 2 trials" in check(view, view | {"number": 1}, wanted=2)
    assert "has 1 trials, not 2" in check(view, wanted=2)
    assert "though nobody hurt it" in check(
        view | {"state": "FAILED"}, seen=told | {"state": "FAIL"}
    )


def test_a_rank_keeps_a_diary_and_meets_whoever_should_be_dead(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    diary.mkdir()
    env = {**os.environ, "PYTHONPATH": str(WORKER_FOLDER), "RANK": "0"}
    env["QD_CHECKPOINT_DIR"] = str(tmp_path / "checkpoint")

    def start(run: str, ticks: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(RANK), str(diary), str(ticks)]
        return subprocess.Popen(command, env={**env, "QD_RUN": run}, stdout=subprocess.PIPE)

    with start("j1.1", 1000) as first:
        assert first.stdout is not None
        while b"tick 2" not in first.stdout.readline():
            pass
        with start("j1.2", 0) as second:
            second.communicate()
        first.kill()
    with start("j1.3", 0) as third:
        third.communicate()
    one, two, three = lives(diary)
    assert (one.job, one.attempt, one.rank, one.pid, one.exit) == ("j1", 1, 0, first.pid, None)
    assert one.lines >= one.points >= 1
    assert two.doubles == (f"j1.lock {first.pid}",)
    assert (three.doubles, three.exit) == ((), 0)


def test_a_failing_seed_tells_the_story_of_the_jobs_concerned(tmp_path: Path) -> None:
    truth = Truth(tmp_path, began=9.0, faults=[KILL, Fault("stop", "agent", 12.5, 13.0)])
    truth.asks = [Ask("a", "steady", 9.0, "j1", 9.5), Ask("b", "short", 9.0, "j2", 9.6)]
    other = replace(FIRST, job="j2")
    outcome = Outcome(["j1.2/r0 began"], story.timeline(truth, [], [FIRST, SECOND, other]), "1 job")
    text = report(outcome, 2.0, 7)
    assert "kill rank of j1.1 (101)" in text
    assert "stop agent for 0.5 s" in text
    assert "j2" not in text
    assert "Again: python -m tests.chaos.soak --minutes 2 --seed 7" in text
    assert report(replace(outcome, wrong=[]), 2.0, 7) == "seed 7, 2 min: 1 job; all is well"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_short_soak() -> None:
    outcome = soak(MINUTES, SEED, large=LARGE)
    assert not outcome.wrong, "\n" + report(outcome, MINUTES, SEED, large=LARGE)
