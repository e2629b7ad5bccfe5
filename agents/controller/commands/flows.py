"""Taking in a run of a pipeline: check it against what is here, then record it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, NoReturn

from sqlmodel import Session

from agents.controller.commands.submitting import (
    check_fits,
    check_secrets,
    check_start,
    stored_manifest,
)
from agents.controller.controller import Controller
from agents.controller.flows.flowrecord import Book, Passed, advance
from agents.controller.flows.inputs import Lacking, Shelf
from agents.controller.sweeps.samplers import check_packages
from jobs.base.errors import InvalidInput, NotAllowed, NotFound
from jobs.data.names import parse_ref as parse_data
from jobs.features.names import parse_ref as parse_features
from jobs.flows import graph
from jobs.flows.acts import DataCheck
from jobs.flows.course import Selection, TaskId, select
from jobs.flows.params import settings, unknown
from jobs.flows.references import template
from jobs.flows.spec import PipelineSpec
from jobs.snapshots.manifest import Manifest
from jobs.spec.command import Scalar, as_text
from jobs.spec.job import JobSpec
from jobs.store import datasets, flowwriting, writing
from jobs.store.flowwriting import Result, Wanted
from jobs.store.writing import Caller
from jobs.wire.flowviews import PipelineSubmitView, PlannedTask


class _Planned(Exception):
    """Carries a plan out of a transaction that is taken back."""

    def __init__(self, plan: list[PlannedTask]) -> None:
        super().__init__()
        self.plan = plan


async def run_pipeline(
    controller: Controller,
    who: Caller,
    *,
    spec: Mapping[str, Any],
    params: Mapping[str, Any],
    code: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, str],
    key: str | None,
    start: str | None,
    only: str | None,
    cached: bool,
    dry_run: bool,
) -> PipelineSubmitView:
    """Record a run, durably, and begin it. The same caller with the same key gets the same one.

    Raises:
        InvalidInput: the spec or a parameter is wrong, code is not here, no node could ever run a
            step, or there is no earlier result of a step that is not run.
    """
    checked = await asyncio.to_thread(PipelineSpec.from_json, dict(spec))
    values = settings(checked.params, params)
    for option, name in (("--from", start), ("--only", only)):
        if name is not None and name not in checked.steps:
            raise InvalidInput(f"{option} {name}: {unknown(name, checked.steps, 'step')}")
    if start is not None and only is not None:
        raise InvalidInput("--from and --only exclude each other")
    selection = select(checked, start, only)
    manifests = check(controller, checked, code, secrets)
    await check_acts(controller, checked, values, who)
    now = controller.now()

    def wanted(session: Session) -> Wanted:
        for digest, manifest in manifests.items():
            writing.save_snapshot(session, digest, len(manifest.files), manifest.total_bytes, now)
        given = _given(session, controller, checked, selection, who)
        return Wanted(checked, values, code, selection, cached, None if dry_run else key, given)

    if dry_run:
        plan = await _plan(controller, checked, wanted, who)
        would = sum(item["plan"] in ("run", "depends") for item in plan)
        told = f"{would} of {len(plan)} would run" if would else "nothing would run"
        return {"id": "", "state": "RUNNING", "created": False, "reason": told, "plan": plan}
    view, created = await controller.flows.submit(wanted, who, secrets)
    return {
        "id": view["id"],
        "state": view["state"],
        "created": created,
        "reason": view["reason"],
        "plan": [],
    }


def check(
    controller: Controller,
    spec: PipelineSpec,
    code: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, str],
) -> dict[str, Manifest]:
    """All that can be checked before anything starts. Gives the manifests of the steps' folders."""
    check_secrets(_asking(spec), secrets)
    manifests: dict[str, Manifest] = {}
    for name in code:
        if name not in spec.steps:
            raise InvalidInput(f"code: {unknown(name, spec.steps, 'step')}")
    for name, step in spec.steps.items():
        try:
            if step.base is not None:
                check_fits(controller, step.base)
                check_start(controller, step.base)
            if step.sweep is not None:
                check_packages(step.sweep)
            digest = code.get(name, {}).get("snapshot")
            if digest is not None and digest not in manifests:
                manifest = stored_manifest(controller, digest)
                assert manifest is not None
                manifests[digest] = manifest
            _check_places(step.inputs, manifests[digest] if digest is not None else Manifest())
        except InvalidInput as error:
            raise InvalidInput(f"steps.{name}: {error.message}", error.hint) from None
    return manifests


