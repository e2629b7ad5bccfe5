"""When two runs of a step are the same: equal code, command, environment, inputs and parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_OF_A_JOB = (
    "kind", "command", "python", "requirements", "image", "mounts", "nodes", "procs_per_node", "launch",
    "resources", "env", "secrets", "data", "features", "models", "params", "seed", "outputs", "checkpoint",
)  # fmt: skip
"""The fields that make a difference to what a job computes. The rest is its name, and how it is looked
after. Of a secret only the name is known."""


_WHERE_GIVEN = ("features", "image", "mounts")
"""Fields that came later: results from before they were there still count."""


def of_job(spec: Mapping[str, Any], snapshot: str | None) -> str:
    """Args:
    spec: a job's in JSON form, with its parameters filled in.
    snapshot: what it runs, inputs included.
    """
    return _hash(["job", _of_a_job(spec), snapshot])


def of_sweep(spec: Mapping[str, Any], snapshot: str | None) -> str:
    """Args:
    spec: a sweep's in JSON form.
    """
    job = _of_a_job(spec["job"])
    rest = {name: value for name, value in spec.items() if name not in ("name", "job", "parallel")}
    return _hash(["sweep", rest, job, snapshot])


def _of_a_job(spec: Mapping[str, Any]) -> dict[str, Any]:
    more = {name: spec[name] for name in _WHERE_GIVEN if spec.get(name)}
    return {name: spec.get(name) for name in _OF_A_JOB} | more


def _hash(document: Any) -> str:
    data = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(data.encode()).hexdigest()
