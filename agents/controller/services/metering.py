"""What services and their front have done, as metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.base.times import parse_time
from jobs.metrics.exposition import Page
from jobs.services.front import backend_name, service_name
from jobs.services.histogram import Seen, edge_of
from jobs.wire.serviceviews import DeploymentView

STEP = 5
"""Of the front's buckets, a tenth apart, so many make one here: 50 us, 81 us, 130 us, ..."""
LAST = 140
"""The last finite edge, 31 s."""
PHASES = ("starting", "shadowing", "stepping", "paused", "done", "rolled_back", "aborted")


def write_services(
    page: Page, served: Iterable[tuple[int, DeploymentView]], said: Mapping[str, Any]
) -> None:
    """Args:
    served: deployments with their numbers. said: what the front last wrote.
    """
    page.gauge("qd_front_up", "Whether the front of services was heard.", int(bool(said)))
    for number, view in served:
        _service(page, number, view, said)


def _service(page: Page, number: int, view: DeploymentView, said: Mapping[str, Any]) -> None:
    where = {"service": view["name"], "target": view["target"]}
    counts = said.get(
        "counts", {}
    )  # counters of a front that is not heard are left out: not nothing
    page.gauge(
        "qd_service_settled",
        "Whether the front does what is decided.",
        int(view["settled"]),
        where,
    )
    refused = counts.get(service_name(number), {}).get("statuses", {})
    for code in sorted({"401", "429", *refused} if said else ()):
        page.counter(
            "qd_service_refused_total",
            "Requests that the front answered itself: no key (401), over its rate (429).",
            refused.get(code, 0),
            where | {"code": code},
        )
    if view["certificate_until"] is not None:
        page.gauge(
            "qd_service_certificate_expiry_timestamp_seconds",
            "When the certificate ends, in unix time.",
            parse_time(view["certificate_until"]),
            where,
        )
    rollout = view["rollout"]
    for phase in PHASES:
        page.gauge(
            "qd_service_rollout",
            "The phase of the last rollout: 1 for the one it is in.",
            int(rollout is not None and rollout["phase"] == phase),
            where | {"phase": phase},
        )
    scaling = view["scaling"]
    for bound, count in (
        () if scaling is None else (("min", scaling["min"]), ("max", scaling["max"]))
    ):
        page.gauge(
            "qd_service_replicas_bound",
            "Between how many replicas it is scaled.",
            count,
            where | {"bound": bound},
        )
    for version in view["versions"]:
        which = where | {"version": version["version"], "release": str(version["release"])}
        name = backend_name(number, version["release"])
        page.gauge("qd_service_replicas", "Replicas that are wanted.", version["replicas"], which)
        page.gauge(
            "qd_service_replicas_ready", "Replicas that are ready.", version["healthy"], which
        )
        page.gauge(
            "qd_service_traffic_ratio",
            "Share of the requests, 0 to 1.",
            version["traffic"] / 100,
            which,
        )
        if said:
            _requests(page, counts.get(name), said.get("load", {}).get(name, {}), which)


def _requests(
    page: Page,
    counted: Mapping[str, Any] | None,
    load: Mapping[str, int],
    which: Mapping[str, str],
) -> None:
    counted = counted or {"seen": 0, "bad": 0, "spent": 0, "times": {}, "statuses": {}}
    for code, count in sorted({"200": 0, **counted["statuses"]}.items()):
        page.counter(
            "qd_service_requests_total",
            "Requests by the status of their answer; -1: none came.",
            count,
            {**which, "code": code},
        )
    page.counter(
        "qd_service_errors_total",
        "Requests that failed: status 500 and above, or no answer.",
        counted["bad"],
        which,
    )
    page.histogram(
        "qd_service_request_seconds",
        "Time from a request's arrival at the front to the end of its answer.",
        _buckets(Seen.from_json(counted)),
        counted["spent"] / 1e6,
        which,
    )
    page.gauge("qd_service_requests_running", "Requests under way.", load.get("running", 0), which)
    page.gauge(
        "qd_service_requests_queued",
        "Requests that wait at the front for a replica.",
        load.get("queued", 0),
        which,
    )


def _buckets(seen: Seen) -> list[tuple[float, int]]:
    found = dict.fromkeys(range(0, LAST + 1, STEP), 0)
    beyond = 0
    for place, count in seen.times.items():
        upper = -(-place // STEP) * STEP
        if upper in found:
            found[upper] += count
        else:
            beyond += count
    return [*((edge_of(place), count) for place, count in found.items()), (float("inf"), beyond)]
