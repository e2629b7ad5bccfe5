"""API keys of services: given out, listed, revoked. The key itself is in the answer and nowhere else."""

from __future__ import annotations

import secrets

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.controller import Controller
from jobs.services.keys import PREFIX, Rate, check_name, digest_of
from jobs.store import servicekeys as store
from jobs.store import services
from jobs.store.writing import Caller
from jobs.wire.serviceviews import KeyView, NewKeyView


async def add(
    controller: Controller,
    who: Caller,
    service: str,
    target: str | None,
    name: str,
    rate: str | None,
) -> NewKeyView:
    """Give out a key. From the first one on, a service asks for one.

    Raises:
        NotFound: no such service. Conflict: it has a key of that name.
        InvalidInput: the name or the rate is none.
    """
    check_name(name)
    limit = None if rate is None else Rate.parse(rate)
    key = PREFIX + secrets.token_urlsafe(32)

    def decide(session: Session, now: float) -> Done[tuple[int, KeyView]]:
        row = services.find(session, service, target)
        first = not row.keyed
        made = store.add(session, row, name, digest_of(key), limit, who, now)
        text = f"{service} at {row.target} has an API key '{name}'"
        text += f", good for {limit}" if limit is not None else ""
        text += "; from now on its requests need one" if first else ""
        data = {"key": name, "rate": made.rate}
        on = f"{service}@{row.target}"
        return Done((row.id or 0, store.view(row, made)), text, data, target=on)

    number, view = await act(controller, who, "service.key.added", service, decide)
    controller.services.keys_changed(number)
    return {**view, "key": key}


async def listed(controller: Controller, service: str, target: str | None) -> list[KeyView]:
    """Raises NotFound."""
    return await controller.db.read(
        lambda session: store.views(session, services.find(session, service, target))
    )


async def revoke(
    controller: Controller, who: Caller, service: str, target: str | None, name: str
) -> KeyView:
    """Raises NotFound: no such service, or no such key that is not revoked."""

    def decide(session: Session, now: float) -> Done[tuple[int, KeyView]]:
        row = services.find(session, service, target)
        gone = store.revoke(session, row, name, now)
        text = f"{service} at {row.target} no longer takes the API key '{name}'"
        on = f"{service}@{row.target}"
        return Done((row.id or 0, store.view(row, gone)), text, {"key": name}, target=on)

    number, view = await act(controller, who, "service.key.revoked", service, decide)
    controller.services.keys_changed(number)
    return view
