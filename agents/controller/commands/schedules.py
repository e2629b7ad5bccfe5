"""Taking in a schedule: what it runs is checked as if it ran now."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from agents.controller.commands.flows import check, check_acts
from agents.controller.controller import Controller
from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.flows.params import settings, unknown
from jobs.flows.schedules import Schedule
from jobs.flows.spec import PipelineSpec
from jobs.flows.triggers import Trigger
from jobs.spec.command import NAME
from jobs.store import datasets
from jobs.store.writing import Caller
from jobs.wire.flowviews import ScheduleView


async def add(
    controller: Controller,
    who: Caller,
    *,
    name: str,
    schedule: Mapping[str, Any],
    spec: Mapping[str, Any],
    params: Mapping[str, Any],
    code: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, str],
) -> ScheduleView:
    """Record a schedule, durably.

    Raises:
        InvalidInput: the schedule, the spec or a parameter is wrong, code is not here, or no node could
            ever run a step.
        Conflict: there is one of this name.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput(f"name: found {show(name)}; allowed: letters, digits, '.', '_' and '-'")
    wanted = Schedule.from_json(dict(schedule))
    checked = PipelineSpec.from_json(dict(spec))
    values = settings(checked.params, params)
    if wanted.on is not None:
        await _check_trigger(controller, wanted.on)
    if wanted.into is not None:
        if wanted.into not in checked.params:
            raise InvalidInput(f"into: {unknown(wanted.into, checked.params, 'parameter')}")
        if checked.params[wanted.into].type != "text":
            raise InvalidInput(f"into: {wanted.into} is not a text parameter")
    manifests = check(controller, checked, code, secrets)
    await check_acts(controller, checked, values, who)
    sizes = {digest: (len(item.files), item.total_bytes) for digest, item in manifests.items()}
    return await controller.schedules.add(
        name, wanted, checked, values, code, who, secrets=secrets, manifests=sizes
    )


async def _check_trigger(controller: Controller, on: Trigger) -> None:
    """Raises InvalidInput for what never happens by that name: a rule that is not there, or a data set or
    a service that is not there while one has nearly this name. They may come later, rules do not."""
    known: Mapping[str, object]
    if on.what == "alert":
        known = controller.alerts.rules()
        if on.name not in known:
            raise InvalidInput(f"on: {unknown(on.name, known, 'rule of alerts')}")
        return
    if on.what == "data":
        rows = await controller.db.read(datasets.newest)
        known = {row.name: None for row, _ in rows}
    else:
        known = {view["name"]: None for view in controller.services.views()}
    if on.name not in known and difflib.get_close_matches(on.name, known, 1):
        noun = "data set" if on.what == "data" else "service"
        raise InvalidInput(f"on: {unknown(on.name, known, noun)}")
