"""Taking a node out of scheduling and putting it back: `qd drain`, `qd undrain`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlmodel import Session

from jobs.life.lifecycle import Note
from jobs.store import audit, writing
from jobs.store.tables import NodeRow
from jobs.store.writing import Caller
from jobs.wire.views import EventView, NodeView

if TYPE_CHECKING:
    from agents.controller.controller import Controller


async def set_drained(
    controller: Controller, name: str, who: Caller, *, drained: bool, reason: str
) -> NodeView:
    """Take a node out of scheduling, or put it back. What runs there runs on. Putting it back
    lifts its quarantine too, and acknowledges what was wrong.

    Raises:
        NotFound: no such node.
    """
    controller.node_view(name)
    node, now = controller.cluster.nodes[name], controller.now()
    verb = "drained" if drained else "undrained"
    text = f"{name} {verb} by {who.user}" + (f": {reason}" if reason else "")
    lifted = "" if drained else node.quarantine
    if lifted:
        text += f", and its quarantine lifted ({lifted})"
    gpus = node.sample["gpus"] if node.sample else []
    acknowledged = node.acknowledged if drained else replace(node.acknowledged.noting(gpus), at=now)
    quarantine = node.quarantine if drained else ""
    note = Note(f"node.{verb}", text, node=name, user=who.user)

    def write(session: Session) -> list[EventView]:
        row = session.get(NodeRow, name) or NodeRow(
            name=name, address=node.address, first_seen=now, seen_at=now
        )
        row.drained, row.reason = drained, reason
        row.quarantine, row.acknowledged = quarantine, acknowledged.to_json()
        session.add(row)
        audit.append(
            session,
            at=now,
            user=who.user,
            uid=who.uid,
            action="node.drain" if drained else "node.undrain",
            target=name,
            data={"reason": reason, "lifted": lifted} if lifted else {"reason": reason},
        )
        return writing.add_events(session, None, [note], now)

    events = await controller.db.write(write)
    node.drained, node.reason = drained, reason
    node.quarantine, node.acknowledged = quarantine, acknowledged
    controller.hub.announce(events)
    view = controller.node_view(name)
    controller.hub.publish("nodes", name, view, keep=False)
    controller.reconciler.wake()
    return {**view, "note": text} if lifted else view
