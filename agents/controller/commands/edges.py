"""Versions of models for hosts at the edge: what is approved, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.commands.services import allowed
from agents.controller.controller import Controller
from jobs.edge.fleet import Fleet
from jobs.models.names import ModelRef, parse_ref, version_name
from jobs.store.modeltables import ModelVersionRow
from jobs.store.writing import Caller
from jobs.wire.edgeviews import EdgeView


async def push(
    controller: Controller, who: Caller, *, ref: str, fleet: Mapping[str, Any]
) -> EdgeView:
    """Record a push of a version to a fleet, and begin it. What is refused is recorded too.

    Raises:
        NotFound: no such version. NotAllowed: it is not approved.
        Conflict: it is archived, or the fleet gets another one just now.
        InvalidInput: no such fleet can be.
    """
    checked = Fleet.from_json(dict(fleet))
    wanted, signers = parse_ref(ref), await controller.signers()

    def decide(session: Session, now: float) -> Done[ModelVersionRow]:
        return Done(allowed(session, wanted, "production", now, signers))

    row = await act(controller, who, "edge.push", f"{ref}@{checked.name}", decide)
    exactly = ModelRef(wanted.name, number=row.number)
    return await controller.edge.push(
        checked,
        wanted.name,
        version_name(wanted.name, row.number),
        row.digest,
        who,
        check=lambda session: allowed(session, exactly, "production", controller.now(), signers),
    )
