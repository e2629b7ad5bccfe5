"""Work that is done again and again, until it is cancelled or over.

Every part of the controller and of a node's agent that watches something is such a `loop`: it works, rests
until it is woken or its time has come, and goes on whatever one turn brought. What a turn fails of is
complained of while it lasts, where people see it, and never ends the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from jobs.base.errors import QuarterdeckError

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[bool | None]]
"""One turn. True says that all is done and the loop ends."""
Rest = Callable[[], Awaitable[object]]
Complain = Callable[[str], Awaitable[None] | None]
"""Takes what is wrong, in words; "" once a turn has gone well again."""


async def woken(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, no longer than `seconds`; gives whether it came."""
    try:
        # Not wait_for: before Python 3.12 it can lose a cancellation when both come at once.
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def each(name: str, works: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do all of them, one after the other, whatever one of them comes to.

    Raises the first failure at the end; the others are in the log.
    """
    first: Exception | None = None
    for work in works:
        try:
            await work()
        except Exception as error:
            if first is not None:
                log.warning("%s: %s", name, error, exc_info=not isinstance(error, QuarterdeckError))
            first = first or error
    if first is not None:
        raise first


async def loop(
    name: str,
    work: Work,
    rest: float | Rest,
    complain: Complain | None = None,
    *,
    again: tuple[float, float] | None = None,
) -> None:
    """Work, rest, work, ... until a turn gives True.

    Args:
        name: what log lines call it.
        rest: seconds between two turns, or what waits for the next one.
        complain: None for work whose troubles belong in the log alone.
        again: seconds before the turn that follows a failed one: at first, and at most after doubling at each
            further failure. By default a failed turn is followed by the same rest as any other.
    """
    patience, complained = 0.0, False
    while True:
        problem, over = "", False
        try:
            over = bool(await work())
        except QuarterdeckError as error:
            problem = error.message
            if complain is None:
                log.warning("%s: %s", name, problem)
        except Exception as error:
            log.exception("%s", name)
            problem = f"internal error: {error!r}"
        if complain is not None and (problem or complained):
            complained = bool(problem)
            said = complain(problem)
            if said is not None:
                await said
        if over:
            return
        if problem and again is not None:
            patience = min(2 * patience, again[1]) if patience else again[0]
            await asyncio.sleep(patience)
            continue
        patience = 0.0
        await (asyncio.sleep(rest) if isinstance(rest, float | int) else rest())
