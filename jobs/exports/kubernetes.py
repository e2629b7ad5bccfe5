"""Plain Kubernetes: a service as Deployment, Service, HorizontalPodAutoscaler and PodMonitor, a job as Job.

Field names are those of the published API (v1.37; PodMonitor: monitoring.coreos.com/v1). The tests hold what
comes out against its schemas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.exports import mapping, pods
from jobs.exports.workload import MASTER_PORT, PORT, Workload

RUNNING = "qd_requests_running"
"""The gauge of our model server that an autoscaler follows, through an adapter for custom metrics."""


def manifests(
    workload: Workload,
    image: str,
    *,
    namespace: str | None = None,
    metrics: str | None = None,
    gauge: str | None = None,
) -> list[dict[str, Any]]:
    """The objects, in the order in which they are created.

    Args:
        image: made by `qd export image` of the same workload.
        metrics: path of the program's own metrics, for a PodMonitor.
        gauge: the name of its gauge of requests in progress.

    Raises InvalidInput naming every field that does not go along.
    """
    if workload.ours:
        metrics, gauge = metrics or "/metrics", gauge or RUNNING
    mapping.check(workload, "kubernetes", [*pods.refusals(workload), *_refusals(workload, gauge)])
    if workload.service is None:
        return _job(workload, image, namespace)
    objects = [_deployment(workload, image, namespace), _service(workload, namespace)]
    if workload.service.scale is not None and gauge is not None:
        objects.append(_autoscaler(workload, namespace, gauge))
    if metrics is not None:
        objects.append(_monitor(workload, namespace, metrics))
    return objects


def _refusals(workload: Workload, gauge: str | None) -> Iterable[tuple[str, str]]:
    job, service = workload.job, workload.service
    if job.kind == "ray":
        yield "kind", "a Ray program needs a Ray cluster: `qd export kuberay`"
    if service is None:
        if job.nodes > 1 and job.max_restarts:
            yield "max_restarts", "a Job starts single pods again, and not the gang"
        return
    scale = service.scale
    if scale is None:
        return
    if gauge is None:
        yield "scale", "an autoscaler needs the gauge of requests in progress: --gauge NAME"
    if scale.min == 0:
        yield "scale.min", "a Deployment does not go to zero by itself: `qd export kserve` does"
    if scale.latency is not None:
        yield "scale.latency", "an autoscaler has no p95 to follow"


def _deployment(workload: Workload, image: str, namespace: str | None) -> dict[str, Any]:
    service = workload.service
    assert service is not None
    spec: dict[str, Any] = {
        "selector": {"matchLabels": pods.selector(workload)},
        # As in a rollout here: never fewer ready replicas than asked for.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "progressDeadlineSeconds": max(2, round(service.start_within) + 60),
        "template": {
            "metadata": {"labels": workload.labels()},
            "spec": pods.pod(workload, pods.container(workload, image)),
        },
    }
    if service.scale is None:  # else the autoscaler says how many
        spec = {"replicas": service.replicas, **spec}
    meta = pods.metadata(workload, namespace)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def _service(workload: Workload, namespace: str | None) -> dict[str, Any]:
    assert workload.service is not None
    port = {"name": "http", "port": workload.service.port or 80, "targetPort": PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(workload, namespace),
        "spec": {"selector": pods.selector(workload), "ports": [port]},
    }


def _autoscaler(workload: Workload, namespace: str | None, gauge: str) -> dict[str, Any]:
    assert workload.service is not None and workload.service.scale is not None
    scale = workload.service.scale
    target = {"type": "AverageValue", "averageValue": pods.quantity(scale.concurrency)}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": pods.metadata(workload, namespace),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": workload.name,
            },
            "minReplicas": max(1, scale.min),
            "maxReplicas": scale.max,
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": gauge}, "target": target}}],
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0},
                "scaleDown": {"stabilizationWindowSeconds": min(3600, round(scale.quiet))},
            },
        },
    }


def _monitor(workload: Workload, namespace: str | None, path: str) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": pods.metadata(workload, namespace),
        "spec": {
            "selector": {"matchLabels": pods.selector(workload)},
            "podMetricsEndpoints": [{"port": "http", "path": path, "interval": "15s"}],
        },
    }


def _job(workload: Workload, image: str, namespace: str | None) -> list[dict[str, Any]]:
    """A Job with an index for each node, behind a Service without an address by which the ranks meet."""
    job = workload.job
    gang = job.nodes > 1
    one = pods.container(workload, image)
    more: dict[str, Any] = {"restartPolicy": "Never"}
    if gang:
        first = f"{workload.name}-0.{workload.name}"
        meeting = {"MASTER_ADDR": first, "MASTER_PORT": str(MASTER_PORT)}
        one["env"] = [
            *({"name": name, "value": value} for name, value in meeting.items()),
            *one.get("env", []),
        ]
        more["subdomain"] = workload.name
    spec: dict[str, Any] = {
        "completions": job.nodes,
        "parallelism": job.nodes,
        "completionMode": "Indexed",
        # A gang is whole or not at all: one rank that fails ends the others.
        "backoffLimit": 0 if gang else job.max_restarts,
        "template": {
            "metadata": {"labels": workload.labels()},
            "spec": pods.pod(workload, one, **more),
        },
    }
    if job.timeout is not None:
        spec["activeDeadlineSeconds"] = max(1, round(job.timeout))
    meta = pods.metadata(workload, namespace)
    objects = [{"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}]
    if gang:
        ports = {"clusterIP": "None", "publishNotReadyAddresses": True}
        objects.insert(
            0,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": pods.metadata(workload, namespace),
                "spec": {**ports, "selector": pods.selector(workload)},
            },
        )
    return objects
