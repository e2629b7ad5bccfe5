"""A person's word that a node has gone down: `qd confirm-dead`."""

from __future__ import annotations

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.controller import Controller
from jobs.base.errors import Conflict
from jobs.base.names import job_name
from jobs.base.words import joined
from jobs.store.writing import Caller
from jobs.wire.views import NodeView


async def confirm_dead(controller: Controller, name: str, who: Caller) -> NodeView:
    """Take what a node held for over, whatever its leases are; gives the node as it is then.

    Of a node that answers, only what its agent knows nothing of: how all else is, it tells.

    Raises:
        NotFound: no such node.
        Conflict: it was silent for too short a time, or nothing of it is waited for.
        Unreachable: it answered until now.
    """
    view = controller.node_view(name)
    link = controller.links.links.get(name)
    answers = link is not None and link.online
    if view["state"] != "LOST" and not answers:
        raise Conflict(
            f"node {name} has been silent for only {view['age']:.0f} s",
            "It may be back at once; wait until `qd nodes` calls it LOST.",
        )

    if answers:  # what it holds as it is by now
        await controller.links.renew(name)

    def decide(session: Session, now: float) -> Done[list[str]]:
        jobs = [job_name(live.job.id) for live in controller.reconciler.losses.doomed(name)]
        if not jobs:
            if answers:
                raise Conflict(
                    f"node {name} answers, and knows all that is recorded as running there",
                    "To stop that, use `qd cancel`; to keep more from starting, `qd drain`.",
                )
            raise Conflict(f"nothing that has not ended is recorded as running on {name}")
        text = f"{who.user} confirmed that {name} is dead, with its part of {joined(jobs)}"
        return Done(jobs, text, {"jobs": jobs}, "warning")

    await act(controller, who, "node.confirm-dead", name, decide)
    await controller.reconciler.losses.confirm_dead(
        name, f"{who.user} confirmed that {name} is dead"
    )
    return controller.node_view(name)
