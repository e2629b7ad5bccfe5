"""Taking in a sweep: check it against what is here, then record it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session

from agents.controller.controller import Controller
from agents.controller.samplers import check_packages
from agents.controller.submitting import (
    check_fits,
    check_secrets,
    check_start,
    forecast,
    stored_manifest,
)
from jobs import registry, sweepstore
from jobs.errors import InvalidInput
from jobs.registry import Caller
from jobs.sweepspec import SweepSpec
from jobs.sweepviews import SweepSubmitView
from jobs.words import counted


async def submit_sweep(
    controller: Controller,
    who: Caller,
    *,
    spec: Mapping[str, Any],
    key: str | None,
    snapshot: str | None,
    git: Mapping[str, Any] | None,
    secrets: Mapping[str, str],
    dry_run: bool,
) -> SweepSubmitView:
    """Record a sweep, durably, and begin it. The same caller with the same key gets the same one.

    Raises:
        InvalidInput: the spec is wrong, a package or its snapshot is not here, or no node could ever
            run one of its jobs.
    """
    checked = SweepSpec.from_json(dict(spec))
    if checked.warm_start:
        checked = await controller.db.read(lambda session: _lent(session, checked))
    check_packages(checked)
    check_secrets(checked.job, secrets)
    check_fits(controller, checked.job)
    check_start(controller, checked.job)
    manifest = stored_manifest(controller, snapshot)
    limit = checked.limit
    if dry_run:
        many = "as many trials as its budget allows" if limit is None else counted(limit, "trial")
        told = (
            f"{many}, {checked.parallel} at a time; the first {forecast(controller, checked.job)}"
        )
        return {"id": "", "state": "RUNNING", "created": False, "reason": told}
    now = controller.now()

    def prepare(session: Session) -> None:
        if manifest is not None and snapshot is not None:
            registry.save_snapshot(
                session, snapshot, len(manifest.files), manifest.total_bytes, now
            )

    view, created = await controller.sweeps.submit(
        checked, who, key=key, snapshot=snapshot, git=git, secrets=secrets, prepare=prepare
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
        row = sweepstore.get(session, sweepstore.resolve(session, text))
        lender = sweepstore.spec_of(row)
        if [(item.metric, item.goal) for item in lender.objective] != wanted:
            has = " and ".join(f"{item.goal}s {item.metric}" for item in lender.objective)
            need = " and ".join(f"{goal}s {metric}" for metric, goal in wanted)
            raise InvalidInput(f"sweep.warm_start: s{row.id} {has}; allowed: one that {need}")
        names.append(sweepstore.sweep_name(row.id or 0))
    return spec.model_copy(update={"warm_start": tuple(names)})
