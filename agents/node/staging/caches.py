"""Keeping a node's caches within bounds: code and environments that nobody has used for long.

What is removed is chosen in a thread, since to look through a large cache takes a while, and removed on
the event loop, between stagings: none is ever in the midst of using what goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

EVERY = 1800.0
"""Seconds between two looks."""
HELD = 3600.0
"""Seconds for which what was used stays, whatever the bounds: the next trial of a sweep, or the next
attempt, wants it again."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What caches may come to: bytes in all, and seconds since a thing was used."""

    size: int = 50 << 30
    age: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a cache. `used` is unix time, to the day where the file system counts no finer."""

    path: Path
    size: int
    used: float


class Cache(Protocol):
    def items(self) -> list[Item]:
        """All that it holds whole. Blocking."""
        ...

    def remove(self, item: Item, trash: Path) -> None:
        """Let go of an item at once; what takes time to remove is moved to `trash`. Raises OSError."""
        ...


def surplus(items: Iterable[Item], bounds: Bounds, now: float) -> list[Item]:
    """What has to go, longest unused first: all that is too old, and more until the rest fits."""
    items = sorted(items, key=lambda item: (item.used, str(item.path)))
    total = sum(item.size for item in items)
    found = []
    for item in items:
        idle = now - item.used
        if idle < HELD or (idle <= bounds.age and total <= bounds.size):
            break
        found.append(item)
        total -= item.size
    return found


class Caretaker:
    """Tidies caches.

    Args:
        quiet: whether no staging is under way at this moment.
        in_use: paths that what runs here depends on.
    """

    def __init__(
        self,
        caches: Collection[Cache],
        bounds: Bounds,
        trash: Path,
        *,
        quiet: Callable[[], bool],
        in_use: Callable[[], Collection[Path]],
    ) -> None:
        self._caches, self._bounds, self._trash = caches, bounds, trash
        self._quiet, self._in_use = quiet, in_use

    async def run(self, tidy_others: Callable[[], None]) -> None:
        """Tidy for ever, now and then, and call `tidy_others` in a thread after it."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.tidy(time.time())
                await asyncio.to_thread(tidy_others)
            except OSError as error:
                log.warning("cannot look through the caches: %s", error)

    async def tidy(self, now: float) -> int:
        """Remove what has to go; bytes that were freed. It stops when a staging begins: the next time is
        soon enough. `now` is unix time."""
        held = [(cache, await asyncio.to_thread(cache.items)) for cache in self._caches]
        owner = {item.path: cache for cache, items in held for item in items}
        freed = 0
        for item in surplus([item for _, items in held for item in items], self._bounds, now):
            if not self._quiet():
                break
            if item.path in self._in_use():
                continue
            with contextlib.suppress(OSError):
                owner[item.path].remove(item, self._trash)
                freed += item.size
            await asyncio.sleep(0)
        if freed:
            log.info("caches: %d bytes freed", freed)
        return freed
