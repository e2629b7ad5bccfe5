"""Forgetting a node that is gone for good: `qd forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlmodel import Session

from jobs.base.errors import Conflict
from jobs.life.lifecycle import Note
from jobs.store import audit, writing
from jobs.store.tables import NodeRow
from jobs.store.writing import Caller
from jobs.wire.views import EventView, NodeView

if TYPE_CHECKING:
    from agents.controller.controller import Controller


async def forget(controller: Controller, name: str, who: Caller) -> NodeView:
    """Take a node off the books, with its drain, quarantine and history; gives what it was.

    Only one that is LOST, and that no attempt may still run on: to forget is not to declare dead. A
    host that comes back under the name joins as a new one.

    Raises:
        NotFound: no such node.
        Conflict: it is there, or attempts on it are not over yet.
    """
    view = controller.node_view(name)
    node = controller.cluster.nodes[name]
    if view["state"] != "LOST" or node.fabric is not None:
        state = (
            view["state"].lower() if view["state"] != "LOST" else "still a member of the cluster"
        )
        raise Conflict(
            f"node {name} is {state}",
            "Only a node that is LOST can be forgotten: run `qd leave` on its host first.",
        )
    if view["jobs"]:
        raise Conflict(
            f"{', '.join(view['jobs'])} may still run on {name}",
            "Wait until the leases there have expired, or, if it certainly has gone down: "
            f"`qd confirm-dead {name}`.",
            jobs=view["jobs"],
        )
    now = controller.now()

    def write(session: Session) -> list[EventView]:
        row = session.get(NodeRow, name)
        if row is not None:
            session.delete(row)
        note = Note("node.forgotten", f"{name} forgotten by {who.user}", node=name, user=who.user)
        audit.append(
            session, at=now, user=who.user, uid=who.uid, action="node.forget", target=name, data={}
        )
        return writing.add_events(session, None, [note], now)

    events = await controller.db.write(write)
    controller.cluster.nodes.pop(name, None)
    controller.health.forget(name)
    await controller.links.forget(name)
    controller.hub.announce(events)
    controller.hub.remove("nodes", name)
    return view
