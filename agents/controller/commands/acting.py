"""One request about models: decide, store the change with its event and audit row, then announce it.

What a rule refuses (not allowed, a conflict) changes nothing and is recorded as well: who wanted what, and
why it was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from sqlmodel import Session

from agents.controller.controller import Controller
from jobs.base.errors import Conflict, NotAllowed, QuarterdeckError
from jobs.life.lifecycle import Note
from jobs.store import audit, flowwriting, writing
from jobs.store.writing import Caller
from jobs.wire.views import EventView

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a request came to. Without a `message` nothing was changed, and nothing is recorded.

    `data` is what the audit log says besides who, when and on what (`target`, if it is not the one
    that was asked for). `left` is what a step of a pipeline that asks for this leaves to others: it is
    recorded with the change, so that no step is taken twice."""

    value: T
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    severity: Literal["info", "warning", "error"] = "info"
    target: str = ""
    left: Mapping[str, str] = field(default_factory=dict)


async def act(
    controller: Controller,
    who: Caller,
    action: str,
    target: str,
    decide: Callable[[Session, float], Done[T]],
) -> T:
    """Run `decide(session, now)` in one transaction with its event and its audit row.

    Raises what it raises.
    """
    now = controller.now()

    def write(session: Session) -> tuple[Done[T] | QuarterdeckError, list[EventView]]:
        try:
            with session.begin_nested():  # of what is refused half way nothing stays
                done = decide(session, now)
                if who.via is not None and done.left:
                    flowwriting.effect(session, who.via, done.left)
        except (NotAllowed, Conflict) as error:
            text = f"{who.user} was refused, {action} {target}: {error.message}"
            data = {"why": error.message, "code": error.code}
            return error, record(session, f"{action}.refused", target, text, data, "warning")
        if not done.message:
            return done, []
        on = done.target or target
        return done, record(session, action, on, done.message, done.data, done.severity)

    def record(
        session: Session,
        kind: str,
        on: str,
        text: str,
        data: Mapping[str, Any],
        severity: Literal["info", "warning", "error"],
    ) -> list[EventView]:
        if who.via is not None:
            data = {**data, **who.via.to_json()}
        audit.append(session, at=now, user=who.user, uid=who.uid, action=kind, target=on, data=data)
        return writing.add_events(session, None, [Note(kind, text, severity, user=who.user)], now)

    outcome, events = await controller.db.write(write)
    if events:
        await controller.note_audit_head()
    controller.hub.announce(events)
    if events and action.startswith("model."):
        controller.hub.publish("models", target, None, keep=False)
    if isinstance(outcome, QuarterdeckError):
        raise outcome
    return outcome.value
