"""A file of a service or of a job: which of both it is."""

from __future__ import annotations

from pathlib import Path

from jobs.exports.workload import Workload
from jobs.services.spec import ServiceSpec, load_service
from jobs.spec import yamlfile
from jobs.spec.job import JobSpec, load_job

_ONLY_SERVICES = ServiceSpec.model_fields.keys() - JobSpec.model_fields.keys()


def is_service(path: Path) -> bool:
    """Whether a file describes a service: it has a field that only services have, or its command listens on
    $PORT. Raises InvalidInput for what is no YAML."""
    data = yamlfile.load(path).data
    if not isinstance(data, dict):
        return False
    command = data.get("command")
    words = command if isinstance(command, list) else [command]
    return bool(_ONLY_SERVICES & data.keys()) or any("$PORT" in str(word) for word in words)


def read(path: Path, kind: str | None) -> Workload:
    """What a file describes. Raises InvalidInput with its lines.

    Args:
        kind: "service" or "job"; None to see it from the file.
    """
    if kind == "service" or (kind is None and is_service(path)):
        return Workload.of_service(load_service(path))
    return Workload.of_job(load_job(path)[0])
