"""`qd scale`, and how a scaled service is shown, against a fake controller."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.console.fake_controller import FakeController
from tests.console.test_cli_services import deployment

PATH = "/v1/deployments/hello"
SCALING = {
    "version": "1", "min": 0, "max": 4, "concurrency": 8.0, "latency": None, "quiet": 120.0,
    "idle": 300.0, "hold": 60.0, "queue": 100, "replicas": 3, "ready": 2, "load": 20.25, "held": 0,
    "since": "2026-11-29T08:00:00.000Z", "reason": "20.2 requests in progress, at most 8 for each replica",
    "blocked": "",
}  # fmt: skip


def view(**changes: Any) -> dict[str, Any]:
    return deployment("done") | {"scaling": SCALING | changes}


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["3"], {"replicas": 3}),
        (["1-4"], {"scale": {"min": 1, "max": 4}}),
        (
            ["0-2", "--idle", "10m", "--concurrency", "2", "--latency", "200ms"],
            {"scale": {"min": 0, "max": 2, "idle": "10m", "concurrency": 2, "latency": "200ms"}},
        ),
        (["--latency", "off"], {"scale": {"latency": None}}),
    ],
)
def test_what_is_asked_for_is_sent(
    qd: Any, controller: FakeController, words: list[str], body: dict[str, Any]
) -> None:
    controller.on(f"POST {PATH}/scale", view())
    told = qd("scale", "hello", *words)
    assert told.code == 0, told.err
    assert controller.asked(f"POST {PATH}/scale")[0].json == body
    assert told.out == (
        "hello production 2 of 3 replicas ready, scaled between 0 and 4; 20.2 requests in progress; "
        "last change: 20.2 requests in progress, at most 8 for each replica\n"
    )


def test_alone_it_shows_how_a_service_is_scaled(qd: Any, controller: FakeController) -> None:
    controller.on(f"GET {PATH}", deployment("done"))
    assert qd("scale", "hello").out == "hello production 1 of 2 replicas ready, a fixed number\n"
    controller.on(
        f"GET {PATH}", view(replicas=0, ready=0, load=0.0, held=2, blocked="j4 is queued")
    )
    assert qd("scale", "hello").out == (
        "hello production at zero, scaled between 0 and 4: a request starts a replica and waits for it, "
        "1m at most; 2 requests waiting for a replica; no room for all: j4 is queued\n"
    )
    assert json.loads(qd("scale", "hello", "--json").out)["scaling"]["held"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["3", "--idle", "5m"], "Give bounds, such as 1-3"),
        (["some"], "bounds such as 1-4 or 0-2"),
    ],
)
def test_what_makes_no_sense_is_refused(
    qd: Any, controller: FakeController, words: list[str], says: str
) -> None:
    told = qd("scale", "hello", *words)
    assert (told.code, says in told.err) == (2, True)


def test_it_is_a_line_below_the_list_and_an_option_of_deploy(
    qd: Any, controller: FakeController
) -> None:
    controller.on("GET /v1/deployments", [view(blocked="j4 is queued: needs 1 GPU")])
    assert "no room for all: j4 is queued: needs 1 GPU" in qd("deployments").err
    controller.on("POST /v1/deployments", view())
    assert qd("deploy", "digits@best", "--scale", "0-4").code == 0
    assert controller.asked("POST /v1/deployments")[0].json["spec"] == {
        "scale": {"min": 0, "max": 4}
    }
    assert qd("deploy", "digits@best", "--scale", "off").code == 0
    assert controller.asked("POST /v1/deployments")[1].json["spec"] == {"scale": False}
    assert "bounds such as 1-4" in qd("deploy", "digits@best", "--scale", "x").err
