"""What a version comes from and what became of it: drawn, and in the forms that other tools read.

All of it is made from what the API says of a version (`ModelDetail`), so that nothing is said here that
is not recorded.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.base.units import format_size
from jobs.base.words import counted

PRODUCER = "urn:quarterdeck"
_OPENLINEAGE = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PROVENANCE = "https://slsa.dev/provenance/v1"
_LIBRARIES = {
    "onnx": "onnx", "safetensors": "safetensors", "torch-export": "pytorch", "skops": "sklearn",
    "mlflow": "mlflow",
}  # fmt: skip


_DEEPEST = 10
"""Data sets that were made from one another, as far as a tree shows them."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of the tree, and what is below it."""

    text: str
    below: Sequence[Branch] = field(default=())


def tree(detail: Mapping[str, Any]) -> Branch:
    """A version with what it comes from, then what was said of it, then where it is used."""
    lineage = detail["lineage"]
    imported = Branch(f"import {lineage.get('origin')}", _features(lineage))
    origin = _of_run(detail) if lineage["kind"] == "run" else imported
    below = [origin, _files(detail)]
    below += [_gate(one) for one in reversed(detail["gates"])]
    below += [_leaf(_decision(one)) for one in reversed(detail["decisions"])]
    below += [_leaf(f"alias {alias}") for alias in detail["aliases"]]
    return Branch(f"{detail['id']} {detail['state']} {_short(detail['digest'])}", below)


def _leaf(text: str) -> Branch:
    return Branch(text)


def _of_run(detail: Mapping[str, Any]) -> Branch:
    lineage = detail["lineage"]
    below: list[Branch] = []
    if lineage.get("snapshot"):
        below.append(_leaf(f"snapshot {_short(lineage['snapshot'])}"))
    if git := lineage.get("git"):
        changed = ", with changes" if git.get("dirty") else ""
        commit = f"git {git.get('commit', '')[:12]} on {git.get('branch', '')}{changed}"
        below.append(_leaf(commit))
    below += _data(lineage.get("data") or {}, lineage.get("made") or {})
    below += _features(lineage)
    if sweep := lineage.get("sweep"):
        below.append(_leaf(f"sweep {sweep['id']}, trial {sweep['trial']}"))
    params = {**(lineage.get("params") or {})}
    if lineage.get("seed") is not None:
        params["seed"] = lineage["seed"]
    if params:
        said = ", ".join(f"{k}={_plain(v)}" for k, v in params.items())
        below.append(_leaf(f"parameters {said}"))
    where = f"{counted(lineage.get('ranks', 0), 'rank')} on {', '.join(lineage['nodes']) or '?'}"
    gpus = lineage.get("gpus") or []
    below.append(_leaf(where + (f", {counted(len(gpus), 'GPU')}" if gpus else "")))
    if detail["metrics"]:
        values = (f"{n} {'nan' if v is None else f'{v:.6g}'}" for n, v in detail["metrics"].items())
        below.append(_leaf("metrics " + ", ".join(values)))
    text = f"run {lineage['run']} {lineage['name']}, by {lineage['user']}"
    if lineage.get("ended_at"):
        text += f", {lineage['ended_at']}"
    return Branch(text, below)


def _features(lineage: Mapping[str, Any]) -> list[Branch]:
    carried = lineage.get("features")
    if not carried:
        return []
    return [_leaf(f"features {carried['version']} {_short(carried['digest'])}")]


def _data(data: Mapping[str, str], made: Mapping[str, Any], depth: int = 0) -> list[Branch]:
    """Versions that were read, each with what a job made it from."""
    found = []
    for name, version in sorted(data.items()):
        origin, below = made.get(version), list[Branch]()
        if origin is not None and depth < _DEEPEST:
            below += _features(origin)
            below += _data(origin.get("data") or {}, made, depth + 1)
        by = f", made by {origin['run']}" if origin is not None else ""
        found.append(Branch(f"data {name} = {version}{by}", below))
    return found


