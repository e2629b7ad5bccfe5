"""Taking in a sweep: check it against what is here, then record it."""

from __future__ import annotations

import asyncio

from sqlmodel import Session

from agents.controller.commands.datasets import with_data
from agents.controller.commands.requests import Submitted
from agents.controller.commands.submitting import (
    check_fits,
    check_secrets,
    checkpoint_of,
    forecast,
    manifest_of,
)
from agents.controller.controller import Controller
from agents.controller.sweeps.samplers import check_packages
from jobs.base.errors import InvalidInput
from jobs.base.words import counted
from jobs.store import sweepwriting, writing
from jobs.store.writing import Caller
from jobs.sweeps.spec import SweepSpec
from jobs.wire.sweepviews import SweepSubmitView


async def submit_sweep(controller: Controller, who: Caller, asked: Submitted) -> SweepSubmitView:
    """Record a sweep, durably, and begin it. The same caller with the same key gets the same one.

    Raises:
        InvalidInput: a package or its snapshot is not here, or no node could ever run one of its jobs.
    """
    request, found = asked.request, asked.spec
    assert isinstance(found, SweepSpec)
    checked = found
    if checked.warm_start:
        checked = await controller.db.read(lambda session: _lent(session, found))
    if checked.job.data or checked.job.features is not None:
        job = await with_data(controller, checked.job)
        checked = checked.model_copy(update={"job": job})
    check_packages(checked)
    check_secrets(checked.job, request.secrets)
    check_fits(controller, checked.job)
    await checkpoint_of(controller, checked.job)
    manifest = await manifest_of(controller, request.snapshot)
    snapshot = request.snapshot
    if request.dry_run:
        limit = await asyncio.to_thread(lambda: checked.limit)
        many = "as many trials as its budget allows" if limit is None else counted(limit, "trial")
        told = (
            f"{many}, {checked.parallel} at a time; the first {forecast(controller, checked.job)}"
        )
        return {"id": "", "state": "RUNNING", "created": False, "reason": told}
    now = controller.now()

    def prepare(session: Session) -> None:
        if manifest is not None and snapshot is not None:
            writing.save_snapshot(session, snapshot, len(manifest.files), manifest.total_bytes, now)

    view, created = await controller.sweeps.submit(
        checked,
        who,
        key=request.key,
        snapshot=snapshot,
        git=request.git.model_dump(exclude_unset=True) if request.git else None,
        secrets=request.secrets,
        prepare=prepare,
    )
    return {
        "id": view["id"],
        "state": view["state"],
        "created": created,
        "reason": view["reason"],
    }


def _lent(session: Session, spec: SweepSpec) -> SweepSpec:
    """The spec with the sweeps that it starts from by their ids, which `last` is not.

    Raises NotFound, and InvalidInput for one with other objectives.
    """
    wanted = [(item.metric, item.goal) for item in spec.objective]
    names = []
    for text in spec.warm_start:
        row = sweepwriting.get(session, sweepwriting.resolve(session, text))
        lender = sweepwriting.spec_of(row)
        if [(item.metric, item.goal) for item in lender.objective] != wanted:
            has = " and ".join(f"{item.goal}s {item.metric}" for item in lender.objective)
            need = " and ".join(f"{goal}s {metric}" for metric, goal in wanted)
            raise InvalidInput(f"sweep.warm_start: s{row.id} {has}; allowed: one that {need}")
        names.append(sweepwriting.sweep_name(row.id or 0))
    return spec.model_copy(update={"warm_start": tuple(names)})
