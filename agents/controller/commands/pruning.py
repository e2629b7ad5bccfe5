"""`qd prune`: what nothing refers to any more in the controller's store, and on nodes the checkpoint folders
of jobs that this registry does not know.

Those are of a registry that is gone, or of jobs that were submitted after the backup that was restored:
nobody else would ever remove them, and nobody but a person can say that they are worth nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from sqlmodel import Session, select

from jobs.base.errors import InvalidInput, QuarterdeckError
from jobs.base.names import parse_key
from jobs.base.units import format_size
from jobs.base.words import counted
from jobs.life.lifecycle import Note
from jobs.store import audit, writing
from jobs.store.tables import JobRow
from jobs.store.writing import Caller
from jobs.wire.views import EventView, LeftFoldersView, PruneView

if TYPE_CHECKING:
    from agents.controller.controller import Controller

log = logging.getLogger(__name__)


async def prune(
    controller: Controller, who: Caller, older_than: float | None, *, dry_run: bool
) -> PruneView:
    """Remove what nobody needs, or only say what that would be. Raises as `Pruning.prune`."""
    view = await controller.pruning.prune(older_than, dry_run=dry_run, who=who)
    before = controller.now() - view["older_than"]
    names = sorted(controller.links.links)
    found = await asyncio.gather(
        *(_on_node(controller, name, before, remove=not dry_run) for name in names)
    )
    view["unanswered"] = [name for name, left in zip(names, found, strict=True) if left is None]
    view["left"] = [left for left in found if left is not None and left["folders"]]
    if view["left"] and not dry_run:
        await _record(controller, who, view["left"])
    return view


async def _on_node(
    controller: Controller, name: str, before: float, *, remove: bool
) -> LeftFoldersView | None:
    """What a node has of that; None when it cannot be asked, or is of a version that cannot say."""
    try:
        _, agent = controller.links.agent(name)
        there = [left["job"] for left in await agent.left_folders(None, before, False)]
        unknown = await _unknown(controller, there)
        left = await agent.left_folders(unknown, before, remove) if unknown else []
    except QuarterdeckError as error:
        log.warning("the checkpoint folders of node %s: %s", name, error.message)
        return None
    size = sum(one["bytes"] for one in left)
    return LeftFoldersView(node=name, folders=len(left), bytes=size)


async def _unknown(controller: Controller, jobs: Collection[str]) -> list[str]:
    """Those that this registry did not submit, or does not know any more."""
    if not jobs:
        return []

    def look(session: Session) -> set[tuple[int, str]]:
        rows = session.exec(select(JobRow.id, JobRow.token)).all()
        return {(number, token) for number, token in rows if number is not None}

    known = await controller.db.read(look)

    def is_known(job: str) -> bool:
        try:
            key = parse_key(f"{job}.1")
        except InvalidInput:
            return True  # of a version that knows more than this one
        return key.cluster == controller.cluster_id and (key.job, key.token) in known

    return [job for job in jobs if not is_known(job)]


async def _record(controller: Controller, who: Caller, left: list[LeftFoldersView]) -> None:
    now = controller.now()
    folders, size = sum(one["folders"] for one in left), sum(one["bytes"] for one in left)
    text = (
        f"pruned {counted(folders, 'checkpoint folder')} of jobs that the registry does not know, "
    )
    text += f"{format_size(size)}"
    note = Note("store.pruned", text, user=who.user)

    def write(session: Session) -> list[EventView]:
        audit.append(
            session,
            at=now,
            user=who.user,
            uid=who.uid,
            action="store.prune",
            target="checkpoints",
            data={"left": left},
        )
        return writing.add_events(session, None, [note], now)

    controller.hub.announce(await controller.db.write(write))
