"""Which role a route needs. Every route names one: `@router.get("/jobs", dependencies=[VIEWER])`.

An application with a route that names none does not start (`check_routes`), so nothing is open because
somebody forgot. What is refused is in the audit log.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute

from agents.controller.api.identity import caller_of
from agents.controller.controller import Controller
from jobs.access.roles import Role
from jobs.base.errors import NotAllowed
from jobs.store import audit
from jobs.store.writing import Caller


class _Needs:
    """A dependency that raises NotAllowed for callers below a role."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> None:
        who = caller_of(request.scope)
        if who.role >= self.role:
            return
        what = f"{request.method} {request.url.path}"
        await _record(request.app.state.controller, who, what, self.role)
        raise NotAllowed(
            f"{who.user} is {_a(who.role)}, and this needs {_a(self.role)}",
            "Ask an admin for a key with that role.",
            role=str(who.role),
            needs=str(self.role),
        )


def _a(role: Role) -> str:
    return f"{'a' if role is Role.VIEWER else 'an'} {role}"


async def _record(controller: Controller, who: Caller, what: str, needed: Role) -> None:
    now = controller.now()
    await controller.db.write(
        lambda session: audit.append(
            session,
            at=now,
            user=who.user,
            uid=who.uid,
            action="refused",
            target=what,
            data={"role": str(who.role), "needs": str(needed)},
        )
    )


VIEWER, OPERATOR, APPROVER, ADMIN = (Depends(_Needs(role)) for role in Role)


def role_of(route: APIRoute) -> Role | None:
    """What a route names; None when it names nothing."""
    found = [d.dependency.role for d in route.dependencies if _is_role(d)]  # type: ignore[union-attr]
    return max(found) if found else None


def _is_role(dependency: Dependency) -> bool:
    return isinstance(dependency.dependency, _Needs)


def check_routes(routers: Iterable[APIRouter]) -> None:
    """Raise AssertionError when a route names no role."""
    for router in routers:
        for route in router.routes:
            named = isinstance(route, APIRoute) and role_of(route) is not None
            if not named:
                path = getattr(route, "path", route)
                raise AssertionError(f"{path} names no role: see agents/controller/api/access.py")
