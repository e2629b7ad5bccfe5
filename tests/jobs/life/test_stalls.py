"""When a silence is a stall, and whose it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.life.stalls import FLOOR, STOPPED, Rhythm, Stall, Vitals, judge, limit_of

STEADY = Vitals(
    rank=0,
    node="n1",
    process="sleeping",
    process_for=5.0,
    quiet=1.0,
    usual=4.0,
    longest=9.0,
    kept=7200.0,
)


def gang(*quiet: float, **changes: object) -> list[Vitals]:
    return [
        replace(STEADY, rank=rank, node=f"n{rank + 1}", quiet=seconds, **changes)  # type: ignore[arg-type]
        for rank, seconds in enumerate(quiet)
    ]


def test_a_rhythm_is_the_pause_between_steps_not_between_lines() -> None:
    rhythm, at = Rhythm(), 100.0
    for _ in range(20):  # two lines a step
        for pause in (0.25, 4.0):
            rhythm.beat(at)
            at += pause
    assert rhythm.usual == 4.0
    assert rhythm.longest == 4.0
    assert rhythm.kept == pytest.approx(at - 4.0 - 100.0)


def test_too_few_writes_make_no_rhythm() -> None:
    rhythm = Rhythm()
    for at in range(4):
        rhythm.beat(at)
    assert rhythm.usual is None
    rhythm.beat(4)
    assert rhythm.usual == 1


def test_a_rhythm_forgets_the_old_and_keeps_the_longest() -> None:
    rhythm, at = Rhythm(), 0.0
    for gap in [300.0] + [1.0] * 100:
        rhythm.beat(at)
        at += gap
    rhythm.beat(at)
    assert (rhythm.usual, rhythm.longest) == (1.0, 300.0)


def test_a_beat_of_the_past_does_not_turn_time_back() -> None:
    rhythm = Rhythm()
    rhythm.beat(10.0)
    rhythm.beat(5.0)
    assert (rhythm.last, list(rhythm.gaps)) == (10.0, [0.0])


@pytest.mark.parametrize(
    ("usual", "longest", "limit"),
    [
        (4.0, 9.0, FLOOR),
        (60.0, 70.0, 1200.0),  # 20 times the usual
        (4.0, 900.0, 2700.0),  # 3 times the longest: an evaluation each epoch
        (None, 0.0, None),
    ],
)
def test_the_limit_follows_the_rhythm(
    usual: float | None, longest: float, limit: float | None
) -> None:
    vitals = replace(STEADY, usual=usual, longest=longest)
    assert limit_of(vitals, None) == limit
    assert limit_of(vitals, 30.0) == 30.0


@pytest.mark.parametrize(
    ("ranks", "after", "verdict"),
    [
        (gang(1, 2), None, None),
        (gang(FLOOR, FLOOR), None, None),  # not longer than the limit
        (gang(720, 720.5), None, "rank 1 on n2 and 1 other have been silent for 13m; usual 4s"),
        (gang(720), None, "rank 0 on n1 has been silent for 12m; usual 4s"),
        # One that lost its rhythm is missed although others write.
        (gang(1, 720), None, "rank 1 on n2 has been silent for 12m; usual 4s"),
        # One that only wrote while it started is not, however long ago that was.
        ([*gang(1), *gang(0, 9999, kept=20.0)[1:]], None, None),
        # But it is silent with all the others, and is not the one to be named.
        ([*gang(700), *gang(0, 9999, kept=20.0)[1:]], None, "rank 0 on n1 and 1 other have"),
        # Ranks that never wrote are silent only with the others.
        ([*gang(1), *gang(0, 9999, usual=None, kept=0.0)[1:]], None, None),
        ([*gang(1), *gang(0, 9999, usual=None, kept=0.0)[1:]], 60.0, None),
        (gang(9999, 9999, usual=None, kept=0.0), None, None),  # nothing is known of either
        (gang(61, 61, usual=None, kept=0.0), 60.0, "rank 0 on n1 and 1 other have been silent"),
        (gang(61, 59, usual=None, kept=0.0), 60.0, None),
        ([], 60.0, None),
        ([], None, None),
    ],
)
def test_verdicts(ranks: list[Vitals], after: float | None, verdict: str | None) -> None:
    stall = judge(ranks, after)
    assert (stall is None) if verdict is None else (stall and stall.text.startswith(verdict))


def test_a_stopped_process_is_a_stall_whatever_the_others_do() -> None:
    ranks = gang(1, 2, 45)
    ranks[2] = replace(ranks[2], process="stopped", process_for=STOPPED - 1)
    assert judge(ranks, None) is None
    ranks[2] = replace(ranks[2], process_for=45.0)
    assert judge(ranks, None) == Stall(2, "n3", 45.0, stopped=True)
    text = "rank 2 on n3 has been stopped (SIGSTOP) for 45s"
    assert judge(ranks, None).text == text  # type: ignore[union-attr]


def test_a_job_may_be_less_patient_with_a_stopped_process_but_not_more() -> None:
    ranks = gang(1, process="stopped", process_for=5.0)
    assert judge(ranks, 4.0) is not None
    assert judge(ranks, 600.0) is None
    assert judge(gang(1, process="stopped", process_for=STOPPED), 600.0) is not None


def test_a_silent_gang_with_a_stopped_rank_is_stopped() -> None:
    ranks = gang(61, 61)
    ranks[0] = replace(ranks[0], process="stopped", process_for=2.0)
    assert judge(ranks, 60.0) == Stall(0, "n1", 2.0, stopped=True)


def test_the_stopped_rank_is_named_not_those_that_wait_for_it() -> None:
    ranks = gang(5000, 5000)
    ranks[1] = replace(ranks[1], process="stopped", process_for=5000.0)
    assert judge(ranks, None).rank == 1  # type: ignore[union-attr]


def test_of_a_silent_gang_the_rank_that_hangs_in_the_kernel_is_named() -> None:
    ranks = gang(702, 700, 701)
    ranks[1] = replace(ranks[1], process="disk")
    assert judge(ranks, None).rank == 1  # type: ignore[union-attr]
