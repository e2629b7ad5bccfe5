"""A loop like that of a Ray actor, made calm: it is woken less often, and by calls as before."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from agents.fabric import calm
from tests.waiting import until

libc = ctypes.CDLL(None, use_errno=True)


class Loop:
    """What Boost does in a thread: it sleeps until its timer fires, which it then sets anew, or until
    `call`, or until something else stops it."""

    def __init__(self, period: float) -> None:
        self._period, self._epoll = period, select.epoll()
        self.timer = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
        self._called, self._calls = os.pipe()
        for descriptor in (self.timer, self._called):
            self._epoll.register(descriptor, select.EPOLLIN)
        self.beats, self.calls, self.going = 0, 0, True
        self._set()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _set(self) -> None:
        times = (ctypes.c_long * 4)(0, 0, 0, int(self._period * 1e9))  # struct itimerspec
        assert libc.timerfd_settime(self.timer, 0, times, None) == 0

    def _run(self) -> None:
        while self.going:
            for mark, _ in self._epoll.poll():
                if mark == self.timer:
                    self.beats += 1
                    self._set()
                else:
                    os.read(self._called, 1)
                    self.calls += 1

    def call(self) -> None:
        os.write(self._calls, b".")

    def has_been_called(self, times: int) -> bool:
        return self.calls == times

    def close(self) -> None:
        self.going = False
        self.call()
        self.thread.join()
        for descriptor in (self.timer, self._called, self._calls):
            os.close(descriptor)
        self._epoll.close()


@contextlib.contextmanager
def looping(period: float) -> Iterator[Loop]:
    loop = Loop(period)
    try:
        yield loop
    finally:
        loop.close()


def test_a_loop_is_woken_by_calls_and_when_it_is_told_to() -> None:
    with looping(0.01) as loop, looping(0.1) as slower:
        beat = calm.calm("2.60.3")
        assert beat is not None
        time.sleep(0.02)  # one may have been on its way
        for number in range(1, 4):
            loop.beats = slower.beats = 0
            time.sleep(0.15)
            assert loop.beats == 0
            assert slower.beats > 0
            os.eventfd_write(beat, 1)
            until(lambda: loop.beats, "the beat", pause=0.001)
            loop.call()
            until(partial(loop.has_been_called, number), "the call", pause=0.001)
        assert not calm.quick_timers()
    os.close(beat)


def test_another_ray_is_left_alone() -> None:
    with looping(0.01):
        assert calm.calm("2.61.0") is None
        assert len(calm.quick_timers()) == 1


@pytest.mark.parametrize("periods", [(0.1,), (0.01, 0.01)], ids=["none", "two"])
def test_without_exactly_one_such_timer_nothing_is_done(periods: tuple[float, ...]) -> None:
    with contextlib.ExitStack() as stack:
        loops = [stack.enter_context(looping(period)) for period in periods]
        assert calm.calm("2.60.0") is None
        beats = [loop.beats for loop in loops]
        time.sleep(0.25)
        assert all(loop.beats > before for loop, before in zip(loops, beats, strict=True))
