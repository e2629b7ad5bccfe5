"""Cut published schemas down to what exports may use: `python trim.py SOURCE...` writes `schemas/`.

A source is a CustomResourceDefinition (YAML), or `_definitions.json` of Kubernetes with the kinds to take
(`_definitions.json:Job,Deployment`). Descriptions, status and parts of pods that no export has are left out,
and no object takes a field that it does not name, as `kubectl --validate=strict` has it. schemas/README.md
says of which versions they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent / "schemas"
_LEFT_OUT = {
    "affinity", "ephemeralContainers", "initContainers", "topologySpreadConstraints", "volumes", "lifecycle",
    "volumeMounts", "volumeDevices", "volumeClaimTemplates", "resourceClaims", "dnsConfig", "hostAliases",
    "readinessGates", "schedulingGates", "explainer", "transformer", "workerSpec", "managedFields",
    "ownerReferences", "submitterConfig", "schedulingGroup", "workloadRef", "seLinuxOptions",
    "windowsOptions",
    "huggingface", "lightgbm", "paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton", "xgboost",
    "autoscalerOptions", "upgradeStrategy", "authOptions", "gcsFaultToleranceOptions", "headService",
    "serveService", "deletionStrategy", "oauth2", "tlsConfig", "authorization", "basicAuth", "scaleStrategy",
    "redisFaultToleranceOptions", "networkPolicy", "onnx", "status", "podMetadata", "autoscaling",
    "proxyUrl", "metricRelabelings", "relabelings", "bearerTokenSecret", "oauth",
    "fileKeyRef", "resourceFieldRef", "object", "external", "ingress", "sysctls",
    "supplementalGroups", "podFailurePolicy", "successPolicy",
}  # fmt: skip
_KEPT = {
    "type", "properties", "items", "required", "enum", "pattern", "minimum", "maximum", "minLength",
    "maxLength", "minItems", "maxItems", "anyOf", "oneOf", "additionalProperties", "$ref", "format",
}  # fmt: skip


def trimmed(schema: Any) -> Any:
    """The same without what no export needs, and strict."""
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            out[key] = {n: trimmed(v) for n, v in value.items() if n not in _LEFT_OUT}
        elif key in ("anyOf", "oneOf"):
            out[key] = [trimmed(one) for one in value]
        elif key in _KEPT and key != "format":
            out[key] = trimmed(value)
    if "properties" in out:
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out.setdefault("additionalProperties", False)
        out["required"] = [name for name in out.get("required", []) if name in out["properties"]]
        if not out["required"]:
            del out["required"]
    return out


def of_crd(crd: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    kind, group = crd["spec"]["names"]["kind"], crd["spec"]["group"]
    version = next(v for v in crd["spec"]["versions"] if v["storage"])
    schema = trimmed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["apiVersion"] = {"enum": [f"{group}/{version['name']}"]}
    schema["properties"]["kind"] = {"enum": [kind]}
    text = {"type": "string"}
    strings = {"type": "object", "additionalProperties": text}
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {"name": text, "namespace": text, "labels": strings, "annotations": strings},
        "additionalProperties": False,
    }
    return kind, schema


def of_kubernetes(definitions: dict[str, Any], kinds: list[str]) -> dict[str, Any]:
    """The definitions of some kinds and all that they refer to."""
    every = definitions["$defs"]
    groups = (
        "io.k8s.api.core.v1",
        "io.k8s.api.apps.v1",
        "io.k8s.api.batch.v1",
        "io.k8s.api.autoscaling.v2",
    )
    names = [f"{group}.{kind}" for group in groups for kind in kinds if f"{group}.{kind}" in every]
    found: dict[str, Any] = {}
    while names:
        name = names.pop()
        if name not in found:
            found[name] = trimmed(every[name])
            names += [ref.split("/")[-1] for ref in _refs(found[name])]
    return {"$defs": dict(sorted(found.items()))}


def _refs(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"]] if "$ref" in schema else []
        return own + [ref for value in schema.values() for ref in _refs(value)]
    return [ref for value in schema for ref in _refs(value)] if isinstance(schema, list) else []


def main() -> None:
    for source in sys.argv[1:]:
        place, _, kinds = source.partition(":")
        if kinds:
            name, schema = (
                "kubernetes",
                of_kubernetes(json.loads(Path(place).read_text()), kinds.split(",")),
            )
        else:
            name, schema = of_crd(yaml.safe_load(Path(place).read_text()))
        text = json.dumps(schema, separators=(",", ":"))
        (HERE / f"{name}.json").write_text(text.replace("_definitions.json#", "#") + "\n")


if __name__ == "__main__":
    main()
