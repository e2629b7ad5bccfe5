"""`qd pipeline` and `qd pipelines`: steps that depend on each other, from a file."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.format import elapsed
from console.cli.options import Json
from console.cli.output import Column, emit, emit_line, narrate, paint_state, say
from console.cli.output import show as table
from console.cli.patience import Patience, send
from console.cli.submit import find_python, secret_values
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import Unreachable
from jobs.wire.flowviews import PIPELINE_ENDED

if TYPE_CHECKING:
    from jobs.flows.spec import PipelineSpec
    from jobs.wire.flowviews import (
        PipelineDetail,
        PipelineSubmitView,
        PipelineView,
        PlannedTask,
        TaskView,
    )

_PIPELINES = [
    Column("ID"),
    Column("NAME", flex=True),
    Column("USER", flex=True),
    Column("STATE", states=True),
    Column("DONE", right=True),
    Column("RUNNING", flex=True),
    Column("AGE", right=True),
    Column("REASON", flex=True),
]
_TASKS = [
    Column("STEP", flex=True),
    Column("KIND"),
    Column("STATE", states=True),
    Column("RESULT"),
    Column("TRIES", right=True),
    Column("RAN", right=True),
    Column("AFTER", flex=True),
    Column("REASON", flex=True),
]
_PLAN = [
    Column("STEP", flex=True),
    Column("KIND"),
    Column("PLAN"),
    Column("AFTER", flex=True),
    Column("WHY", flex=True),
]


PipelineId = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="A run: p3, 3, or last.", show_default=False)
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it ends.")]


def pipeline(as_json: Json = False) -> None:
    """Run pipelines, show their steps, and steer them.

    Without a command it lists them.
    """
    pipelines(as_json)


def run(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A pipeline file (YAML).", show_default=False)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="A parameter of the pipeline; repeatable."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STEP", help="Run this step again, and those that depend on it."
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="STEP", help="Run only this step, again.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Reuse no earlier results.")] = False,
    key: Annotated[
        str | None,
        typer.Option(help="A name for this run: the same key never makes a second one."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, and start nothing.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Run a pipeline: steps that depend on each other.

    \b
      qd pipeline run digits.yaml --set epochs=3 --watch
      qd pipeline run digits.yaml --from train --dry-run

    Prints the id of the run. With --watch and --wait the exit code is 1 unless it succeeds.
    """
    from jobs.flows.spec import load_pipeline

    client = Client.from_environment()
    spec, folders = load_pipeline(file)
    body = asked(client, spec, folders, settings or []) | {
        "key": key or str(uuid.uuid4()),
        "from_step": start,
        "only": only,
        "cache": not no_cache,
        "dry_run": dry_run,
    }
    _run(client, body, watch=watch, wait=wait, as_json=as_json)


def show(pipeline: PipelineId, as_json: Json = False) -> None:
    """Show the steps of a run, with their jobs."""
    detail = cast("PipelineDetail", Client.from_environment().get(_path(pipeline)))
    if as_json:
        emit(detail)
    else:
        _show(detail)


def graph(pipeline: PipelineId, as_json: Json = False) -> None:
    """Draw the steps of a run, each below those that it needs."""
    detail = cast("PipelineDetail", Client.from_environment().get(_path(pipeline)))
    if as_json:
        emit(detail)
    else:
        _graph(detail["tasks"])


def wait(pipeline: PipelineId, as_json: Json = False) -> None:
    """Wait until a run is over; exit code 1 unless it succeeded."""
    view = _until_ended(Client.from_environment(), pipeline)
    if as_json:
        emit(view)
    narrate(f"{view['id']} {view['state']}: {neutralise(view['reason'])}")
    raise typer.Exit(0 if view["state"] == "SUCCEEDED" else 1)


def cancel(pipeline: PipelineId, wait: Wait = False, as_json: Json = False) -> None:
    """Cancel a run's running steps, and start no more."""
    _steer(pipeline, "cancel", wait, as_json)


def retry(pipeline: PipelineId, wait: Wait = False, as_json: Json = False) -> None:
    """Run again the steps that did not succeed in a run that is over."""
    _steer(pipeline, "retry", wait, as_json)


def _steer(pipeline: str, verb: str, wait: bool, as_json: bool) -> None:
    client = Client.from_environment()
    view = cast("PipelineView", client.post(_path(pipeline, verb)))
    if as_json:
        emit(view)
    else:
        say(f"{view['id']} {paint_state(view['state'])} {neutralise(view['reason'])}".rstrip())
    if wait:
        _see_through(client, view["id"], watch=False, as_json=as_json)


