"""An event loop whose time is a number, and processes that may die at any of their awaits.

Nothing here waits: when no callback is ready, time jumps to the next timer. What a thread would do
is done in the loop, some virtual time later.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

START = 1_000.0
"""Virtual seconds at which a history begins; clocks rarely begin at zero."""

EPOCH = 1_700_000_000.0
"""Unix time at virtual time zero."""

_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Process:
    """Callbacks that live and die together. What a dead one awaited never comes, and none of its
    `finally` blocks run before the history is over: like SIGKILL, unlike cancellation."""

    __slots__ = ("_context", "_loop", "dead", "fuse", "name")

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self._loop, self.name, self.dead = loop, name, False
        self.fuse: tuple[int, Callable[[], None]] | None = None  # callbacks left, who is told
        self._context = contextvars.copy_context()
        self._context.run(_PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task of this process."""
        return self._loop.create_task(work, context=self._context.copy())

    def kill(self) -> None:
        self.dead = True

    def kill_after(self, callbacks: int, told: Callable[[], None]) -> None:
        """Die when so many more callbacks were asked for: somewhere between two awaits."""
        self.fuse = (callbacks, told)

    def count_down(self) -> None:
        assert self.fuse is not None
        left, told = self.fuse
        self.fuse = (left - 1, told)
        if left <= 0:
            self.fuse, self.dead = None, True
            told()


class Stuck(AssertionError):
    """Nothing can ever happen any more, yet the history is not over."""


class _NoSelector:
    """Stands where a loop asks the kernel what is ready: nothing ever is, but time passes."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("no timer is left and nothing is ready")
        if timeout > 0:
            self._loop.jump()
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Args:
    rng: decides how long each piece of a thread's work takes.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._now = START
        self._selector = _NoSelector(self)
        self._clock_resolution = 1e-9
        self._busy_until: dict[ThreadPoolExecutor, float] = {}  # when a one-thread pool is free
        self.stillborn: list[asyncio.Task[Any]] = []
        self.drag = 1.0  # how much slower than usual the disk is
        self.after_work: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self._now

    def jump(self) -> None:
        """To the next timer."""
        self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def create_task(  # type: ignore[override]
        self, work: Coroutine[Any, Any, Any], **how: Any
    ) -> asyncio.Task[Any]:
        task = super().create_task(work, **how)
        context = how.get("context")
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        if process is not None and process.dead:  # nobody else holds what will never begin
            self.stillborn.append(task)
        return task

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        if process is not None:
            if process.fuse is not None:
                process.count_down()
            if process.dead:
                never = asyncio.Handle(callback, args, self, context)
                never.cancel()
                return never
        handle = super().call_soon(callback, *args, context=context)
        if process is not None:
            handle._callback = _Alive(process, handle._callback)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        if process is not None and process.dead:
            never = asyncio.TimerHandle(when, callback, args, self, context)
            never.cancel()
            return never
        handle = super().call_at(when, callback, *args, context=context)
        if process is not None:
            handle._callback = _Alive(process, handle._callback)  # type: ignore[attr-defined]
        return handle

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run it in the loop: half of its time passes before it acts, half before the caller knows.
        A pool of one thread keeps its order. A process that dies in the first half has not acted, one
        that dies in the second has."""
        future = self.create_future()
        # A disk mostly answers in milliseconds, and sometimes it does not.
        half = self._rng.random() * (0.002 if self._rng.random() < 0.9 else 0.3) * self.drag
        start = self._now
        if isinstance(executor, ThreadPoolExecutor) and executor._max_workers == 1:
            start = max(start, self._busy_until.get(executor, 0.0))
            self._busy_until[executor] = start + 2 * half

        def act() -> None:
            try:
                result = func(*args)
            except BaseException as error:  # the caller gets whatever it was
                self.call_later(half, _settle, future.set_exception, future, error)
            else:
                self.call_later(half, _settle, future.set_result, future, result)
            self.after_work()

        self.call_at(start + half, act)
        return future

    def finish(self) -> None:
        """Drop whatever is pending, quietly. The loop cannot be used afterwards."""
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.call_soon = self.call_at = lambda *a, **k: None  # type: ignore[method-assign,assignment]
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Any = task.get_coro()
            try:
                coroutine.close()
            except RuntimeError:  # it awaits in its `finally`
                continue
        self.close()


class _Alive:
    """A callback that is not made once its process is dead."""

    __slots__ = ("_call", "_process")

    def __init__(self, process: Process, call: Callable[..., Any]) -> None:
        self._process, self._call = process, call

    def __call__(self, *args: Any) -> None:
        if not self._process.dead:
            self._call(*args)


def _settle(how: Callable[[Any], None], future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        how(value)
