"""All that a controller can say of itself, its cluster and its services, as metrics for Prometheus."""

from __future__ import annotations

import shutil
from collections import Counter

from agents.controller.controller import Controller
from jobs import __version__
from jobs.base.states import JOB_STATES, TERMINAL
from jobs.metrics.exposition import Page
from jobs.store import reading

NODE_STATES = ("READY", "DRAINING", "DRAINED", "QUARANTINED", "SUSPECT", "LOST")


async def text(controller: Controller) -> str:
    """The page. Raises what a read of the registry does."""
    page = Page()
    page.gauge("qd_info", "The controller's version.", 1, {"version": __version__})
    jobs = await controller.db.read(reading.state_counts)
    for state in JOB_STATES:
        if state not in TERMINAL:
            page.gauge("qd_jobs", "Jobs that are not over.", jobs.get(state, 0), {"state": state})
    _cluster(page, controller)
    _controller(page, controller)
    controller.services.meter(page)
    return page.text()


def _cluster(page: Page, controller: Controller) -> None:
    views = controller.node_views()
    states = Counter[str](view["state"] for view in views)
    for state in NODE_STATES:
        page.gauge("qd_nodes", "Nodes that are known.", states[state], {"state": state})
    for view in views:
        link = controller.links.links.get(view["name"])
        page.gauge(
            "qd_node_link_up",
            "Whether the controller hears a node's agent.",
            int(link is not None and link.online),
            {"node": view["name"]},
        )
        for gpu in view["gpus"]:
            where = {"node": view["name"], "gpu": str(gpu["index"])}
            page.gauge(
                "qd_gpu_used",
                "Whether a job holds a GPU.",
                int(gpu["job"] is not None),
                where,
            )
            if gpu["util"] is not None:
                page.gauge(
                    "qd_gpu_utilization_ratio", "How busy it is, 0 to 1.", gpu["util"] / 100, where
                )


def _controller(page: Page, controller: Controller) -> None:
    passes = "Passes of a loop that compares what is with what is wanted."
    page.counter(
        "qd_controller_passes_total", passes, controller.reconciler.passes, {"loop": "reconciler"}
    )
    page.counter(
        "qd_controller_passes_total", passes, controller.services.passes, {"loop": "services"}
    )
    page.gauge(
        "qd_controller_queue", "Jobs that wait to be placed.", len(controller.reconciler.waiting())
    )
    lag = controller.lag
    page.histogram(
        "qd_controller_loop_lag_seconds",
        "How much too late the event loop was, looked at once a second.",
        lag.buckets,
        lag.total,
    )
    page.gauge(
        "qd_controller_fabric_up",
        "Whether Ray is connected.",
        int(controller.fabric.state == "connected"),
    )
    page.gauge(
        "qd_controller_registry_up",
        "Whether the registry takes what is written.",
        int(not controller.db.problem),
    )
    problems = Counter(problem["severity"] for problem in controller.problems())
    for severity in ("warning", "error"):
        page.gauge(
            "qd_problems",
            "Problems that `qd status` shows.",
            problems[severity],
            {"severity": severity},
        )
    disk = shutil.disk_usage(controller.state)
    page.gauge("qd_controller_disk_free_bytes", "Free on the disk of the state.", disk.free)
    page.gauge("qd_controller_disk_size_bytes", "Size of the disk of the state.", disk.total)
    storage = controller.pruning.storage()
    if storage is not None:
        page.gauge("qd_blobs_bytes", "Size of the store of blobs.", storage["bytes"])
