"""`qd service key` against a fake controller."""

from __future__ import annotations

import json
from typing import Any

from jobs.base.errors import NotFound
from tests.console.fake_controller import FakeController
from tests.console.test_cli_services import deployment

KEY = {
    "service": "hello", "target": "production", "name": "ada", "rate": "100/s", "user": "eve",
    "created_at": "2026-11-29T08:00:00.000Z", "revoked_at": None,
}  # fmt: skip


def test_a_key_is_alone_on_stdout(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/deployments/hello/keys", KEY | {"key": "qds_secret"})
    controller.on("GET /v1/deployments/hello", deployment("done"))
    told = qd("service", "key", "add", "hello", "ada", "--rate", "100/s")
    assert (told.code, told.out) == (0, "qds_secret\n")
    assert "not shown again" in told.err
    body = controller.asked("POST /v1/deployments/hello/keys")[0].json
    assert body == {"name": "ada", "rate": "100/s"}


def test_keys_are_listed(qd: Any, controller: FakeController) -> None:
    revoked = KEY | {"name": "bob", "rate": None, "revoked_at": "2026-11-29T09:00:00.000Z"}
    controller.on("GET /v1/deployments/hello/keys", [KEY, revoked])
    told = qd("service", "key", "list", "hello")
    assert told.code == 0
    assert [line.split()[:4] for line in told.out.splitlines()[1:]] == [
        ["hello@production", "ada", "valid", "100/s"],
        ["hello@production", "bob", "revoked", "-"],
    ]
    assert json.loads(qd("service", "key", "list", "hello", "--json").out) == [KEY, revoked]


def test_a_key_is_revoked(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/deployments/hello/keys/ada/revoke", KEY)
    controller.on("GET /v1/deployments/hello", deployment("done"))
    told = qd("service", "key", "revoke", "hello", "ada")
    assert (told.code, told.out) == (0, "ada revoked\n")
    controller.on("POST /v1/deployments/hello/keys/no/revoke", NotFound("hello has no key 'no'"))
    assert qd("service", "key", "revoke", "hello", "no").code == 3


def test_the_nouns_alone_list_services_and_all_keys(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/deployments", [deployment("done")])
    controller.on("GET /v1/deployments/hello/keys", [KEY])
    assert qd("service").out == qd("deployments").out
    assert json.loads(qd("service", "key", "--json").out) == [KEY]
