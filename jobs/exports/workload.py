"""What is exported: a job, or a service with the job of one of its replicas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.base.errors import InvalidInput
from jobs.services.spec import ServiceSpec
from jobs.spec.job import JobSpec

PORT = 8080
"""Where a service listens in its container."""
MASTER_PORT = 29500
"""Where rank 0 waits for the others in its pod: torchrun's own default."""
UID = 10001
"""The user in the image: no user of a distribution, and not root."""
APP, OURS, MODELS = "/app", "/opt/quarterdeck", "/opt/models"
"""The work folder, our helper, and versions of models, in the image."""
SERVER = "quarterdeck_serve"

_NOT_A_LABEL = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Workload:
    """A job, or a service (`service` is then set, and `job` is one replica).

    Attributes:
        version: of what it serves; for a job, empty.
        models: names of `models:` and the folder in the image of each.
    """

    job: JobSpec
    service: ServiceSpec | None = None
    version: str = ""
    models: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_service(cls, spec: ServiceSpec) -> Workload:
        """Raises InvalidInput for what no job can be."""
        version = spec.version or "1"
        job = spec.job(version)
        return cls(job, spec, version, {name: f"{MODELS}/{name}" for name in job.models})

    @classmethod
    def of_job(cls, spec: JobSpec) -> Workload:
        """Raises InvalidInput for a job of kind service, whose file says too little."""
        if spec.kind == "service":
            raise InvalidInput(
                "kind: found service, in a job", "Export the service's own file: docs/serving.md."
            )
        return cls(spec, models={name: f"{MODELS}/{name}" for name in spec.models})

    def leaving_out(self, names: Iterable[str]) -> Workload:
        """The same as if nobody had set these fields ("lease", "scale.min"). Raises InvalidInput."""
        spec = self.job if self.service is None else self.service
        data = spec.model_dump(mode="json", exclude_unset=True)
        for name in names:
            first, _, rest = name.partition(".")
            if first not in type(spec).model_fields:
                noun = "job" if self.service is None else "service"
                raise InvalidInput(f"--without: a {noun} has no field '{first}'")
            if rest and isinstance(data.get(first), dict):
                data[first].pop(rest, None)
            elif not rest:
                data.pop(first, None)
        if self.service is None:
            return self.of_job(JobSpec.from_json(data))
        return self.of_service(ServiceSpec.from_json(data))

    @property
    def name(self) -> str:
        """A name for Kubernetes (RFC 1123): lower case, digits and '-', at most 50 characters, so that
        what Kubernetes puts behind it fits."""
        name = _NOT_A_LABEL.sub("-", self.job.name.lower()).strip("-")[:50].strip("-")
        if not name:
            raise InvalidInput(f"name: found '{self.job.name}'; allowed: with a letter or a digit")
        return name if name[0].isalpha() else f"q-{name}"

    @property
    def ours(self) -> bool:
        """Whether our model server answers, which has /metrics and a path for liveness."""
        command = self.job.command
        words = (command,) if isinstance(command, str) else command
        return self.service is not None and any(SERVER in word for word in words)

    @property
    def ranked(self) -> bool:
        """Whether its processes learn of each other, so that our program starts them."""
        return self.job.kind != "ray" and (self.job.launcher != "plain" or self.job.world_size > 1)

    def words(self) -> list[str]:
        """The command of the container."""
        argv = self.job.argv()
        if not self.ranked:
            return argv
        start = ["python3", f"{OURS}/quarterdeck_ranks.py"]
        places = ["--nodes", str(self.job.nodes), "--procs", str(self.job.procs)]
        more = ["--gpus", str(int(self.job.resources.gpu)), "--grace", f"{self.job.grace:g}"]
        return [*start, *places, "--launch", self.job.launcher, *more, "--", *argv]

    def labels(self) -> dict[str, str]:
        """Labels that Kubernetes recommends."""
        labels = {
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/managed-by": "quarterdeck-export",
        }
        return labels | (
            {"app.kubernetes.io/version": _label(self.version)} if self.version else {}
        )

    def annotations(self) -> dict[str, str]:
        """Tags, which may hold what no label may."""
        return {f"quarterdeck/{_key(key)}": value for key, value in self._tags().items()}

    def _tags(self) -> dict[str, str]:
        return {} if self.service is not None else dict(self.job.tags)

    def given(self) -> dict[str, Any]:
        """The fields that somebody set to something else than the default, as JSON."""
        spec = self.job if self.service is None else self.service
        return {
            name: value
            for name, value in spec.model_dump(mode="json", exclude_defaults=True).items()
            if name in spec.model_fields_set
        }


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._") or "1"


def _key(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)
