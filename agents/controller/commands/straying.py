"""Removing what nodes hold and the registry never gave: `qd strays`."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import TYPE_CHECKING

from sqlmodel import Session

from jobs.base.errors import NotFound, QuarterdeckError
from jobs.base.words import counted
from jobs.life.lifecycle import Note
from jobs.store import audit, writing
from jobs.store.writing import Caller
from jobs.wire.views import EventView, StrayView

if TYPE_CHECKING:
    from agents.controller.controller import Controller

GRACE = 10.0
"""Seconds that ranks which are stopped have between SIGTERM and SIGKILL."""


async def forget(
    controller: Controller, who: Caller, keys: Collection[str] = (), *, stop: bool = False
) -> list[StrayView]:
    """Let nodes remove strays that have ended, with their logs; gives them as they were.

    Args:
        keys: which ones; all of them when there are none.
        stop: stop those that run, instead of leaving them to the end of their leases. They are given
            too, and have to be forgotten once more when they have ended.

    Raises:
        NotFound: no node that is in contact holds a stray of that name.
    """
    found = controller.strays.found()
    for key in keys:
        if all(str(stray.key) != key for stray in found):
            raise NotFound(f"no node holds a stray '{key}'", "`qd strays` lists them.")
    chosen = [stray for stray in found if not keys or str(stray.key) in keys]
    chosen = [stray for stray in chosen if stop or not stray.live]
    if not chosen:
        return []
    now, names = controller.now(), sorted({str(stray.key) for stray in chosen})
    text = f"{counted(len(chosen), 'stray')} removed by {who.user}: {', '.join(names[:5])}"

    def write(session: Session) -> list[EventView]:
        audit.append(
            session,
            at=now,
            user=who.user,
            uid=who.uid,
            action="stray.forget",
            target="strays",
            data={"keys": names, "stop": stop},
        )
        return writing.add_events(
            session, None, [Note("stray.forgotten", text, user=who.user)], now
        )

    events = await controller.db.write(write)
    for stray in chosen:
        if not stray.live:
            controller.links.links[stray.node].forget.add(str(stray.key))
            continue
        with contextlib.suppress(QuarterdeckError):  # else its lease ends it
            _, agent = controller.links.agent(stray.node)
            await agent.stop(
                {
                    "key": str(stray.key),
                    "epoch": stray.report["epoch"],
                    "grace": GRACE,
                    "reason": f"stopped by {who.user}: the registry does not know it",
                }
            )
    controller.hub.announce(events)
    return [controller.strays.view(stray) for stray in chosen]
