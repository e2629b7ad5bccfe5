"""What is exported to Kubernetes, held against the published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import (  # type: ignore[import-untyped]  # comes with ray
    Draft202012Validator,
    ValidationError,
)

from jobs.base.errors import InvalidInput
from jobs.exports.kserve import manifest
from jobs.exports.kuberay import Workers, ray_job, ray_service
from jobs.exports.kubernetes import manifests
from jobs.exports.workload import Workload
from jobs.services.spec import ServiceSpec
from jobs.spec.job import JobSpec

SCHEMAS = Path(__file__).parent / "schemas"
IMAGE = "registry.example/app@sha256:" + "a" * 64
_DEFINED = {
    "Deployment": "io.k8s.api.apps.v1.Deployment",
    "Service": "io.k8s.api.core.v1.Service",
    "Job": "io.k8s.api.batch.v1.Job",
    "HorizontalPodAutoscaler": "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
}


def valid(found: dict[str, Any]) -> dict[str, Any]:
    """The object itself, once it is what the API of its kind takes."""
    kind = found["kind"]
    if kind in _DEFINED:
        defs = json.loads((SCHEMAS / "kubernetes.json").read_text())["$defs"]
        schema = {"$ref": f"#/$defs/{_DEFINED[kind]}", "$defs": defs}
    else:
        schema = json.loads((SCHEMAS / f"{kind}.json").read_text())
    Draft202012Validator(schema).validate(found)
    return found


def service(**fields: Any) -> Workload:
    return Workload.of_service(
        ServiceSpec.from_json({"name": "app", "command": "serve --port $PORT"} | fields)
    )


def model(**fields: Any) -> Workload:
    return service(command=["python", "-m", "quarterdeck_serve", "m.onnx"], **fields)


def job(**fields: Any) -> Workload:
    return Workload.of_job(JobSpec.from_json({"name": "Train_it", "command": "train"} | fields))


def by_kind(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {found["kind"]: valid(found) for found in objects}


def main(found: dict[str, Any]) -> dict[str, Any]:
    one: dict[str, Any] = found["spec"]["template"]["spec"]["containers"][0]
    return one


def refused(workload: Workload, **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        manifests(workload, IMAGE, **options)
    return f"{caught.value.message} {caught.value.hint}"


def test_the_schemas_are_strict() -> None:
    found = manifests(service(), IMAGE)[0]
    main(found)["commands"] = ["x"]
    with pytest.raises(ValidationError):
        valid(found)
    one = manifest(service(), image=IMAGE)
    one["spec"]["predictor"]["minReplica"] = 1
    with pytest.raises(ValidationError):
        valid(one)


def test_a_service() -> None:
    needs = {"gpu": 2, "cpu": 0.5, "memory": 1 << 30}
    asked = service(
        replicas=3, ready="/health", port=9000, resources=needs, start_within=60, grace=20
    )
    found = by_kind(manifests(asked, IMAGE, namespace="prod"))
    assert set(found) == {"Deployment", "Service"}
    deployment = found["Deployment"]
    assert deployment["metadata"]["namespace"] == "prod"
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 20
    one = main(deployment)
    assert one["image"] == IMAGE
    assert one["resources"] == {
        "requests": {"cpu": "500m", "memory": str(1 << 30)},
        "limits": {"memory": str(1 << 30), "nvidia.com/gpu": "2"},
    }
    assert one["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8080}
    assert one["startupProbe"]["failureThreshold"] * one["startupProbe"]["periodSeconds"] == 60
    assert found["Service"]["spec"]["ports"][0]["port"] == 9000
    chosen, template = deployment["spec"]["selector"]["matchLabels"], deployment["spec"]["template"]
    assert chosen.items() <= template["metadata"]["labels"].items()
    assert found["Service"]["spec"]["selector"] == chosen
    assert deployment["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_a_model_is_scaled_and_watched_by_its_own_metrics() -> None:
    scale = {"min": 1, "max": 4, "concurrency": 2.5, "quiet": 300}
    found = by_kind(manifests(model(scale=scale, version="7"), IMAGE))
    assert set(found) == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodMonitor"}
    assert "replicas" not in found["Deployment"]["spec"], "the autoscaler says how many"
    spec = found["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)
    pods = spec["metrics"][0]["pods"]
    assert pods["metric"]["name"] == "qd_requests_running"
    assert pods["target"]["averageValue"] == "2500m"
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert found["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["path"] == "/metrics"
    assert found["Deployment"]["metadata"]["labels"]["app.kubernetes.io/version"] == "7"


def test_a_program_needs_to_say_which_gauge() -> None:
    asked = service(scale={"max": 4})
    assert "--gauge NAME" in refused(asked)
    found = by_kind(manifests(asked, IMAGE, gauge="inflight", metrics="/stats"))
    pods = found["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]
    assert pods["metric"]["name"] == "inflight"
    assert found["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["path"] == "/stats"


def test_what_a_deployment_cannot_do_is_refused_by_name() -> None:
    asked = model(
        scale={"min": 0, "max": 2, "latency": 1},
        canary=[5],
        tls={"cert": "/c", "key": "/k"},
        keys=True,
        resources={"gpu": 0.5, "accelerator": "H100"},
    )
    said = refused(asked)
    names = [
        "canary",
        "tls",
        "keys",
        "scale.min",
        "scale.latency",
        "resources.gpu",
        "resources.accelerator",
    ]
    assert all(f"{name}: " in said for name in names), said
    (hint,) = [part for part in said.split() if "," in part and "scale.min" in part]
    rest = asked.leaving_out(hint.rstrip(".").split(","))
    found = by_kind(manifests(rest, IMAGE))
    assert found["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 1
    with pytest.raises(InvalidInput, match="no field 'lanes'"):
        asked.leaving_out(["lanes"])


def test_a_gang() -> None:
    asked = job(nodes=2, procs_per_node=4, timeout=3600, secrets=["HF_TOKEN"], tags={"a/b": "c"})
    found = by_kind(manifests(asked, IMAGE))
    spec = found["Job"]["spec"]
    assert found["Job"]["metadata"]["name"] == "train-it"
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (2, 2, "Indexed")
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 3600)
    env = {one["name"]: one for one in main(found["Job"])["env"]}
    first = found["Service"]["metadata"]["name"]
    # An indexed Job names its pods JOB-INDEX, and a Service without an address gives them a domain.
    assert env["MASTER_ADDR"]["value"] == f"{found['Job']['metadata']['name']}-0.{first}"
    assert spec["template"]["spec"]["subdomain"] == first
    assert env["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "train-it", "key": "HF_TOKEN"}
    assert found["Service"]["spec"]["clusterIP"] == "None"
    assert "--nodes 2 --procs 4 --launch torchrun" in " ".join(asked.words())


def test_one_process_is_started_again() -> None:
    found = by_kind(manifests(job(max_restarts=3), IMAGE))
    assert set(found) == {"Job"}
    assert found["Job"]["spec"]["backoffLimit"] == 3
    assert job().words() == ["/bin/sh", "-c", "exec train"]
    assert "max_restarts: " in refused(job(nodes=2, max_restarts=3))
    assert "kuberay" in refused(job(kind="ray"))


def test_an_inference_service() -> None:
    scale = {"min": 0, "max": 3, "concurrency": 4, "idle": 90}
    found = valid(manifest(model(scale=scale, canary=[10]), image=IMAGE))
    predictor = found["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (0, 3)
    assert (predictor["scaleMetric"], predictor["scaleTarget"]) == ("concurrency", 4)
    assert predictor["canaryTrafficPercent"] == 10
    assert predictor["containers"][0]["name"] == "kserve-container"
    assert "90s" in found["metadata"]["annotations"].values()
    stored = valid(manifest(model(), storage="s3://models/app/1"))["spec"]["predictor"]["model"]
    assert stored["storageUri"] == "s3://models/app/1"
    for wrong, name in (
        ({"canary": [5, 25]}, "canary"),
        ({"scale": {"max": 2, "hold": 30}}, "scale.hold"),
        ({"port": 9000}, "port"),
    ):
        with pytest.raises(InvalidInput, match=name):
            manifest(model(**wrong), image=IMAGE)
    with pytest.raises(InvalidInput, match="command: "):
        manifest(service(), storage="s3://x")
    with pytest.raises(InvalidInput, match="cannot be exported so"):
        manifest(job(), image=IMAGE)


def test_ray() -> None:
    asked = job(kind="ray", command="python tune.py --n 3", max_restarts=2, secrets=["KEY"])
    group = Workers(3, cpu=4, memory=1 << 33, gpu=1)
    spec = valid(ray_job(asked, IMAGE, "2.60.0", group))["spec"]
    assert spec["entrypoint"].startswith("cd /app && ") and "tune.py --n 3" in spec["entrypoint"]
    assert spec["backoffLimit"] == 2
    workers = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    assert workers["replicas"] == 3
    needs = workers["template"]["spec"]["containers"][0]["resources"]
    assert needs["limits"] == {"memory": str(1 << 33), "nvidia.com/gpu": "1"}
    assert "command" not in workers["template"]["spec"]["containers"][0], "KubeRay starts Ray"
    alone = valid(ray_job(asked, IMAGE, "2.60.0", Workers()))
    assert "workerGroupSpecs" not in alone["spec"]["rayClusterSpec"]
    served = valid(ray_service(service(), IMAGE, "2.60.0", group, "app.main:graph"))
    applications = yaml.safe_load(served["spec"]["serveConfigV2"])["applications"]
    assert [one["import_path"] for one in applications] == ["app.main:graph"]
    with pytest.raises(InvalidInput, match="no Ray program"):
        ray_job(job(), IMAGE, "2.60.0", group)
    with pytest.raises(InvalidInput, match="--serve"):
        ray_service(service(), IMAGE, "2.60.0", group, "app main")
    with pytest.raises(InvalidInput, match="--ray-version"):
        ray_job(asked, IMAGE, "newest", group)