def _files(detail: Mapping[str, Any]) -> Branch:
    files = detail["contents"]
    shown = [_leaf(f"{f['path']} {format_size(f['size'])} {f['sha256'][:12]}") for f in files[:5]]
    if len(files) > 5:
        shown.append(_leaf(f"and {len(files) - 5} more"))
    return Branch(f"{counted(len(files), 'file')}, {detail['format']}", shown)


def _gate(evidence: Mapping[str, Any]) -> Branch:
    document = evidence["document"]
    verdict = "passed" if evidence["passed"] else "FAILED"
    below = [
        _leaf(f"{'holds' if one['passed'] else 'fails'}: {one['asked']} ({one['why']})")
        for one in document["conditions"]
    ]
    return Branch(
        f"gate {document['gate']['name']} {verdict} {evidence['at']} {_short(evidence['evidence'])}",
        below,
    )


def _decision(one: Mapping[str, Any]) -> str:
    text = (
        f"{'approved' if one['decision'] == 'approve' else 'rejected'} by {one['user']} {one['at']}"
    )
    if one["signer"]:
        text += f", signed by {one['signer']}"
    if one["revoked_at"]:
        text += f", taken back by {one['revoked_by']}"
    return text + (f": {one['comment']}" if one["comment"] else "")


def _short(digest: str) -> str:
    return digest[:19]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def drawn(branch: Branch, *, ascii_only: bool = False) -> Iterator[str]:
    """The tree line by line."""
    fork, last, bar = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")

    def walk(below: Sequence[Branch], before: str) -> Iterator[str]:
        for number, one in enumerate(below, 1):
            end = number == len(below)
            yield before + (last if end else fork) + one.text
            yield from walk(one.below, before + ("   " if end else bar))

    yield branch.text
    yield from walk(branch.below, "")


def openlineage(detail: Mapping[str, Any], cluster: str) -> dict[str, Any]:
    """The run that made it as an OpenLineage event (https://openlineage.io, 2-0-2).

    The run's id is made of the cluster's and the run's: the same run always has the same one.
    """
    lineage, namespace = detail["lineage"], f"quarterdeck://{cluster}"
    run = lineage.get("run") or detail["id"]
    inputs = [
        {"namespace": namespace, "name": f"data/{name}", "facets": _version(str(version))}
        for name, version in sorted((lineage.get("data") or {}).items())
    ]
    if lineage.get("snapshot"):
        facets = _version(lineage["snapshot"])
        inputs.append({"namespace": namespace, "name": "snapshot", "facets": facets})
    if carried := lineage.get("features"):
        name, facets = carried["version"].partition("@")[0], _version(carried["version"])
        inputs.append({"namespace": namespace, "name": f"features/{name}", "facets": facets})
    job: dict[str, Any] = {"namespace": namespace, "name": lineage.get("name") or detail["name"]}
    git = lineage.get("git")
    if git:
        job["facets"] = {
            "sourceCodeLocation": {
                **_facet("1-0-1/SourceCodeLocationJobFacet"),
                "type": "git",
                "url": git.get("remote") or "",
                "version": git.get("commit"),
                "branch": git.get("branch"),
            }
        }
    return {
        "eventType": "COMPLETE",
        "eventTime": lineage.get("ended_at") or detail["created_at"],
        "producer": PRODUCER,
        "schemaURL": _OPENLINEAGE,
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{run}"))},
        "job": job,
        "inputs": inputs,
        "outputs": [
            {
                "namespace": namespace,
                "name": f"models/{detail['name']}",
                "facets": _version(f"{detail['version']}+{detail['digest']}"),
            }
        ],
    }


def _facet(schema: str) -> dict[str, str]:
    name = schema.partition("/")[2]
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}/{schema}.json#/$defs/{name}"}


def _version(version: str) -> dict[str, Any]:
    facet = _facet("1-0-1/DatasetVersionDatasetFacet")
    return {"version": {**facet, "datasetVersion": version}}


