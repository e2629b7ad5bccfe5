"""The head's planned absence: `qd maintenance`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.controller import Controller
from jobs.base.errors import Conflict, InvalidInput
from jobs.base.units import format_duration
from jobs.base.words import duration
from jobs.store.maintenance import Window
from jobs.store.writing import Caller
from jobs.wire.views import MaintenanceView

SHORTEST = 60.0
LONGEST = 24 * 3600.0
"""Seconds of a maintenance. Until what was granted for it is over, a gang that has lost a node can be
started again only once that node is known to be dead."""
PATIENCE = 8.0
"""Seconds that nodes have for their answers: below what a client waits for its own."""
ASK_AGAIN = 0.3


async def begin(
    controller: Controller, who: Caller, seconds: float, reason: str
) -> MaintenanceView:
    """Grant the leases of all that runs ahead for `seconds`, and wait for the nodes to confirm it. One
    that is in force is replaced.

    Gives what is in force now, with the nodes that have not confirmed it.

    Raises InvalidInput for less or more than a maintenance may last.
    """
    if not SHORTEST <= seconds <= LONGEST:
        raise InvalidInput(
            f"a maintenance of {format_duration(seconds)}; allowed: {format_duration(SHORTEST)} to "
            f"{format_duration(LONGEST)}"
        )
    maintenance = controller.reconciler.maintenance

    def decide(session: Session, now: float) -> Done[Callable[[], None]]:
        window = Window(
            since=now, until=now + seconds, seconds=seconds, reason=reason, user=who.user
        )
        text = f"{who.user} began a maintenance of the head, for {duration(seconds)}"
        data = {"seconds": seconds, "reason": reason}
        begun = maintenance.begin(session, window)
        return Done(begun, text + (f": {reason}" if reason else ""), data)

    (await act(controller, who, "maintenance.begin", "head", decide))()
    controller.reconciler.wake()
    await _confirmed(controller)
    view = controller.reconciler.losses.maintained()
    if view is None:
        raise Conflict("the maintenance was ended meanwhile")
    return view


async def _confirmed(controller: Controller) -> None:
    """Renew all leases, until every node that has any has confirmed it or the patience is over."""
    links = controller.links
    try:
        async with asyncio.timeout(PATIENCE):
            while nodes := controller.reconciler.losses.unconfirmed():
                renewals = (links.renew(node) for node in nodes)
                await asyncio.gather(*renewals, return_exceptions=True)
                if controller.reconciler.losses.unconfirmed():
                    await asyncio.sleep(ASK_AGAIN)
    except TimeoutError:
        pass


async def end(controller: Controller, who: Caller) -> MaintenanceView:
    """End it now; gives what was in force. What was granted stays granted.

    Raises Conflict when there is none.
    """
    reconciler = controller.reconciler
    view = reconciler.losses.maintained()

    def decide(session: Session, now: float) -> Done[Callable[[], None]]:
        if view is None:
            raise Conflict("the head is not in maintenance", "`qd maintenance head` begins one.")
        return Done(reconciler.maintenance.end(session), f"{who.user} ended the head's maintenance")

    (await act(controller, who, "maintenance.end", "head", decide))()
    reconciler.wake()
    assert view is not None
    return {**view, "left": 0.0}
