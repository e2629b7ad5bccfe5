"""Roles: every route names one, and the gateway alone says whose it is."""

from __future__ import annotations

import asyncio
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from sqlmodel import select

from agents.controller.api import access, create_app, identity
from console.client import Client
from console.dial import dial
from jobs.access.roles import Role
from jobs.base.errors import NotAllowed, QuarterdeckError
from jobs.store import audit
from jobs.store.tables import AuditRow
from jobs.wire.introductions import Introduction
from tests.agents.controller.conftest import Plane


class Introduced(Client):
    """A client on the gateway's socket, as somebody."""

    def __init__(self, socket: Path, line: bytes) -> None:
        super().__init__(socket)
        self._line = line

    def _connect(self) -> Any:
        connection = super()._connect()
        assert connection.sock is not None
        with suppress(BrokenPipeError):  # it may have hung up already
            connection.sock.sendall(self._line)
        return connection


def introduced(plane: Plane, user: str, role: Role) -> Introduced:
    return Introduced(plane.gateway_socket, Introduction(user, role).line())


def app() -> FastAPI:
    return create_app(None)  # type: ignore[arg-type]


def test_an_application_with_a_route_that_names_no_role_does_not_start() -> None:
    router = APIRouter()

    @router.get("/open")
    async def forgotten() -> None: ...

    with pytest.raises(AssertionError, match="/open names no role"):
        access.check_routes([router])


def test_two_roles_mean_the_higher() -> None:
    router = APIRouter()

    @router.get("/both", dependencies=[access.VIEWER, access.ADMIN])
    async def both() -> None: ...

    assert access.role_of(router.routes[0]) is Role.ADMIN  # type: ignore[arg-type]


def test_every_answer_is_published() -> None:
    """What comes, and what a refusal looks like: a client that is made of the document knows both."""
    published = app().openapi()
    refusal = {"$ref": "#/components/schemas/ErrorView"}
    for path, methods in published["paths"].items():
        for operation in methods.values():
            answers = operation["responses"]
            refused = [answers[status]["content"] for status in ("4XX", "5XX")]
            assert refused == [{"application/json": {"schema": refusal}}] * 2, path
            (good,) = (answer for status, answer in answers.items() if status.startswith("2"))
            ((kind, content),) = good["content"].items()
            assert content["schema"], f"{path}: {kind} of no shape"
    assert "HTTPValidationError" not in published["components"]["schemas"]


ASKS = {"/v1/audit/verify"}
"""What only asks, and sends what it asks about."""


async def test_a_viewer_changes_nothing_on_any_route(plane: Plane) -> None:
    """Asked one by one, as they are published: whatever is not a GET is refused before it is looked at."""
    viewer = introduced(plane, "vic", Role.VIEWER)
    asked = 0
    for path, methods in app().openapi()["paths"].items():
        for method in methods.keys() - {"get"}:
            if path in ASKS:
                continue
            assert method == "post", "teach this test to ask it"
            with pytest.raises(NotAllowed, match="vic is a viewer"):
                await asyncio.to_thread(viewer.post, re.sub(r"\{\w+\}", "1", path))
            asked += 1
    assert asked > 10
    assert (await asyncio.to_thread(viewer.get, "/v1/jobs"))["jobs"] == []


async def test_what_is_refused_is_in_the_audit_log(plane: Plane) -> None:
    job = await plane.submit("sleep 60")
    with pytest.raises(NotAllowed) as refused:
        await asyncio.to_thread(
            introduced(plane, "vic", Role.VIEWER).post, f"/v1/jobs/{job}/cancel"
        )
    assert refused.value.details == {"role": "viewer", "needs": "operator"}
    assert refused.value.exit_code == 4
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] != "CANCELLED"
    rows = await plane.controller.db.read(
        lambda session: list(session.exec(select(AuditRow).order_by(AuditRow.id)))  # type: ignore[arg-type]
    )
    assert (rows[-1].user, rows[-1].action, rows[-1].target) == (
        "vic",
        "refused",
        f"POST /v1/jobs/{job}/cancel",
    )
    assert json.loads(rows[-1].data) == {"role": "viewer", "needs": "operator"}
    assert audit.verify(rows) is None


