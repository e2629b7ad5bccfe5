"""Fewer wake-ups of an actor's process.

The main loop of a Ray actor looks for signals every 10 ms; the period is a constant in Ray's C++
(`CoreWorker::RunTaskExecutionLoop`). Being woken a hundred times a second takes half a percent of a core,
twice what the agent takes to watch eight GPUs. So the loop's timer is given another beat.

The loop is Boost's, on Linux: an epoll descriptor, with which a timer is registered that Boost sets anew
each time it has fired. Here an event of ours is registered under the same mark, and Boost's timer is
replaced, under its number, by one that is registered nowhere. What wakes the loop for a call is another
descriptor, which stays as it is: calls are as quick as before. Only what the loop does by the clock, and
that is to look for signals, waits until our event is set. Whoever calms an actor sets it now and then.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import select
import time
from pathlib import Path
from typing import NamedTuple

RAY = "2.60."
"""The Ray of which this was seen to be true; with any other, nothing is changed."""

_PERIOD = 0.0105
"""Seconds that Boost's timer has left at most, whenever it is looked at, if it is the one that is meant.
Ray's next slower timer comes every 100 ms."""
_LOOKS, _QUICK, _SLOW = 12, 3, 2
"""Looks at each timer, how many must find it so, and how many may find more. It is not set for a moment when
it has fired, longer on a machine that is busy, and Boost may first set it to five minutes."""
_PAUSE = 0.007
_DESCRIPTORS, _FDINFO = Path("/proc/self/fd"), Path("/proc/self/fdinfo")
_REGISTERED = re.compile(r"tfd:\s*(\d+) events:\s*\w+ data:\s*([0-9a-f]+)")
_LEFT = re.compile(r"it_value: \((\d+), (\d+)\)")
_ADD = 1  # EPOLL_CTL_ADD


class _Event(ctypes.Structure):  # struct epoll_event, which has no gap on x86-64 alone
    if platform.machine() == "x86_64":
        _pack_ = 1
    _fields_ = [("events", ctypes.c_uint32), ("data", ctypes.c_uint64)]


class Timer(NamedTuple):
    """A timer descriptor that is registered with an epoll descriptor."""

    epoll: int
    number: int
    mark: int  # what epoll tells of it when it has fired


def calm(ray: str) -> int | None:
    """Keep the main loop of this process, an actor's, from beating; it takes 80 ms.

    Args:
        ray: version of Ray.

    Returns:
        The descriptor of an event that makes it beat once, each time it is set (`os.eventfd_write`); None
        when nothing was changed.
    """
    if not ray.startswith(RAY):
        return None
    quick = quick_timers()
    return take_over(quick[0]) if len(quick) == 1 else None


def quick_timers() -> list[Timer]:
    """Timers of this process that are set anew every 10 ms."""
    looks: dict[Timer, list[float]] = {timer: [] for timer in _timers()}
    for _ in range(_LOOKS):
        for timer, lefts in looks.items():
            lefts.append(_left(timer))
        time.sleep(_PAUSE)
    return [
        timer
        for timer, lefts in looks.items()
        if sum(0 < left <= _PERIOD for left in lefts) >= _QUICK
        and sum(left > _PERIOD for left in lefts) <= _SLOW
    ]


def _timers() -> list[Timer]:
    kinds = {int(path.name): _kind(path.name) for path in _FDINFO.iterdir()}
    return [
        Timer(epoll, int(number), int(mark, 16))
        for epoll, kind in kinds.items()
        if kind == "anon_inode:[eventpoll]"
        for number, mark in _REGISTERED.findall(_told(epoll))
        if kinds.get(int(number)) == "anon_inode:[timerfd]"
    ]


def _kind(number: str) -> str:
    try:
        return str((_DESCRIPTORS / number).readlink())
    except OSError:  # closed since it was listed
        return ""


def _told(number: int) -> str:
    try:
        return (_FDINFO / str(number)).read_text()
    except OSError:
        return ""


def _left(timer: Timer) -> float:
    """Seconds until it fires, 0 when it is not set."""
    found = _LEFT.search(_told(timer.number))
    return int(found[1]) + int(found[2]) / 1e9 if found else float("inf")


def take_over(timer: Timer) -> int | None:
    """Put an event in the place of a timer that its owner sets; None when the kernel refuses."""
    libc = ctypes.CDLL(None)
    idle: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
    if idle < 0:
        return None
    try:
        beat = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Edge-triggered: nobody reads it. Its owner only ever sets the timer.
        event = _Event(select.EPOLLIN | select.EPOLLET, timer.mark)
        if libc.epoll_ctl(timer.epoll, _ADD, beat, ctypes.byref(event)):
            os.close(beat)
            return None
        os.dup2(idle, timer.number, inheritable=False)
        return beat
    finally:
        os.close(idle)
