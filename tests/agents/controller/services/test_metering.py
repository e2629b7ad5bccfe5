"""Metrics: clean by promtool, true to what was counted, and all that the dashboard asks for."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from agents.controller.services.metering import write_services
from jobs.metrics.exposition import Page
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.services.test_keys import settled, status
from tests.console.test_cli_services import deployment
from tests.prometheus import check_metrics, check_rules, value
from tests.serving import service

MONITORING = Path(__file__).parents[4] / "docs" / "monitoring"
WHICH = 'service="hello",target="production",version="2",release="2"'


def page(said: dict[str, Any], **changes: Any) -> str:
    made = Page()
    view: Any = deployment("stepping") | changes
    write_services(made, [(3, view)], said)
    return made.text()


def said() -> dict[str, Any]:
    counts = {
        "seen": 5,
        "bad": 1,
        "spent": 2_500_000,
        "statuses": {"200": 4, "503": 1},
        "times": {"0": 1, "5": 1, "6": 1, "30": 1, "200": 1},
    }
    refused = {"seen": 2, "bad": 0, "spent": 9, "statuses": {"429": 2}, "times": {"0": 2}}
    load = {"d3r2": {"running": 7, "queued": 2}}
    return {"counts": {"d3r2": counts, "d3": refused}, "load": load}


def test_counts_of_the_front_are_told_by_version() -> None:
    text = page(said(), certificate_until="2026-12-28T12:00:00.000Z")
    check_metrics(text)
    assert value(text, f'qd_service_requests_total{{{WHICH},code="503"}}') == 1
    assert value(text, f"qd_service_errors_total{{{WHICH}}}") == 1
    assert value(text, f"qd_service_request_seconds_sum{{{WHICH}}}") == 2.5
    assert value(text, f"qd_service_request_seconds_count{{{WHICH}}}") == 5
    edges = [f'qd_service_request_seconds_bucket{{{WHICH},le="{le}"}}' for le in
             ("5e-05", "8.05255e-05", "0.000129687", "+Inf")]  # fmt: skip
    assert [value(text, edge) for edge in edges] == [1, 2, 3, 5]
    assert value(text, f"qd_service_requests_running{{{WHICH}}}") == 7
    refused = 'service="hello",target="production"'
    assert value(text, f'qd_service_refused_total{{{refused},code="429"}}') == 2
    assert value(text, f'qd_service_rollout{{{refused},phase="stepping"}}') == 1
    assert (
        value(text, f"qd_service_certificate_expiry_timestamp_seconds{{{refused}}}") == 1798459200
    )


def test_the_bounds_of_a_scaled_service_are_told() -> None:
    text = page(said(), scaling={"min": 0, "max": 4})
    check_metrics(text)
    where = 'service="hello",target="production"'
    assert value(text, f'qd_service_replicas_bound{{{where},bound="max"}}') == 4


def test_a_front_that_is_not_heard_does_not_count_from_nothing() -> None:
    text = page({})
    check_metrics(text)
    assert value(text, "qd_front_up") == 0
    assert value(text, f"qd_service_replicas_ready{{{WHICH}}}") == 1
    assert "_total" not in text and "request_seconds" not in text


def test_names_that_quote_do_not_end_a_label() -> None:
    made = Page()
    made.gauge("qd_x", "X.", 1.5, {"a": 'b"\\\n'})
    check_metrics(made.text())
    assert made.text().endswith('qd_x{a="b\\"\\\\\\n"} 1.5\n')


async def test_a_running_control_plane_tells_of_itself(plane: Plane) -> None:
    await plane.post("/v1/deployments", {"spec": service("1")})
    view = await settled(plane)
    assert status(view) == 200
    which = 'service="hello",target="production",version="1",release="1"'

    async def read() -> str:
        body, headers = await asyncio.to_thread(plane.client.raw, "/v1/metrics")
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        return body.decode()

    async def counted() -> bool:
        return value(await read(), f'qd_service_requests_total{{{which},code="200"}}') == 1

    await until(counted)
    await until(lambda: sum(plane.controller.lag.counts) > 0)
    text = await read()
    check_metrics(text)
    assert value(text, f"qd_service_replicas_ready{{{which}}}") == 1
    assert value(text, 'qd_node_link_up{node="n1"}') == 1
    assert value(text, 'qd_jobs{state="RUNNING"}') == 2  # the replica and the front
    assert value(text, 'qd_controller_passes_total{loop="reconciler"}') > 1
    assert value(text, "qd_controller_loop_lag_seconds_count") > 0
    # What dashboard and rules ask for is there.
    asked = (MONITORING / "dashboard.json").read_text() + (MONITORING / "rules.yaml").read_text()
    names = {name.removesuffix("_bucket") for name in re.findall(r"\bqd_[a-z_]+", asked)}
    told = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert names - told <= {"qd_service_certificate_expiry_timestamp_seconds"}
    documented = set(
        re.findall(r"`(qd_[a-z_]+)`", (MONITORING.parent / "monitoring.md").read_text())
    )
    assert told - documented == set()


def test_rules_and_dashboard_are_what_their_programs_read() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    check_rules(MONITORING / "rules.yaml")
