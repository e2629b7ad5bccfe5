"""Agents that misbehave between the controller and a real one, for planes in this process."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from jobs.base.errors import Unreachable


class Held:
    """Holds one method's first call, `before` or after the agent has acted, for ever: the controller
    is killed while it waits. Later calls pass."""

    def __init__(self, agent: Any, method: str, *, before: bool) -> None:
        self._agent, self._method, self._before = agent, method, before
        self.reached = asyncio.Event()

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any) -> Any:
            hold = method == self._method and not self.reached.is_set()
            if hold and self._before:
                self.reached.set()
                await asyncio.Event().wait()
            acting = asyncio.ensure_future(getattr(self._agent, method)(*args))
            if hold:
                # Also when the caller has lost interest meanwhile, having heard of it another way.
                acting.add_done_callback(lambda _: self.reached.set())
                await acting
                await asyncio.Event().wait()
            return await acting

        return call


class Apart:
    """An agent as if in a process of its own: when it ends, its callers hear of that and do not end."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any) -> Any:
            acting = asyncio.ensure_future(getattr(self._agent, method)(*args))
            await asyncio.wait({acting})
            if acting.cancelled():
                raise Unreachable("the agent has died")
            return acting.result()

        return call


class Lossy:
    """Loses a share of all calls: half of those before the agent acts, half of them after.

    Args:
        random: a seeded generator, so that a failing run can be had again.
    """

    def __init__(self, agent: Any, random: random.Random, share: float = 0.25) -> None:
        self._agent, self._random, self.share = agent, random, share
        self.lost: Counter[str] = Counter()

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any) -> Any:
            self._maybe_lose(f"{method} before")
            value = await getattr(self._agent, method)(*args)
            self._maybe_lose(f"{method} after")
            return value

        return call

    def _maybe_lose(self, what: str) -> None:
        if self._random.random() < self.share / 2:
            self.lost[what] += 1
            raise Unreachable(f"lost: {what}")


class Patched:
    """An agent with one method replaced; the replacement gets the real one, then the arguments."""

    def __init__(self, agent: Any, method: str, replacement: Callable[..., Any]) -> None:
        self._agent, self._method, self._replacement = agent, method, replacement

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._agent, method)
        if method != self._method:
            return real

        async def call(*args: Any) -> Any:
            return await self._replacement(real, *args)

        return call
