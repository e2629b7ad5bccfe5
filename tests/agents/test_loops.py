"""A loop goes on whatever a turn brings, and says what is wrong while it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agents import loops
from jobs.base.errors import Conflict


class Turns:
    """Work that comes to what it was given, turn by turn; the last one ends the loop."""

    def __init__(self, *outcomes: Exception | bool) -> None:
        self._outcomes = list(outcomes)

    async def __call__(self) -> bool:
        outcome = self._outcomes.pop(0) if self._outcomes else True
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the loop slept, in seconds; no time passes."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return seconds


async def test_trouble_is_said_while_it_lasts_and_ends_nothing(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    turns = Turns(False, Conflict("held"), ZeroDivisionError("odd"), False, False)
    await loops.loop("thing", turns, 7.0, said.append)
    assert said == ["held", "internal error: ZeroDivisionError('odd')", ""]
    assert slept == [7.0] * 5
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_what_nobody_is_told_is_in_the_log(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    await loops.loop("thing", Turns(Conflict("held")), 7.0)
    assert "thing: held" in caplog.text


async def test_failures_in_a_row_wait_longer_up_to_a_bound(slept: list[float]) -> None:
    wrong = Conflict("held")
    turns = Turns(wrong, wrong, wrong, wrong, False, wrong)
    await loops.loop("thing", turns, 7.0, again=(1.0, 5.0))
    assert slept == [1.0, 2.0, 4.0, 5.0, 7.0, 1.0]


async def test_the_last_turn_takes_back_a_complaint(slept: list[float]) -> None:
    said: list[str] = []
    await loops.loop("thing", Turns(Conflict("held"), True), 7.0, said.append)
    assert said == ["held", ""]


async def test_a_complaint_may_take_its_time(slept: list[float]) -> None:
    said: list[str] = []

    async def complain(problem: str) -> None:
        await asyncio.sleep(3.0)
        said.append(problem)

    await loops.loop("thing", Turns(Conflict("held")), 7.0, complain)
    assert (said, slept) == (["held", ""], [3.0, 7.0, 3.0])


async def test_a_cancelled_loop_ends() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(loops.loop("thing", work, 7.0))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_failure_keeps_nothing_from_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def work(number: int, error: Exception | None = None) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            done.append(number)
            if error is not None:
                raise error

        return run

    works = [work(1), work(2, Conflict("first")), work(3, ValueError("second")), work(4)]
    with pytest.raises(Conflict, match="first"):
        await loops.each("things", works)
    assert done == [1, 2, 3, 4]
    assert "second" in caplog.text


async def test_woken_or_not() -> None:
    event = asyncio.Event()
    assert not await loops.woken(event, 0.0)
    assert not await loops.woken(event, -1.0)
    event.set()
    assert await loops.woken(event, 60.0)