def provenance(detail: Mapping[str, Any], cluster: str) -> dict[str, Any]:
    """An in-toto statement with SLSA provenance (https://slsa.dev/spec/v1.0/provenance), unsigned: its
    subjects are the files."""
    lineage = detail["lineage"]
    depends: list[dict[str, Any]] = []
    if lineage.get("snapshot"):
        sha256 = lineage["snapshot"].removeprefix("sha256:")
        depends.append({"name": "snapshot", "digest": {"sha256": sha256}})
    git = lineage.get("git") or {}
    if git.get("commit"):
        notes = {"branch": git.get("branch"), "dirty": git.get("dirty")}
        depends.append(
            {"name": "git", "digest": {"gitCommit": git["commit"]}, "annotations": notes}
        )
    for name, version in sorted((lineage.get("data") or {}).items()):
        depends.append({"name": f"data/{name}", "uri": f"urn:quarterdeck:data:{version}"})
    if carried := lineage.get("features"):
        sha256 = carried["digest"].removeprefix("sha256:")
        depends.append({"name": f"features/{carried['version']}", "digest": {"sha256": sha256}})
    kind = lineage["kind"]
    external = {
        name: lineage[name]
        for name in ("command", "params", "seed", "python", "requirements", "sweep", "origin")
        if lineage.get(name) is not None
    }
    return {
        "_type": _STATEMENT,
        "subject": [
            {"name": file["path"], "digest": {"sha256": file["sha256"]}}
            for file in detail["contents"]
        ],
        "predicateType": _PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"urn:quarterdeck:{kind}:v1",
                "externalParameters": external,
                "internalParameters": {
                    "nodes": lineage.get("nodes") or [],
                    "gpus": lineage.get("gpus") or [],
                    "user": lineage.get("user"),
                },
                "resolvedDependencies": depends,
            },
            "runDetails": {
                "builder": {"id": f"urn:quarterdeck:cluster:{cluster}"},
                "metadata": {
                    "invocationId": lineage.get("run") or detail["id"],
                    "startedOn": lineage.get("started_at") or detail["created_at"],
                    "finishedOn": lineage.get("ended_at") or detail["created_at"],
                },
            },
        },
    }


def card(detail: Mapping[str, Any]) -> str:
    """A model card in Markdown, with the metadata block that Hugging Face reads.

    https://huggingface.co/docs/hub/model-cards. It says what is recorded; what the model is for, and what
    it must not be used for, a person has to add.
    """
    library = _LIBRARIES.get(detail["format"])
    tags = [f"{key}:{value}" if value else key for key, value in detail["tags"].items()]
    head = ["---"]
    if library:
        head.append(f"library_name: {library}")
    if tags:
        head.append(f"tags: {_yaml(tags)}")
    if detail["metrics"]:
        head.append(f"metrics: {_yaml(sorted(detail['metrics']))}")
    head.append("---")
    parts = [
        *head, "", f"# {_escaped(detail['id'])}", "",
        f"State: {detail['state']} ({_escaped(detail['reason'])}). Digest: `{detail['digest']}`.",
    ]  # fmt: skip
    if detail["metrics"]:
        rows = [
            [name, "nan" if value is None else f"{value:.6g}"]
            for name, value in detail["metrics"].items()
        ]
        parts += ["", "## Metrics", "", *_table(["metric", "value"], rows)]
    if signature := detail["signature"]:
        rows = [
            [side.removesuffix("s"), one["name"], one["dtype"], _plain(one["shape"])]
            for side in ("inputs", "outputs")
            for one in signature[side]
        ]
        parts += ["", "## Inputs and outputs", "", *_table(["", "name", "dtype", "shape"], rows)]
    for evidence in detail["gates"][:1]:
        document = evidence["document"]
        rows = [
            ["holds" if one["passed"] else "fails", one["asked"], one["why"]]
            for one in document["conditions"]
        ]
        parts += ["", f"## Gate {_escaped(document['gate']['name'])}", ""]
        parts += _table(["", "asked", "measured"], rows)
    parts += ["", "## Lineage", "", "```text", *map(_no_fence, drawn(tree(detail))), "```", ""]
    return "\n".join(parts)


def _yaml(texts: Sequence[str]) -> str:
    """A list in one line; JSON's form is YAML's too."""
    return json.dumps(list(texts), ensure_ascii=True)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *([_escaped(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _escaped(text: str) -> str:
    """Text that is not Markdown."""
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in flat)


def _no_fence(line: str) -> str:
    return " ".join(line.splitlines()).replace("```", "'''")
