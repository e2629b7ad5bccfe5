"""Which field goes where, for each form of export; and why the others do not.

Every field of a job and of a service has its line in each form, which a test holds: a new field has to be
thought of. A field that somebody set and that does not go along is refused. They may say that it is to be
left out (`Workload.leaving_out`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from jobs.base.errors import InvalidInput
from jobs.exports.workload import Workload

Form = Literal["image", "kubernetes", "kserve", "rayjob", "rayservice"]

KEPT = ""
"""It goes along, or the image has it."""

_RUN = "an image does not say how it is run"
_DATA = "versions of data sets are in the cluster's store, and no image has them"
_MOUNTS = "the nodes of the other cluster are not known"
_PRIORITY = "Kubernetes has classes of priority by name, and no numbers"
_LEASE = "no controller renews a lease there"
_TRAFFIC = "there is no front that divides the requests by version"
_OF_US = "nobody there reads it"
_INSIDE = dict.fromkeys(
    ("name", "kind", "command", "workdir", "include", "python", "requirements", "image", "models", "params",
     "seed", "procs_per_node", "launch", "env", "tags", "secrets", "nodes"), KEPT,
)  # fmt: skip

_JOB_ANYWHERE: dict[str, str] = {
    **_INSIDE,
    "mounts": _MOUNTS,
    "data": _DATA,
    "features": _DATA,
    "lease": _LEASE,
    "on_node_loss": _LEASE,
    "on_stall": "nobody there watches the ranks' rhythm",
    "notice": "nobody there announces a stop before SIGTERM",
    "outputs": "nobody there collects them: have the program write to storage",
    "checkpoint": "nobody there copies them: have the program write to storage",
    "resume": "each attempt there begins with the image's files",
    "stream": "what was read is in the job's checkpoints, which nobody there keeps",
    "metrics": _OF_US,
    "objective": _OF_US,
    "priority": _PRIORITY,
}
_JOB_IN_IMAGE = _JOB_ANYWHERE | dict.fromkeys(
    ("lease", "on_node_loss", "on_stall", "notice", "outputs", "checkpoint", "resume", "metrics", "objective",
     "priority", "resources", "max_restarts", "timeout", "grace", "mounts"), KEPT,
)  # fmt: skip
"""An image is what is run; how it is run is not in it, and nothing is lost."""
_JOB_IN_KUBERNETES = _JOB_ANYWHERE | dict.fromkeys(
    ("resources", "max_restarts", "timeout", "grace"), KEPT
)
_JOB_IN_RAY = _JOB_IN_KUBERNETES | {"grace": "KubeRay stops a driver in its own way"}

_SERVICE_ANYWHERE: dict[str, str] = {
    **dict.fromkeys(
        ("name", "version", "model", "command", "ready", "workdir", "include", "python", "requirements",
         "image", "procs_per_node", "launch", "resources", "env", "grace", "replicas", "scale",
         "start_within"), KEPT,
    ),
    "nodes": "a replica of several pods behind one address is no Deployment",
    "mounts": _MOUNTS,
    "priority": _PRIORITY,
    "lease": _LEASE,
    "bind": "the other cluster gives the address",
    "keys": "keys are checked by Quarterdeck's front: use an API gateway",
    "tls": "the certificate belongs to an Ingress or a Gateway there",
    "canary": _TRAFFIC,
    "shadow": _TRAFFIC,
    "agree": _TRAFFIC,
    "rest": _TRAFFIC,
    "least": _TRAFFIC,
    "truths": _TRAFFIC,
    "patience": _TRAFFIC,
    "slower": _TRAFFIC,
    "warm": "the version before is not kept ready there",
    "log": "nobody there reads the inference log",
    "monitor": "nobody there reads the inference log",
    "port": KEPT,
}  # fmt: skip
_SERVICE_IN_IMAGE = dict.fromkeys(_SERVICE_ANYWHERE, KEPT)
_SERVICE_IN_KSERVE = _SERVICE_ANYWHERE | {
    "canary": KEPT,
    "port": "KServe gives the address and its port",
}
_SERVICE_IN_RAY = _SERVICE_ANYWHERE | {
    "port": "KubeRay gives the address and its port",
    "ready": "Ray Serve has checks of its own",
    "start_within": "Ray Serve has checks of its own",
    "scale": "Ray Serve scales by what its own program says",
    "grace": "Ray Serve drains in its own way",
}

FIELDS: Mapping[tuple[Form, Literal["job", "service"]], Mapping[str, str]] = {
    ("image", "job"): _JOB_IN_IMAGE,
    ("image", "service"): _SERVICE_IN_IMAGE,
    ("kubernetes", "job"): _JOB_IN_KUBERNETES,
    ("kubernetes", "service"): _SERVICE_ANYWHERE,
    ("kserve", "service"): _SERVICE_IN_KSERVE,
    ("rayjob", "job"): _JOB_IN_RAY,
    ("rayservice", "service"): _SERVICE_IN_RAY,
}
"""For each form: `KEPT`, or why it does not go along."""


def check(workload: Workload, form: Form, more: Iterable[tuple[str, str]] = ()) -> None:
    """Raise InvalidInput that names every field that was set and does not go along.

    Args:
        more: what does not go along by its value: (field, why).
    """
    noun: Literal["job", "service"] = "job" if workload.service is None else "service"
    fields = FIELDS.get((form, noun))
    if fields is None:
        raise InvalidInput(f"a {noun} cannot be exported so", _ELSEWHERE[form, noun])
    given = workload.given()
    found = [(name, fields[name]) for name in given if fields[name] != KEPT]
    found += [*_by_value(given), *more]
    if found:
        names = ",".join(dict.fromkeys(name for name, _ in found))
        raise InvalidInput(
            "; ".join(f"{name}: {why}" for name, why in found),
            f"To export it without them: --without {names}.",
        )


_ELSEWHERE: Mapping[tuple[str, str], str] = {
    ("kserve", "job"): "KServe serves: `qd export kubernetes` makes a Job of it.",
    ("rayjob", "service"): "A service becomes a RayService: --serve MODULE:APP.",
    ("rayservice", "job"): "--serve is for services: a job becomes a RayJob.",
}


def _by_value(given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Values that an image's variables cannot have."""
    for name, value in given.get("env", {}).items():
        if value is None:
            yield f"env.{name}", "an image cannot unset a variable"
        elif "\n" in value:
            yield f"env.{name}", "a variable of an image has one line"