def pipelines(as_json: Json = False) -> None:
    """List runs of pipelines, newest first."""
    rows = cast("list[PipelineView]", Client.from_environment().get("/v1/pipelines"))
    if as_json:
        emit(rows)
    elif rows:
        table(_PIPELINES, [_row(view, time.time()) for view in rows])
    else:
        narrate("no pipelines yet; try `qd pipeline run FILE`")


def _path(pipeline: str, *rest: str) -> str:
    return "/".join(["/v1/pipelines", segment(pipeline), *rest])


def _row(view: PipelineView, now: float) -> list[str]:
    counts = view["counts"]
    total = counts["total"]
    done = total - counts.get("WAITING", 0) - counts.get("RUNNING", 0)
    return [
        view["id"],
        view["name"],
        view["user"],
        view["state"],
        f"{done}/{total}",
        " ".join(view["running"]) or "-",
        elapsed(view["submitted_at"], None, now),
        view["reason"],
    ]


# -- running -----------------------------------------------------------------------------------------


def asked(
    client: Client, spec: PipelineSpec, folders: Mapping[str, Path], settings: Sequence[str]
) -> dict[str, Any]:
    """What is asked of the controller: the pipeline, its parameters, and the code of its steps.

    Args:
        folders: of each step, from which its `workdir` counts.
    """
    from jobs.flows.params import from_words

    params = from_words(spec.params, list(settings))
    folders = {
        name: folders[name] / step.base.workdir
        for name, step in spec.steps.items()
        if step.base is not None
    }
    if client.remote is None:  # the interpreters of this machine are of no use elsewhere
        spec = _with_python(spec, folders)
    return {
        "spec": spec.to_json(),
        "params": params,
        "secrets": secret_values(spec.secrets, os.environ),
        "code": _code(client, spec, folders),
    }


def _with_python(spec: PipelineSpec, folders: Mapping[str, Path]) -> PipelineSpec:
    """The pipeline with the interpreters that its jobs would get from `qd submit`."""
    from jobs.flows.spec import PipelineSpec

    data = spec.to_json()
    for name, step in spec.steps.items():
        if step.base is None or step.data_check is not None:
            continue  # the controller's own does it
        inner = data["steps"][name][step.kind]
        job = inner["job"] if step.kind == "sweep" else inner
        job["python"] = find_python(step.base, folders[name], os.environ)
    return PipelineSpec.from_json(data)


