"""`qd prune`, and what `qd status` says of the store."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.console.fake_controller import FakeController
from tests.console.sample_views import status

CALL = "POST /v1/blobs/prune"
FOUND = {
    "dry_run": False,
    "older_than": 86_400.0,
    "blobs": 12,
    "bytes": 3 << 30,
    "checkpoints": 0,
    "kept": 200,
    "kept_bytes": 1 << 30,
}


def bodies(controller: FakeController) -> list[Any]:
    return [request.json for request in controller.asked(CALL)]


def test_it_says_what_would_go_and_asks_first(
    qd: Any, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.on(CALL, FOUND | {"dry_run": True})
    refused = qd("prune")
    assert refused.code == 2
    assert "12 blobs (3GiB) would be deleted" in refused.err, "a script has to say --yes"
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert qd("prune").code != 0
    assert bodies(controller) == [{"dry_run": True}] * 2


def test_a_dry_run_changes_nothing(qd: Any, controller: FakeController) -> None:
    controller.on(CALL, FOUND | {"dry_run": True, "checkpoints": 5})
    result = qd("prune", "--dry-run", "--older-than", "7d")
    assert result.out == "12 blobs (3GiB), with 5 checkpoints of populations would be deleted\n"
    assert "200 blobs stay, 1GiB" in result.err
    assert bodies(controller) == [{"dry_run": True, "older_than": 7 * 86_400.0}]


def test_with_yes_it_goes_at_once(qd: Any, controller: FakeController) -> None:
    controller.on(CALL, FOUND)
    assert qd("prune", "--yes").out == "12 blobs (3GiB) deleted\n"
    assert json.loads(qd("prune", "--yes", "--json").out) == FOUND
    assert bodies(controller) == [{}, {}]


def test_nothing_to_do_needs_no_answer(qd: Any, controller: FakeController) -> None:
    controller.on(CALL, FOUND | {"dry_run": True, "blobs": 0, "bytes": 0})
    result = qd("prune")
    assert (result.code, result.out) == (0, "0 blobs (0B) deleted\n")


def test_a_span_that_is_none(qd: Any) -> None:
    result = qd("prune", "--older-than", "yesterday")
    assert result.code == 2
    assert "--older-than: found 'yesterday'" in result.err


def test_status_tells_how_much_is_stored(qd: Any, controller: FakeController) -> None:
    stored = {"blobs": 210, "bytes": 3 << 29, "free": 80 << 30, "measured_at": "2026-11-23T06:28Z"}
    controller.on("GET /v1/status", status(storage=stored))
    assert "1.5GiB in 210 blobs, 80GiB free" in qd("status").out
