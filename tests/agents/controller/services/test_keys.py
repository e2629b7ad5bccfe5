"""API keys and certificates of services: kept as digests and as names of files, known to the front at once
and after every loss."""

from __future__ import annotations

import http.client
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.services.keys import digest_of
from jobs.store.servicetables import ServiceKeyRow
from jobs.store.tables import AuditRow, EventRow
from tests.agents.controller.conftest import Plane, until
from tests.certificates import Pair, connection, shown
from tests.serving import service

PATH = "/v1/deployments/hello"


async def settled(plane: Plane) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(PATH)
        return view if view["settled"] and view["rollout"]["phase"] == "done" else None

    view: dict[str, Any] = await until(look, lambda: str(plane.controller.problems()))
    return view


def status(view: dict[str, Any], key: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(view["url"].rpartition(":")[2]))
    connection.request("GET", "/", headers={"X-API-Key": key} if key else {})
    found = connection.getresponse().status
    connection.close()
    return found


async def test_a_key_from_its_first_day_to_its_last(plane: Plane) -> None:
    await plane.post("/v1/deployments", {"spec": service("1")})
    view = await settled(plane)
    assert (status(view), view["keyed"]) == (200, False)

    ada = (await plane.post(f"{PATH}/keys", {"name": "ada", "rate": "500/s"}))["key"]
    bob = (await plane.post(f"{PATH}/keys", {"name": "bob"}))["key"]
    view = await settled(plane)
    assert view["keyed"]
    assert [status(view, key) for key in (None, ada[:-1], ada, bob)] == [401, 401, 200, 200]
    assert (await plane.post(f"{PATH}/predict", {}))["status"] == 200  # ours, through the front
    with pytest.raises(Conflict, match="has a key 'ada'"):
        await plane.post(f"{PATH}/keys", {"name": "ada"})

    await plane.post(f"{PATH}/keys/bob/revoke")
    await settled(plane)
    assert [status(view, key) for key in (ada, bob)] == [200, 401]
    with pytest.raises(NotFound, match="no key 'bob'"):
        await plane.post(f"{PATH}/keys/bob/revoke")

    # A controller that comes back, a new version, and HAProxy that is killed.
    await plane.restart()
    await plane.post("/v1/deployments", {"spec": service("2")})
    view = await settled(plane)
    assert view["keyed"] and view["live"] == "2"
    front = plane.controller.services._front
    assert front.said["pid"] is not None
    os.kill(front.said["pid"], signal.SIGKILL)
    before = front.said["pid"]
    await until(lambda: front.said.get("pid") not in (None, before))
    assert [status(view, key) for key in (None, ada, bob)] == [401, 200, 401]

    # And the whole front: another job.
    (job,) = (await plane.get("/v1/jobs", name="front", state="RUNNING"))["jobs"]
    boot = front.said["boot"]
    await plane.post(f"/v1/jobs/{job['id']}/cancel")
    await until(lambda: front.said.get("boot", boot) != boot)
    view = await settled(plane)
    assert [status(view, key) for key in (None, ada, bob)] == [401, 200, 401]

    listed = await plane.get(f"{PATH}/keys")
    assert [(one["name"], one["rate"], one["revoked_at"] is None) for one in listed] == [
        ("ada", "500/s", True),
        ("bob", None, False),
    ]

    def read(session: Session) -> tuple[list[str], str]:
        rows = session.exec(select(ServiceKeyRow)).all()
        told = [str(row) for row in session.exec(select(AuditRow)).all()]
        told += [str(row) for row in session.exec(select(EventRow)).all()]
        return [row.digest for row in rows], "\n".join(told)

    digests, told = await plane.controller.db.read(read)
    assert digests == [digest_of(ada), digest_of(bob)]
    assert "service.key.added" in told and "service.key.revoked" in told
    everything = b"".join(path.read_bytes() for path in plane.root.rglob("*") if path.is_file())
    assert ada.encode() not in everything and bob.encode() not in everything


async def test_a_service_may_ask_for_keys_before_it_has_one_and_stop_asking(plane: Plane) -> None:
    await plane.post("/v1/deployments", {"spec": service("1", keys=True)})
    view = await settled(plane)
    assert status(view) == 401
    await plane.post("/v1/deployments", {"spec": service("2")})
    assert status(await settled(plane)) == 401
    await plane.post("/v1/deployments", {"spec": service("3", keys=False)})
    view = await settled(plane)
    assert (status(view), view["keyed"]) == (200, False)


async def test_what_is_no_key_is_refused(plane: Plane) -> None:
    with pytest.raises(NotFound, match="no service 'hello'"):
        await plane.post(f"{PATH}/keys", {"name": "ada"})
    for body in ({"name": "a b"}, {"name": "ada", "rate": "many"}, {"name": "ada", "rate": "0/s"}):
        with pytest.raises(InvalidInput):
            await plane.post(f"{PATH}/keys", body)


async def test_a_service_behind_tls_says_when_its_certificate_ends(
    plane: Plane, tmp_path: Path
) -> None:
    (tmp_path / "ssl").mkdir()
    pair = Pair(tmp_path / "ssl", days=10)
    await plane.post("/v1/deployments", {"spec": service("1", tls=pair.files, keys=True)})
    view = await settled(plane)
    port = int(view["url"].rpartition(":")[2])
    assert view["url"] == f"https://127.0.0.1:{port}"
    assert (await plane.post(f"{PATH}/predict", {}))["status"] == 200
    key = (await plane.post(f"{PATH}/keys", {"name": "ada"}))["key"]
    await settled(plane)

    def ask() -> int:
        caller = connection(port, pair.cert)
        caller.request("GET", "/", headers={"Authorization": f"Bearer {key}"})
        found = caller.getresponse().status
        caller.close()
        return found

    assert ask() == 200

    def problem() -> str:
        told = [p["what"] for p in plane.controller.problems()]
        return next((what for what in told if "service hello@production" in what), "")

    assert "its certificate expires in 9d" in await until(problem)
    pair.renew(days=60)
    await until(lambda: not problem())
    assert (shown(port), ask()) == ("second", 200)
    assert (await plane.post(f"{PATH}/predict", {}))["status"] == 200
    assert (await plane.get(PATH))["certificate_until"] > view["certificate_until"]
    plane.now.offset += 70 * 86_400
    assert "has expired" in await until(problem)
    plane.now.offset = 0

    # The next version stays behind TLS without saying so; only `tls: false` ends it.
    await plane.post("/v1/deployments", {"spec": service("2")})
    assert (await settled(plane))["url"].startswith("https:")
    await plane.post("/v1/deployments", {"spec": service("3", tls=False)})
    view = await settled(plane)
    assert (view["url"], view["certificate_until"]) == (f"http://127.0.0.1:{port}", None)
    assert status(view, key) == 200
