"""Taking in a job: check it against what is here, then record it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlmodel import Session

from agents.controller.controller import Controller
from jobs.entering import Entered, Entry, Submission, enter_jobs
from jobs.errors import InvalidInput, NotFound
from jobs.fields import MAX_ENV_VALUE
from jobs.loading import new_job
from jobs.registry import Caller
from jobs.scheduling import Request, plan
from jobs.snapshot import Manifest
from jobs.spec import JobSpec
from jobs.views import SubmitView

MAX_SECRET = MAX_ENV_VALUE
"""Characters of one value, which becomes a variable as those of `env` do."""


async def submit(
    controller: Controller,
    who: Caller,
    *,
    spec: Mapping[str, Any],
    key: str | None,
    snapshot: str | None,
    git: Mapping[str, Any] | None,
    secrets: Mapping[str, str],
    dry_run: bool,
) -> SubmitView:
    """Record a job, durably, and return; running it is the reconciler's business.

    The same caller with the same key gets the same job, however often it asks.

    Raises:
        InvalidInput: the spec is wrong, its snapshot is not here, or no node could ever run it.
        StorageFull: it could not be recorded; there is no job.
    """
    checked = JobSpec.from_json(dict(spec))
    check_secrets(checked, secrets)
    manifest = stored_manifest(controller, snapshot)
    check_start(controller, checked)
    check_fits(controller, checked)
    if dry_run:
        return {
            "id": "",
            "state": "QUEUED",
            "created": False,
            "reason": forecast(controller, checked),
        }
    now = controller.now()
    submission = Submission(
        name=checked.name or "job",
        kind=checked.kind,
        spec=checked.to_json(),
        nodes=checked.nodes,
        ranks=checked.world_size,
        gpus=checked.total_gpus,
        cpus=checked.total_cpus,
        priority=checked.priority,
        max_restarts=checked.max_restarts,
        tags=checked.tags,
        key=key,
        snapshot=snapshot,
        git=git,
    )

    size = (len(manifest.files), manifest.total_bytes) if manifest is not None else None
    entry = Entry(submission, who, now, size)

    def write(session: Session) -> Entered:
        (entered,) = enter_jobs(session, [entry])
        if entered.created:
            # Before the commit: a job that is recorded must have its secrets, and a file without a
            # job does no harm.
            controller.secrets.save(entered.number, dict(secrets))
        return entered

    async def record() -> Entered:
        if secrets:
            entered = await controller.db.write(write)
        else:  # together with all that come at this moment
            entered = await controller.db.write_each(enter_jobs, entry)
        if entered.row is not None:
            live = controller.reconciler.add(entered.row, new_job(entered.row), checked)
            controller.hub.publish("jobs", live.view["id"], live.view)
            for event in entered.events:
                controller.hub.publish("events", str(event["id"]), event)
        return entered

    # Shielded: who hangs up must not leave a job in the registry that nobody looks after.
    entered = await asyncio.shield(asyncio.ensure_future(record()))
    view = await controller.job_view(entered.number)
    return {
        "id": view["id"],
        "state": view["state"],
        "created": entered.created,
        "reason": view["reason"],
    }


def check_fits(controller: Controller, spec: JobSpec) -> None:
    """Raises InvalidInput when no node could ever run this."""
    refusal = controller.reconciler.planner.refusal(spec.shape())
    if refusal is not None:
        raise InvalidInput(f"no node can run this: {refusal}", "See `qd nodes` for what there is.")


def check_secrets(spec: JobSpec, secrets: Mapping[str, str]) -> None:
    """Raises InvalidInput unless there is a value for each secret, and no other."""
    missing = [name for name in spec.secrets if name not in secrets]
    if missing:
        raise InvalidInput(f"secrets: no value came for {', '.join(missing)}")
    unknown = sorted(set(secrets) - set(spec.secrets))
    if unknown:
        raise InvalidInput(f"secrets: {', '.join(unknown)} is not in the spec's list")
    for name, value in secrets.items():
        # Never the value itself in the words: they go to screens and logs.
        if "\0" in value or not _is_unicode(value) or len(value) > MAX_SECRET:
            raise InvalidInput(
                f"secrets: the value of {name} cannot be a variable",
                f"Text without NUL, at most {MAX_SECRET} characters; put a longer one into a file.",
            )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def stored_manifest(controller: Controller, snapshot: str | None) -> Manifest | None:
    """The snapshot's manifest, with all its blobs here."""
    if snapshot is None:
        return None
    if not controller.blobs.has(snapshot):
        raise InvalidInput(
            f"snapshot {snapshot[:19]} is not here", "Upload it first (`qd submit` does)."
        )
    manifest = Manifest.from_bytes(controller.blobs.read(snapshot))
    missing = controller.blobs.missing(sorted(manifest.blobs))
    if missing:
        raise InvalidInput(f"{len(missing)} files of snapshot {snapshot[:19]} are not here")
    return manifest


def check_start(controller: Controller, spec: JobSpec) -> None:
    """Raises NotFound when the checkpoint that a job begins with is not all here."""
    start = spec.checkpoint.start
    if start is None:
        return
    blobs = controller.blobs
    if not blobs.has(start) or blobs.missing(Manifest.from_bytes(blobs.read(start)).blobs):
        raise NotFound(
            f"checkpoint.start: {start[:19]} is not here, or not any more",
            "`qd job` lists what is kept of a run; of a population, docs/sweeps.md tells what is.",
        )


def forecast(controller: Controller, spec: JobSpec) -> str:
    """What would happen to this job if it were submitted now."""
    reconciler = controller.reconciler
    number = max(reconciler.live, default=0) + 1
    request = Request(
        job=number,
        shape=spec.shape(),
        priority=spec.priority,
        arrival=controller.now(),
        user="",
        timeout=spec.timeout,
    )
    decided = plan(
        [*(live.request() for live in reconciler.waiting()), request],
        controller.cluster.capacities(reconciler.busy()),
        [live.running() for live in reconciler.holding()],
        controller.now(),
    )
    for placement in decided.placements:
        if placement.job == number:
            return f"would start now on {', '.join(placement.nodes)}"
    return f"would wait: {decided.reasons.get(number, 'not known yet')}"