async def test_an_operator_acts_under_their_own_name_and_not_on_the_cluster(plane: Plane) -> None:
    olga = introduced(plane, "olga", Role.OPERATOR)
    made = await asyncio.to_thread(
        olga.post, "/v1/jobs", {"spec": {"command": "true"}, "key": "nightly"}
    )
    assert (await plane.get(f"/v1/jobs/{made['id']}"))["user"] == "olga"
    with pytest.raises(NotAllowed, match="needs an admin"):
        await asyncio.to_thread(olga.post, "/v1/nodes/n1/drain")
    # A key for a submission is its person's own, though one user carries them all.
    other = await asyncio.to_thread(
        introduced(plane, "chen", Role.OPERATOR).post,
        "/v1/jobs",
        {"spec": {"command": "true"}, "key": "nightly"},
    )
    assert other["created"]
    assert other["id"] != made["id"]


@pytest.mark.parametrize(
    "line", [b"", b'{"user": "mira", "role": "king"}\n', b"x" * 5000, b"\xff\n"]
)
async def test_without_an_introduction_nobody_is_served(plane: Plane, line: bytes) -> None:
    """Nor an admin, which is what the gateway's user would be."""
    stranger = Introduced(plane.gateway_socket, line)
    with pytest.raises(QuarterdeckError, match="cut"):
        await asyncio.to_thread(stranger.get, "/v1/jobs")


async def test_an_introduction_may_come_in_pieces(plane: Plane) -> None:
    def ask() -> bytes:
        with dial(plane.gateway_socket, 10) as held:
            for byte in Introduction("vic", Role.VIEWER).line():
                held.sendall(bytes([byte]))
            held.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: held.recv(65536), b""))

    assert (await asyncio.to_thread(ask)).startswith(b"HTTP/1.1 200")


async def test_the_gateways_socket_takes_its_own_user_alone(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root too has no business there: whoever is somebody else is cut off, whatever they say."""
    mine = os.geteuid()
    monkeypatch.setattr("agents.controller.api.identity.os.geteuid", lambda: mine + 1)
    with pytest.raises(QuarterdeckError, match="cut"):
        await asyncio.to_thread(introduced(plane, "eve", Role.ADMIN).get, "/v1/jobs")
    assert plane.gateway_socket.stat().st_mode & 0o077 == 0


async def test_on_the_usual_socket_an_introduction_means_nothing(plane: Plane) -> None:
    with pytest.raises(QuarterdeckError):
        line = Introduction("eve", Role.ADMIN).line()
        await asyncio.to_thread(Introduced(plane.client.socket, line).get, "/v1/jobs")


def test_roles_of_unix_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are groups for roles, they count; where there are none, the socket's group is all."""
    there = {"lab-viewer": 501, "lab-operator": 502}

    class Group:
        def __init__(self, number: int) -> None:
            self.gr_gid = number

    class Account:
        pw_name, pw_gid = "mira", 100

    groups: list[int] = [100, 501, 502]
    monkeypatch.setattr("grp.getgrnam", lambda name: Group(there[name]))
    monkeypatch.setattr("pwd.getpwuid", lambda _: Account)
    monkeypatch.setattr("os.getgrouplist", lambda *_: groups)
    monkeypatch.setenv(identity.GROUP, "lab")

    def role(turn: list[int] = [0]) -> Role:  # noqa: B006 - counts, so that nothing is remembered
        turn[0] -= 1
        return identity._role(77, turn[0])

    assert role() is Role.OPERATOR
    groups[:] = [100]
    assert role() is Role.VIEWER
    there.clear()
    assert role() is Role.ADMIN
    monkeypatch.delenv(identity.GROUP)
    assert role() is Role.VIEWER