async def check_acts(
    controller: Controller, spec: PipelineSpec, values: Mapping[str, Scalar], who: Caller
) -> None:
    """What is known of the steps that the controller takes itself, and of the data of jobs.

    Raises InvalidInput, NotFound, NotAllowed.
    """
    known = {f"params.{name}": value for name, value in values.items()}

    def said(text: str) -> str | None:
        """A field as it will be; None when that is known only later."""
        wanted = template(text)
        if any(item.text not in known for item in wanted.references):
            return None
        return as_text(wanted.fill(known))

    for name, step in spec.steps.items():
        data = {**(step.base.data if step.base is not None else {}), **step.data}
        if step.data_check is not None:
            data = {"data": step.data_check.data}
            _check_checker(name, step.data_check)
        try:
            for text in data.values():
                if (found := said(text)) is not None:
                    await controller.db.read(partial(datasets.get, ref=parse_data(found)))
            if step.base is not None and step.base.features is not None:
                await controller.datasets.pinned_features(parse_features(step.base.features))
            if step.act is not None and step.data_check is None:
                asked = {field: said(text) for field, text in step.act.texts().items()}
                await controller.acts.check(step.act, asked, who)
        except (InvalidInput, NotFound, NotAllowed) as error:
            raise type(error)(f"steps.{name}: {error.message}", error.hint) from None


def _check_checker(name: str, check: DataCheck) -> None:
    if check.python is None and find_spec("duckdb") is None:
        raise InvalidInput(
            f"steps.{name}: a data check needs duckdb, which the controller's interpreter lacks",
            "`pip install 'quarterdeck[data]'` on every node, or name an interpreter that has it: python.",
        )


def _asking(spec: PipelineSpec) -> JobSpec:
    """A job that asks for all the secrets of a pipeline."""
    return JobSpec.from_json({"command": "true", "secrets": list(spec.secrets)})


def _check_places(inputs: Mapping[str, str], manifest: Manifest) -> None:
    """Raises InvalidInput for an input that lies where the work folder has a folder, or below a file."""
    files = {entry.path for entry in manifest.files} - inputs.keys()
    folders = {
        "/".join(parts[:length])
        for parts in (path.split("/") for path in [*files, *inputs])
        for length in range(1, len(parts))
    }
    for path in inputs:
        if path in folders:
            raise InvalidInput(f"inputs.{path}: the work folder has a folder there")
        parents = path.split("/")[:-1]
        for length in range(1, len(parents) + 1):
            if (parent := "/".join(parents[:length])) in files:
                raise InvalidInput(f"inputs.{path}: the work folder has a file {parent}")


def _given(
    session: Session,
    controller: Controller,
    spec: PipelineSpec,
    selection: Selection,
    who: Caller,
) -> dict[TaskId, Result]:
    """Results of earlier runs for the steps that others take something of, and that are not run."""
    found: dict[TaskId, Result] = {}
    for name in sorted(selection.take):
        for number in range(spec.steps[name].count):
            result = flowwriting.earlier_result(session, who.uid, spec.name, name, number)
            if result is None:
                raise InvalidInput(
                    f"there is no earlier result of {name}, which is needed",
                    f"Run the pipeline {spec.name} as a whole, or with `--from {name}`.",
                )
            found[name, number] = result
    return found


async def _plan(
    controller: Controller,
    spec: PipelineSpec,
    wanted: Callable[[Session], Wanted],
    who: Caller,
) -> list[PlannedTask]:
    """What a run would do: it is recorded and taken as far as it goes, and all that is taken back."""
    now, shelf = controller.now(), Shelf(controller.blobs, keep=False)

    def write(session: Session) -> NoReturn:
        row, _ = flowwriting.create(session, wanted(session), who, now)
        session.flush()
        assert row.id is not None
        tasks = flowwriting.tasks_of(session, row.id, spec)
        book = Book(
            row.id, spec, row.steered, {name: tuple(group) for name, group in tasks.items()}
        )
        passed = advance(session, controller.flows.stores, shelf, book, {}, now, dry=True)
        raise _Planned(_planned(spec, passed))

    while True:
        try:
            await controller.db.write(write)
        except _Planned as planned:
            return planned.plan
        except Lacking:
            await asyncio.to_thread(shelf.bring)


def _planned(spec: PipelineSpec, passed: Passed) -> list[PlannedTask]:
    found: list[PlannedTask] = []
    for name in graph.order(spec.needs):
        step = spec.steps[name]
        for task in passed.tasks[name]:
            item: PlannedTask = {
                "step": name,
                "number": task.number,
                "needs": list(spec.needs[name]),
                "kind": step.kind,
                "plan": "run",
                "told": task.reason,
            }
            if task.state == "CACHED":
                item["plan"] = "taken" if task.left_out else "cached"
            elif task.state in ("SKIPPED", "FAILED"):
                item["plan"] = "left out"
            elif task.state == "WAITING":
                item["plan"] = "depends"
                item["told"] = "when those before it are over"
            found.append(item)
    return found
