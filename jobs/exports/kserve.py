"""KServe: a service as an InferenceService (serving.kserve.io/v1beta1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.exports import mapping, pods
from jobs.exports.workload import Workload

_RETENTION = "autoscaling.knative.dev/scale-to-zero-pod-retention-period"


def manifest(
    workload: Workload,
    *,
    image: str | None = None,
    storage: str | None = None,
    namespace: str | None = None,
) -> dict[str, Any]:
    """An InferenceService with our image, or with the ONNX runtime that the other cluster has.

    Args:
        image: made by `qd export image` of the same service.
        storage: where the model's files are instead (`s3://`, `gs://`, `pvc://` ...).

    Raises InvalidInput naming every field that does not go along.
    """
    more = [*pods.refusals(workload), *_refusals(workload, by_runtime=image is None)]
    mapping.check(workload, "kserve", more)
    service = workload.service
    assert service is not None
    predictor: dict[str, Any] = {}
    scale = service.scale
    if scale is not None:
        predictor |= {
            "minReplicas": scale.min,
            "maxReplicas": scale.max,
            "scaleMetric": "concurrency",
            "scaleTarget": max(1, round(scale.concurrency)),
        }
    else:
        predictor |= {"minReplicas": service.replicas, "maxReplicas": service.replicas}
    if service.canary:
        predictor["canaryTrafficPercent"] = round(service.canary[0])
    if image is not None:
        one = pods.container(workload, image, name="kserve-container")
        one["ports"] = [{"containerPort": one["ports"][0]["containerPort"], "protocol": "TCP"}]
        predictor |= pods.pod(workload, one)
    else:
        predictor["model"] = {
            "modelFormat": {"name": "onnx"},
            "protocolVersion": "v2",
            "storageUri": storage,
            "resources": pods.resources(workload),
        }
    meta = pods.metadata(workload, namespace)
    if scale is not None and scale.min == 0:
        meta.setdefault("annotations", {})[_RETENTION] = f"{round(scale.idle)}s"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": meta,
        "spec": {"predictor": predictor},
    }


def _refusals(workload: Workload, *, by_runtime: bool) -> Iterable[tuple[str, str]]:
    service = workload.service
    if service is None:
        return
    if by_runtime and not workload.ours:
        yield "command", "--storage is for models that our model server would serve"
    if by_runtime and service.env:
        yield "env", "the runtime of the other cluster has variables of its own"
    if by_runtime and service.job("1").procs > 1:
        yield "procs_per_node", "the runtime of the other cluster is one process"
    if len(service.canary) > 1:
        yield "canary", "KServe takes one percentage at a time; leave one, and raise it there"
    if service.canary and service.canary[0] != round(service.canary[0]):
        yield "canary", "KServe takes whole percentages"
    scale = service.scale
    given = set() if scale is None else scale.model_fields_set
    if scale is not None and scale.latency is not None:
        yield "scale.latency", "KServe follows requests in progress, or CPU and memory"
    for name in sorted(given & {"quiet", "hold", "queue"}):
        yield f"scale.{name}", "it is a setting of Knative's own there"
