"""Evaluating a version: a job that measures it on a hold-out version of a data set."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.commands.modelfiles import manifest_of
from agents.controller.commands.modelrules import open_version
from agents.controller.commands.submitting import check_fits
from agents.controller.controller import Controller
from agents.controller.flows.inputs import stored
from agents.controller.stores.database import to_its_end
from jobs.base.errors import InvalidInput
from jobs.base.names import job_name
from jobs.data.names import parse_ref as parse_data
from jobs.models.evaluations import FOLDER, FORMATS, REQUIREMENTS, TASK, Evaluation, evaluation_name
from jobs.models.names import ModelRef, parse_ref, version_name
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.spec.job import JobSpec
from jobs.store import evaluations, models
from jobs.store.entering import Entered, Entry, Submission, enter_jobs
from jobs.store.evaluationtables import EvaluationRow
from jobs.store.loading import new_job
from jobs.store.modeltables import ModelRow, ModelVersionRow
from jobs.store.writing import Caller
from jobs.wire.evaluationviews import EvaluationDetail, EvaluationView


@dataclass(frozen=True, slots=True)
class Version:
    """What is measured. `main`: the file to load."""

    ref: ModelRef
    name: str
    digest: str
    format: str
    main: str


async def evaluate(
    controller: Controller, who: Caller, ref: str, wanted: Evaluation, key: str | None = None
) -> EvaluationView:
    """Record an evaluation and its job in one transaction, and return.

    The same caller with the same key gets the same evaluation, however often it asks.

    Raises:
        NotFound: no such version, or no such data. Conflict: the version is archived.
        InvalidInput: its format cannot be evaluated, or no node could run the job.
    """
    meant = parse_ref(ref)
    version = await controller.db.read(lambda session: _version(*open_version(session, meant)))
    python = evaluator_python(version.format, wanted)
    data = await controller.datasets.pinned({"holdout": parse_data(wanted.data)})
    pin = controller.datasets.of(data)["holdout"]
    spec = wanted.job(version.ref.name, version.ref.number or 0, pin["version"], python)
    check_fits(controller, spec)
    files = await manifest_of(controller, version.digest, version.name)
    laid = {TASK: wanted.task_file(version.format, version.main)}
    if python is None:
        parquet = await asyncio.to_thread(_has_parquet, controller, pin["manifest"])
        laid[REQUIREMENTS] = wanted.requirements(version.format, parquet=parquet)
    snapshot = await asyncio.to_thread(_work_folder, controller, files, laid)
    entry = _entry(controller, who, spec, snapshot, key)

    def decide(session: Session, now: float) -> Done[tuple[Entered, EvaluationView]]:
        model, row = open_version(session, version.ref)
        (entered,) = enter_jobs(session, [entry])
        known = None if entered.created else evaluations.of_job(session, entered.number)
        if known is not None:
            return Done((entered, evaluations.view(evaluations.get(session, known.id or 0))))
        made = EvaluationRow(
            version_id=row.id or 0,
            digest=row.digest,
            data=pin["version"],
            data_digest=pin["manifest"],
            asked=wanted.asked(),
            job_id=entered.number,
            state="RUNNING",
            user=who.user,
            uid=who.uid,
            created_at=now,
        )
        session.add(made)
        session.flush()
        name, job = evaluation_name(made.id or 0), job_name(entered.number)
        text = f"{version.name} is measured on {made.data} by {job} ({name})"
        facts = {"evaluation": name, "job": job, "data": made.data, "digest": row.digest}
        return Done(
            (entered, evaluations.view((made, model, row))),
            text,
            facts,
            target=version.name,
            left={"model": version.name, "data": made.data, "evaluation": name},
        )

    async def record() -> EvaluationView:
        entered, view = await act(controller, who, "model.evaluate", ref, decide)
        if entered.row is not None:
            live = controller.reconciler.add(entered.row, new_job(entered.row), spec)
            controller.hub.publish("jobs", live.view["id"], live.view)
            controller.hub.announce(entered.events)
        return view

    # Shielded: who hangs up must not leave a job in the registry that nobody looks after.
    return await to_its_end(record)


def _version(model: ModelRow, row: ModelVersionRow) -> Version:
    """Raises InvalidInput for a format that cannot be evaluated."""
    name = version_name(model.name, row.number)
    if row.format not in FORMATS or row.main is None:
        raise InvalidInput(
            f"{name} is {row.format}, which cannot be evaluated; allowed: {', '.join(FORMATS)}",
            "Export the model to one of these.",
        )
    exactly = ModelRef(model.name, number=row.number)
    return Version(exactly, name, row.digest, row.format, row.main)


def evaluator_python(kind: str, wanted: Evaluation) -> str | None:
    """The interpreter of the job: the one that is named, or the controller's, if that has what is needed.
    None for an environment that is built on the node."""
    if wanted.python is not None and wanted.isolated:
        raise InvalidInput("python and isolated exclude each other")
    if wanted.python is not None:
        return wanted.python
    here = all(find_spec(name) for name in FORMATS[kind])
    if wanted.explain is not None and not (find_spec("shap") or find_spec("sklearn")):
        here = False
    return sys.executable if here and not wanted.isolated else None


def _has_parquet(controller: Controller, manifest: str) -> bool:
    """Blocking."""
    files = Manifest.from_bytes(controller.blobs.read(manifest)).files
    return any(entry.path.lower().endswith(".parquet") for entry in files)


def _work_folder(controller: Controller, model: Manifest, laid: Mapping[str, bytes]) -> Manifest:
    """What the job finds: the model's files below a folder, and files of ours. Blocking."""
    files = [
        FileEntry(f"{FOLDER}/{one.path}", one.mode, one.size, one.sha256, one.link)
        for one in model.files
    ]
    for path, data in laid.items():
        digest = sha256(data).hexdigest()
        if not controller.blobs.has(digest):
            controller.blobs.put(digest, io.BytesIO(data))
        files.append(FileEntry(path, 0o644, len(data), digest))
    manifest = Manifest.of(files)
    stored(controller.blobs, manifest)
    return manifest


def _entry(
    controller: Controller, who: Caller, spec: JobSpec, snapshot: Manifest, key: str | None
) -> Entry:
    submission = Submission(
        name=spec.name,
        kind=spec.kind,
        spec=spec.to_json(),
        nodes=spec.nodes,
        ranks=spec.world_size,
        gpus=spec.total_gpus,
        cpus=spec.total_cpus,
        priority=spec.priority,
        max_restarts=spec.max_restarts,
        tags=spec.tags,
        key=key,
        snapshot=snapshot.digest,
    )
    return Entry(submission, who, controller.now(), (len(snapshot.files), snapshot.total_bytes))


async def listed(
    controller: Controller, ref: str | None, data: str | None, limit: int
) -> Sequence[EvaluationView]:
    """Evaluations, newest first: of a model, or of the version that `ref` names. Raises NotFound."""
    if data is not None:
        parse_data(data)

    def read(session: Session) -> list[EvaluationView]:
        model, version = None, None
        if ref is not None:
            meant = parse_ref(ref)
            found, row = models.get_version(session, meant)
            model, version = found.name, None if meant == ModelRef(meant.name) else row.id
        return [
            evaluations.view(one)
            for one in evaluations.listed(
                session, model=model, version=version, data=data, limit=limit
            )
        ]

    return await controller.db.read(read)


async def shown(controller: Controller, number: int) -> EvaluationDetail:
    """Raises NotFound."""
    return await controller.db.read(
        lambda session: evaluations.detail(evaluations.get(session, number))
    )
