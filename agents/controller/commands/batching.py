"""Batch prediction with a version of a model: a job whose ranks share the files."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from agents.controller.commands.requests import SubmitRequest, Submitted
from agents.controller.commands.services import Version, servable, server_python
from agents.controller.commands.submitting import submit
from agents.controller.controller import Controller
from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.models.names import parse_ref
from jobs.spec.job import JobSpec
from jobs.store.writing import Caller
from jobs.wire.views import SubmitView

RESTARTS = 3
"""A run that is started again does only what was not done yet."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be predicted. Files and `out` are whole paths on the nodes.

    `features` names the columns of the model's input, `rows` is how many go into one inference.
    """

    files: tuple[str, ...]
    out: str
    ranks: int = 1
    rows: int | None = None
    features: tuple[str, ...] = ()
    allow_nan: bool = False
    python: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    key: str | None = None


async def predict(controller: Controller, who: Caller, ref: str, batch: Batch) -> SubmitView:
    """Record the job, durably, and return.

    Raises:
        NotFound: no such version. Conflict: it is archived.
        InvalidInput: it is no ONNX model, a path is none, or no node could ever run it.
    """
    for path in (*batch.files, batch.out):
        if not path.startswith("/"):
            raise InvalidInput(f"found {show(path)}; allowed: absolute paths on the nodes")
    wanted, signers = parse_ref(ref), await controller.signers()

    def read(session: Session) -> Version:
        # As at staging: an approval is about what answers people, not about what is tried on files.
        return servable(session, wanted, "staging", controller.now(), signers)

    version = await controller.db.read(read)
    spec = job(version, batch)
    request = SubmitRequest(spec=spec.to_json(), key=batch.key, snapshot=version.digest)
    return await submit(controller, who, Submitted(request, spec))


def job(version: Version, batch: Batch) -> JobSpec:
    """The job that does it. Raises InvalidInput."""
    name = f"{version.model}:{version.number}"
    words = ["python", "-m", "quarterdeck_serve.batch", "--name", name, "--out", batch.out]
    words += ["--rows", str(batch.rows)] if batch.rows is not None else []
    words += ["--features", ",".join(batch.features)] if batch.features else []
    words += ["--allow-nan"] if batch.allow_nan else []
    words += version.words
    given = {"cpu": batch.cpus, "gpu": batch.gpus}
    return JobSpec.from_json(
        {
            "name": f"predict-{version.model}"[:63],
            "command": [*words, "--", version.main, *batch.files],
            "python": batch.python or server_python(),
            "procs_per_node": batch.ranks,
            "launch": "plain",
            "resources": {kind: value for kind, value in given.items() if value is not None},
            "max_restarts": RESTARTS,
            "tags": {"predict": name, "out": batch.out},
        }
    )
