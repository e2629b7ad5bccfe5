"""The pod of a workload, which all of Kubernetes' kinds here have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.exports.workload import PORT, UID, Workload

_EVERY = 5
"""Seconds between two probes."""


def refusals(workload: Workload) -> Iterable[tuple[str, str]]:
    """What a pod cannot have, by its value: (field, why)."""
    needs = workload.job.resources
    if needs.gpu != int(needs.gpu):
        yield "resources.gpu", "a share of a GPU is not a resource of Kubernetes"
    if needs.accelerator:
        yield (
            "resources.accelerator",
            "clusters label their nodes in different ways: add a nodeSelector yourself",
        )


def container(workload: Workload, image: str, *, name: str = "main") -> dict[str, Any]:
    """The container that runs an image of `qd export image`; command and variables are in the image."""
    found: dict[str, Any] = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "resources": resources(workload),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    env = secrets(workload)
    if env:
        found["env"] = env
    if workload.service is not None:
        ready = {"httpGet": {"path": workload.service.ready, "port": PORT}}
        alive = {"path": "/v2/health/live", "port": PORT}
        found |= {
            "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
            "readinessProbe": {**ready, "periodSeconds": _EVERY, "timeoutSeconds": 5},
            # Until it has been ready once, nothing else is asked; then a silent one is started again.
            "startupProbe": {
                **ready,
                "periodSeconds": _EVERY,
                "timeoutSeconds": 5,
                "failureThreshold": max(1, round(workload.service.start_within / _EVERY)),
            },
        }
        if workload.ours:
            found["livenessProbe"] = {"httpGet": alive, "periodSeconds": 10, "timeoutSeconds": 5}
    return found


def secrets(workload: Workload) -> list[dict[str, Any]]:
    """Variables whose values are in a Secret with the workload's name, under their own names."""
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": workload.name, "key": name}}}
        for name in workload.job.secrets
    ]


def resources(workload: Workload) -> dict[str, Any]:
    """What one pod, which is one node of the job, asks for and may use."""
    needs = workload.job.resources
    asked: dict[str, Any] = {"cpu": quantity(needs.cpu)}
    most: dict[str, Any] = {}
    if needs.memory:
        asked["memory"] = most["memory"] = str(needs.memory)
    if int(needs.gpu):
        most["nvidia.com/gpu"] = str(int(needs.gpu))
    return {"requests": asked, **({"limits": most} if most else {})}


def quantity(cpus: float) -> str:
    """Cores as Kubernetes writes them: whole, or in thousandths."""
    return str(int(cpus)) if cpus == int(cpus) else f"{max(1, round(cpus * 1000))}m"


def pod(workload: Workload, one: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The pod around a container: no root, no token of the cluster's API."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": max(1, round(workload.job.grace)),
        "containers": [one],
        **more,
    }


def metadata(workload: Workload, namespace: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": workload.name}
    if namespace is not None:
        found["namespace"] = namespace
    found["labels"] = workload.labels()
    annotations = workload.annotations()
    return found | ({"annotations": annotations} if annotations else {})


def selector(workload: Workload) -> dict[str, str]:
    """By which a workload's pods are found; the same for all of its versions."""
    return {"app.kubernetes.io/name": workload.name}
