"""Taking in a job: check it against what is here, then record it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sqlmodel import Session

from agents.controller.commands.datasets import with_data
from agents.controller.commands.requests import Submitted
from agents.controller.controller import Controller
from agents.controller.core.effects import account_name
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.database import to_its_end
from jobs.base.errors import InvalidInput, NotFound
from jobs.placement.scheduling import Request, plan
from jobs.snapshots.manifest import Manifest
from jobs.spec.fields import MAX_ENV_VALUE
from jobs.spec.job import JobSpec
from jobs.store.entering import Entered, Entry, Submission, enter_jobs
from jobs.store.loading import new_job
from jobs.store.writing import Caller
from jobs.wire.views import SubmitView

MAX_SECRET = MAX_ENV_VALUE
"""Characters of one value, which becomes a variable as those of `env` do."""


async def submit(controller: Controller, who: Caller, asked: Submitted) -> SubmitView:
    """Record a job, durably, and return; running it is the reconciler's business.

    The same caller with the same key gets the same job, however often it asks.

    Raises:
        InvalidInput: its snapshot is not here, or no node could ever run it.
        StorageFull: it could not be recorded; there is no job.
    """
    request = asked.request
    assert isinstance(asked.spec, JobSpec)
    checked = await with_data(controller, asked.spec)
    check_secrets(checked, request.secrets)
    manifest = await manifest_of(controller, request.snapshot)
    await checkpoint_of(controller, checked)
    check_fits(controller, checked)
    await check_account(controller, who)
    if request.dry_run:
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
        key=request.key,
        snapshot=request.snapshot,
        git=request.git.model_dump(exclude_unset=True) if request.git else None,
    )

    size = (len(manifest.files), manifest.total_bytes) if manifest is not None else None
    entry = Entry(submission, who, now, size)

    def write(session: Session) -> Entered:
        (entered,) = enter_jobs(session, [entry])
        if entered.created:
            # Before the commit: a job that is recorded must have its secrets, and a file without a
            # job does no harm.
            controller.secrets.save(entered.number, dict(request.secrets))
        return entered

    async def record() -> Entered:
        if request.secrets:
            entered = await controller.db.write(write)
        else:  # together with all that come at this moment
            entered = await controller.db.write_each(enter_jobs, entry)
        if entered.row is not None:
            live = controller.reconciler.add(entered.row, new_job(entered.row), checked)
            controller.hub.publish("jobs", live.view["id"], live.view)
            controller.hub.announce(entered.events)
        return entered

    # Shielded: who hangs up must not leave a job in the registry that nobody looks after.
    entered = await to_its_end(record)
    view = await controller.job_view(entered.number)
    return {
        "id": view["id"],
        "state": view["state"],
        "created": entered.created,
        "reason": view["reason"],
    }


def check_fits(controller: Controller, spec: JobSpec) -> None:
    """Raises InvalidInput when no node could ever run this, NotAllowed when this cluster never would."""
    controller.reconciler.ranks_as.check(spec)
    refusal = controller.reconciler.planner.refusal(spec.shape())
    if refusal is not None:
        raise InvalidInput(f"no node can run this: {refusal}", "See `qd nodes` for what there is.")


async def check_account(controller: Controller, who: Caller) -> None:
    """Raises NotAllowed when ranks cannot run as this caller."""
    ranks_as = controller.reconciler.ranks_as
    if ranks_as.separate:
        ranks_as.account(await asyncio.to_thread(account_name, who.uid), who.user)


def check_secrets(spec: JobSpec, secrets: Mapping[str, str]) -> None:
    """Raises InvalidInput unless there is a value for each secret, and no other."""
    missing = [name for name in spec.secrets if name not in secrets]
    if missing:
        raise InvalidInput(f"secrets: no value was sent for {', '.join(missing)}")
    unknown = sorted(set(secrets) - set(spec.secrets))
    if unknown:
        raise InvalidInput(f"secrets: {', '.join(unknown)} is not in the spec's list")
    for name, value in secrets.items():
        # Never the value itself in the words: they go to screens and logs.
        if "\0" in value or not _is_unicode(value) or len(value) > MAX_SECRET:
            raise InvalidInput(
                f"secrets: the value of {name} cannot be an environment variable",
                f"It must be text without NUL, at most {MAX_SECRET} characters; put longer ones into files.",
            )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def manifest_of(controller: Controller, snapshot: str | None) -> Manifest | None:
    """`stored_manifest` on a thread, which a job without a work folder does not wait for."""
    if snapshot is None:
        return None
    return await asyncio.to_thread(stored_manifest, controller, snapshot)


async def checkpoint_of(controller: Controller, spec: JobSpec) -> None:
    """`check_start` on a thread, where there is something to check."""
    if spec.checkpoint.start is not None:
        await asyncio.to_thread(check_start, controller, spec)


def stored_manifest(controller: Controller, snapshot: str | None) -> Manifest | None:
    """The snapshot's manifest, with all its blobs here. Blocking."""
    if snapshot is None:
        return None
    if not controller.blobs.has(snapshot):
        raise InvalidInput(
            f"snapshot {snapshot[:19]} is not here", "Upload it first (`qd submit` does)."
        )
    manifest, missing = _look_at(controller.blobs, snapshot)
    if missing:
        raise InvalidInput(f"{len(missing)} files of snapshot {snapshot[:19]} are not here")
    return manifest


def _look_at(blobs: BlobStore, digest: str) -> tuple[Manifest, list[str]]:
    """A stored manifest, and those of its blobs that are not here. Blocking."""
    manifest = Manifest.from_bytes(blobs.read(digest))
    return manifest, blobs.missing(sorted(manifest.blobs))


def check_start(controller: Controller, spec: JobSpec) -> None:
    """Raises NotFound when the checkpoint that a job begins with is not all here. Blocking."""
    start = spec.checkpoint.start
    if start is None:
        return
    blobs = controller.blobs
    if not blobs.has(start) or _look_at(blobs, start)[1]:
        raise NotFound(
            f"checkpoint.start: {start[:19]} is not stored, or no longer",
            "`qd job` lists a run's artifacts; docs/sweeps.md says which of a population are kept.",
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
