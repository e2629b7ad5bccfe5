"""KubeRay (ray.io/v1): a job of kind ray as a RayJob, a Ray Serve program as a RayService."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jobs.base.errors import InvalidInput
from jobs.exports import mapping, pods
from jobs.exports.workload import APP, Workload

_APPLICATION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*")
_VERSION = re.compile(r"\d+\.\d+\.\d+[A-Za-z0-9.+-]*")


@dataclass(frozen=True, slots=True)
class Workers:
    """The Ray nodes beside the head. `memory` in bytes, 0: no limit."""

    count: int = 0
    cpu: float = 1.0
    memory: int = 0
    gpu: int = 0


def ray_job(
    workload: Workload,
    image: str,
    ray: str,
    workers: Workers,
    *,
    namespace: str | None = None,
) -> dict[str, Any]:
    """A cluster for one driver, which ends with it.

    Args:
        image: made by `qd export image` of the same job, on a base that has Ray.
        ray: the version of Ray in it.

    Raises InvalidInput naming every field that does not go along.
    """
    mapping.check(workload, "rayjob", [*pods.refusals(workload), *_refusals(workload)])
    job = workload.job
    spec: dict[str, Any] = {
        # The driver is started in a folder of Ray's; in the cluster it begins in the work folder.
        "entrypoint": f"cd {APP} && {shlex.join(workload.words())}",
        "shutdownAfterJobFinishes": True,
        "backoffLimit": job.max_restarts,
        "rayClusterSpec": _cluster(workload, image, ray, workers),
    }
    if job.timeout is not None:
        spec["activeDeadlineSeconds"] = max(1, round(job.timeout))
    meta = pods.metadata(workload, namespace)
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": meta, "spec": spec}


def ray_service(
    workload: Workload,
    image: str,
    ray: str,
    workers: Workers,
    application: str,
    *,
    namespace: str | None = None,
) -> dict[str, Any]:
    """A Ray Serve application, as `serve run MODULE:APP` would run it in the work folder."""
    if not _APPLICATION.fullmatch(application):
        raise InvalidInput(f"--serve: found '{application}'; allowed: MODULE:APP")
    mapping.check(workload, "rayservice", pods.refusals(workload))
    applications = [
        {
            "name": workload.name,
            "route_prefix": "/",
            "import_path": application,
            "runtime_env": {"env_vars": {"PYTHONPATH": f"{APP}:/opt/quarterdeck"}},
        }
    ]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": pods.metadata(workload, namespace),
        "spec": {
            # JSON is YAML, and needs no second writer here.
            "serveConfigV2": json.dumps({"applications": applications}, indent=2),
            "rayClusterConfig": _cluster(workload, image, ray, workers),
        },
    }


def _refusals(workload: Workload) -> Iterable[tuple[str, str]]:
    if workload.service is None and workload.job.kind != "ray":
        yield "kind", "it is no Ray program: `qd export kubernetes` makes a Job of it"


def _cluster(workload: Workload, image: str, ray: str, workers: Workers) -> dict[str, Any]:
    if not _VERSION.fullmatch(ray):
        raise InvalidInput(f"--ray-version: found '{ray}'; allowed: such as 2.60.0")
    found: dict[str, Any] = {
        "rayVersion": ray,
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0"},  # noqa: S104 - a pod's own network
            "template": _node(workload, image, "ray-head", pods.resources(workload)),
        },
    }
    if workers.count:
        asked: dict[str, Any] = {"cpu": pods.quantity(workers.cpu)}
        most: dict[str, Any] = {}
        if workers.memory:
            asked["memory"] = most["memory"] = str(workers.memory)
        if workers.gpu:
            most["nvidia.com/gpu"] = str(workers.gpu)
        needs = {"requests": asked, **({"limits": most} if most else {})}
        found["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": workers.count,
                "minReplicas": workers.count,
                "maxReplicas": workers.count,
                "rayStartParams": {},
                "template": _node(workload, image, "ray-worker", needs),
            }
        ]
    return found


def _node(workload: Workload, image: str, name: str, needs: dict[str, Any]) -> dict[str, Any]:
    """KubeRay starts Ray in it, by a command of its own, and asks it by probes of its own."""
    whole = pods.container(workload, image, name=name)
    one = {key: whole[key] for key in ("name", "image", "imagePullPolicy", "securityContext")}
    env = pods.secrets(workload)
    spec = pods.pod(workload, one | {"resources": needs} | ({"env": env} if env else {}))
    del spec["terminationGracePeriodSeconds"], spec["automountServiceAccountToken"]
    return {"metadata": {"labels": workload.labels()}, "spec": spec}