def _code(client: Client, spec: PipelineSpec, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Send each folder once; gives what each step runs. Only jobs and sweeps send one."""
    from console.cli.upload import scanned, send_folder

    sent: dict[tuple[Path, tuple[str, ...]], dict[str, Any]] = {}
    found = {}
    for name, step in spec.steps.items():
        if step.base is None or step.kind not in ("job", "sweep"):
            continue
        place = folders[name].resolve(), step.base.include
        if place not in sent:
            seen = scanned(folders[name], step.base.include)
            sent[place] = {} if seen.is_empty else send_folder(client, seen, *place)
        if sent[place]:
            found[name] = sent[place]
    return found


def _run(
    client: Client, body: Mapping[str, Any], *, watch: bool, wait: bool, as_json: bool
) -> None:
    view = cast("PipelineSubmitView", send(client, "/v1/pipelines", body))
    dry_run = body["dry_run"]
    if as_json and not watch:
        emit(view)
    elif as_json:
        emit_line(view)
    elif dry_run:
        table(_PLAN, [_planned(item, view["plan"]) for item in view["plan"]])
    else:
        say(view["id"])
    if dry_run:
        narrate(f"the pipeline is well-formed, and nothing was started; {view['reason']}")
        return
    if not view["created"]:
        narrate(f"{view['id']} was run with this key before; it is {view['state']}")
    if watch or wait:
        _see_through(client, view["id"], watch=watch, as_json=as_json)


def _planned(item: PlannedTask, plan: Sequence[PlannedTask]) -> list[str]:
    several = any(other["step"] == item["step"] and other["number"] for other in plan)
    name = f"{item['step']}/{item['number']}" if several else item["step"]
    return [name, item["kind"], item["plan"], " ".join(item["needs"]) or "-", item["told"]]


def _see_through(client: Client, name: str, *, watch: bool, as_json: bool) -> None:
    """Stay until it ends. Ctrl-C only ends the looking."""
    try:
        ended = _follow(client, name, as_json) if watch else _until_ended(client, name)
    except KeyboardInterrupt:
        narrate(f"{name} runs on; `qd pipeline show {name}` shows it, `cancel` stops it")
        raise
    narrate(f"{name} {ended['state']}: {ended['reason']}")
    raise typer.Exit(0 if ended["state"] == "SUCCEEDED" else 1)


def _until_ended(client: Client, name: str) -> PipelineView:
    patience = Patience(client)
    while True:
        try:
            view = cast("PipelineView", client.get(_path(name, "wait"), timeout=20))
            patience.worked()
            if view["state"] in PIPELINE_ENDED:
                return view
        except Unreachable as error:
            patience.failed(error)


def _follow(client: Client, name: str, as_json: bool) -> PipelineView:
    """Tell of each step as its state changes; gives the run when it has ended."""
    told: dict[str, str] = {}
    patience = Patience(client)
    while True:
        try:
            with client.stream("/v1/watch", topics=f"pipeline:{name}") as stream:
                for delta in stream:
                    patience.worked()
                    if delta["op"] != "put":
                        continue
                    if delta["key"] != name:
                        _tell(cast("TaskView", delta["value"]), told, as_json)
                    elif delta["value"]["state"] in PIPELINE_ENDED:
                        detail = cast("PipelineDetail", client.get(_path(name)))
                        for task in detail["tasks"]:
                            _tell(task, told, as_json)
                        return detail
        except Unreachable as error:
            patience.failed(error)


def _tell(task: TaskView, told: dict[str, str], as_json: bool) -> None:
    key, state = f"{task['step']}/{task['number']}", task["state"]
    known = f"{state} {task['tries']} {task['reason'] if state == 'RUNNING' else ''}"
    if told.get(key) == known or (state == "WAITING" and not task["reason"]):
        return
    told[key] = known
    if as_json:
        emit_line(task)
        return
    ran = elapsed(task["started_at"], task["ended_at"], time.time()) if task["ended_at"] else ""
    words = [_name(task), paint_state(state), _place(task), ran, _reason(task)]
    say("  ".join(neutralise(word) if word != words[1] else word for word in words if word))


# -- showing -----------------------------------------------------------------------------------------


def _name(task: TaskView) -> str:
    """A step, with the values of its matrix."""
    if not task["matrix"]:
        return task["step"]
    values = ",".join(f"{name}={value}" for name, value in task["matrix"].items())
    return f"{task['step']}[{values}]"


def _place(task: TaskView) -> str:
    """What it runs as, or what it is about."""
    left = next(iter(task["left"].values()), "")
    return task["job"] or task["sweep"] or left


def _show(detail: PipelineDetail) -> None:
    head = f"{detail['id']} {neutralise(detail['name'])} {paint_state(detail['state'])}"
    say(f"{head} {neutralise(detail['reason'])}".rstrip())
    if detail["params"]:
        values = ", ".join(f"{name} = {value}" for name, value in detail["params"].items())
        say(neutralise(values))
    table(_TASKS, [_task(task, time.time()) for task in detail["tasks"]])


def _task(task: TaskView, now: float) -> list[str]:
    waits = f"{task['job']} is {task['job_state']}" if task["job_state"] == "QUEUED" else ""
    ran = "-" if task["state"] == "CACHED" else elapsed(task["started_at"], task["ended_at"], now)
    return [
        _name(task),
        task["kind"],
        task["state"],
        _place(task) or "-",
        str(task["tries"]),
        ran,
        " ".join(task["needs"]) or "-",
        _reason(task) or waits,
    ]


def _reason(task: TaskView) -> str:
    """Why it is as it is; of one that the controller takes itself, what it waits for."""
    waits = task["state"] == "RUNNING" and task["reason"]
    return f"waits for {task['reason']}" if waits else task["reason"]


def _graph(tasks: Sequence[TaskView]) -> None:
    """The steps as a tree: each below the last of those that it needs."""
    from jobs.flows import graph

    steps: dict[str, list[TaskView]] = {}
    for task in tasks:
        steps.setdefault(task["step"], []).append(task)
    for branch in graph.tree({name: group[0]["needs"] for name, group in steps.items()}):
        name, group = branch.name, steps[branch.name]
        lead = "".join("│  " if more else "   " for more in branch.ways[:-1])
        if branch.ways:
            lead += "├─ " if branch.ways[-1] else "└─ "
        after = f" (also after {', '.join(branch.also)})" if branch.also else ""
        kind = "" if group[0]["kind"] == "job" else f" ({group[0]['kind']})"
        reasons = [_reason(task) for task in group if task["state"] == "RUNNING"]
        told = neutralise(after + "".join(f": {reason}" for reason in reasons if reason))
        say(f"{lead}{neutralise(name)}{kind} {_states(group)}{told}")


def _states(group: Sequence[TaskView]) -> str:
    """The state of a step; of a matrix how many runs are in each."""
    if len(group) == 1:
        return paint_state(group[0]["state"])
    states = dict.fromkeys(task["state"] for task in group)
    counts = [(sum(task["state"] == state for task in group), state) for state in states]
    return ", ".join(f"{count} {paint_state(state)}" for count, state in counts)
