"""`qd edge` and `qd deploy --to ssh://...` against a fake controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.console.fake_controller import FakeController


def fleet(phase: str = "running", **more: Any) -> dict[str, Any]:
    hosts = [
        {"url": "ssh://pi@shop1/m", "wave": 1, "phase": "done", "sent": 50, "reason": ""},
        {"url": "ssh://pi@shop2/m", "wave": 2, "phase": "failed", "sent": 25, "reason": "it is ill"},
    ]  # fmt: skip
    view = {
        "fleet": "shops", "push": 3, "version": "digits:3", "phase": phase, "wave": 2, "waves": 2,
        "reason": "", "size": 50, "user": "ada", "created_at": "2026-11-29T08:00:00.000Z",
        "changed_at": "2026-11-29T08:00:00.000Z", "hosts": hosts,
    }  # fmt: skip
    return view | more


def seen(version: str, **more: Any) -> dict[str, Any]:
    has = {
        "version": version,
        "release": "r",
        "altered": [],
        "unknown": [],
        "drift": False,
        "error": "",
    }
    return has | more


def test_a_host_and_a_fleets_file(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    controller.on("POST /v1/edge", fleet())
    assert qd("deploy", "digits:3", "--to", "ssh://pi@shop1/m", "--health", "true").code == 0
    file = tmp_path / "fleet.yaml"
    file.write_text("name: shops\npath: /m\nhosts: [ssh://a, ssh://b]\nwaves: [1]\n")
    assert qd("deploy", "digits@best", "--to", str(file)).code == 0
    one, many = (asked.json for asked in controller.asked("POST /v1/edge"))
    assert one == {
        "model": "digits:3",
        "fleet": {"name": "shop1", "hosts": ["ssh://pi@shop1/m"], "health": "true"},
    }
    assert many["fleet"]["waves"] == [1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits:3", "--to", "ssh://shop1"], "must be whole"),
        (["digits:3", "--to", "ssh://shop1/m", "--canary", "5"], "--canary does not go with"),
        (["digits:3", "--to", "none.yaml"], "there is no file none.yaml"),
        (["service.yaml", "--to", "ssh://shop1/m"], "sends a version of a model"),
        (["digits:3", "--health", "true"], "--health goes with --to ssh://"),
    ],
)
def test_what_is_wrong_is_said(
    qd: Any, controller: FakeController, words: list[str], said: str
) -> None:
    done = qd("deploy", *words)
    assert done.code == 2 and said in done.err, done.err
    assert controller.asked("POST /v1/edge") == []


def test_drift_is_told_and_ends_with_one(qd: Any, controller: FakeController) -> None:
    view = fleet("done")
    view["hosts"][0]["has"] = seen("digits:2", altered=["m.onnx"], unknown=["x"], drift=True)
    view["hosts"][1]["has"] = seen("digits:3", error="no route to host")
    controller.on("POST /v1/edge/shops/look", view)
    done = qd("edge", "status", "shops")
    said = " ".join(done.out.split())
    assert done.code == 1
    assert "pi@shop1/m" in said and "drift; altered: m.onnx; unknown: x" in said
    assert "not reached: no route to host" in said and "50%" in said
    view["hosts"][0]["has"] = seen("digits:3")
    controller.on("POST /v1/edge/shops/look", view)
    assert qd("edge", "status", "shops", "--json").code == 0


def test_a_push_is_followed_to_its_end(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/edge", fleet())
    controller.on("GET /v1/edge/shops", fleet("failed", reason="pi@shop2/m: it is ill"))
    done = qd("deploy", "digits:3", "--to", "ssh://pi@shop1/m", "--wait")
    assert done.code == 1
    assert "with what they had before: ssh://pi@shop2/m" in " ".join(done.err.split())
    controller.on("GET /v1/edge/shops", fleet("done"))
    assert qd("deploy", "digits:3", "--to", "ssh://pi@shop1/m", "--wait").code == 0
    controller.on("POST /v1/edge/shops/rollback", fleet("returning"))
    controller.on("GET /v1/edge/shops", fleet("returned", reason="rolled back by ada"))
    assert qd("edge", "rollback", "shops", "--wait").code == 0


def test_fleets_are_listed(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/edge", [])
    assert "there is no fleet" in qd("edge").err
    controller.on("GET /v1/edge", [fleet()])
    heading, row = qd("edge").out.splitlines()
    assert heading.split()[:3] == ["FLEET", "VERSION", "STATE"]
    assert row.split()[:2] == ["shops", "digits:3"] and "1/2" in row
    assert json.loads(qd("edge", "--json").out)[0]["fleet"] == "shops"
