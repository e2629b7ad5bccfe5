"""Sweeps that are there: listing them and their trials, and steering them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.format import elapsed, number, seconds, sparkline
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, paint_state, say, show
from console.cli.sweep import parameters, shown
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.wire.sweepviews import CurveView, SweepDetail, SweepView, TrialView

SweepId = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A sweep: s3, 3, or last.", show_default=False)
]
TrialNumber = Annotated[
    int, typer.Argument(metavar="N", help="A trial's number.", min=0, show_default=False)
]
_SWEEPS = [
    Column("ID"),
    Column("NAME", flex=True),
    Column("USER", flex=True),
    Column("STATE", states=True),
    Column("DONE", right=True),
    Column("OPEN", right=True),
    Column("PRUNED", right=True),
    Column("FAILED", right=True),
    Column("BEST", right=True),
    Column("AGE", right=True),
    Column("REASON", flex=True),
]


def sweep_path(sweep: str, *rest: str) -> str:
    """Where the API has a sweep, or something of it."""
    return "/".join(["/v1/sweeps", segment(sweep), *rest])


def sweeps(as_json: Json = False) -> None:
    """List sweeps, newest first."""
    rows = cast("list[SweepView]", Client.from_environment().get("/v1/sweeps"))
    if as_json:
        emit(rows)
    elif rows:
        show(_SWEEPS, [_row(view, time.time()) for view in rows])
    else:
        narrate("no sweeps yet; try `qd sweep FILE`")


def _row(view: SweepView, now: float) -> list[str]:
    counts, limit = view["counts"], view["trials"]
    done = counts["total"] - counts["open"]
    return [
        view["id"],
        view["name"],
        view["user"],
        view["state"],
        str(done) if limit is None else f"{done}/{limit}",
        str(counts["open"]),
        str(counts["pruned"]),
        str(counts["failed"]),
        number(view["best"]["values"][0]) if view["best"] else "-",
        elapsed(view["submitted_at"], None, now),
        view["reason"],
    ]


def trials(
    sweep: SweepId,
    curves: Annotated[
        bool, typer.Option("--curves", help="Show what each has logged, as a sparkline.")
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --curves: this metric instead of the objective."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the trials of a sweep."""
    if curves or metric:
        _show_curves(sweep, metric or "", as_json)
        return
    rows = cast("list[TrialView]", Client.from_environment().get(sweep_path(sweep, "trials")))
    if as_json:
        emit(rows)
        return
    if not rows:
        narrate("no trials yet")
        return
    names = list(dict.fromkeys(name for row in rows for name in row["params"]))
    population = any(row.get("member") is not None for row in rows)
    columns = [
        Column("TRIAL", right=True),
        *([Column(name, right=True) for name in ("MEMBER", "TURN", "FROM")] if population else []),
        Column("STATE", states=True),
        Column("VALUE", right=True),
        Column("STEP", right=True),
        *(Column(name, right=True) for name in names),
        Column("JOB"),
        Column("RAN", right=True),
        Column("REASON", flex=True),
    ]
    show(columns, [_trial(row, names, time.time(), population) for row in rows])


def _trial(row: TrialView, names: list[str], now: float, population: bool) -> list[str]:
    turn = [row["member"], row["generation"], row["parent"]] if population else []
    value = " ".join(number(item) for item in row["values"] or [])
    return [
        str(row["number"]),
        *("-" if item is None else str(item) for item in turn),
        row["state"],
        value or (number(row["last"]) if row["step"] is not None else "-"),
        "-" if row["step"] is None else str(row["step"]),
        *(shown(row["params"][name]) if name in row["params"] else "-" for name in names),
        row["job"],
        elapsed(row["started_at"], row["ended_at"], now),
        _remark(row),
    ]


def _remark(row: TrialView) -> str:
    """Why a trial ended as it did, and what else is to be known of it."""
    said = [row["reason"]] if row["reason"] else []
    for text, excess in (row.get("constraints") or {}).items():
        if excess > 0:
            said.append(f"breaks {text}, by {number(excess)}")
    if row.get("origin") == "rerun":
        said.append(f"runs trial {row['parent']} again")
    if row.get("pinned"):
        said.append("pinned")
    return "; ".join(said)


_CURVES = [
    Column("TRIAL", right=True),
    Column("STATE", states=True),
    Column("CURVE"),
    Column("STEPS", right=True),
    Column("FIRST", right=True),
    Column("LAST", right=True),
]
_CURVE_WIDTH = 40


def _show_curves(sweep: str, metric: str, as_json: bool) -> None:
    client = Client.from_environment()
    found = client.get(sweep_path(sweep, "curves"), metric=metric, points=_CURVE_WIDTH)
    rows = cast("list[CurveView]", found)
    if as_json:
        emit(rows)
        return
    values = [value for row in rows for _, value in row["points"]]
    if not values:
        narrate("no trial has logged anything of it yet")
        return
    low, high = min(values), max(values)
    show(_CURVES, [_curve(row, low, high) for row in rows])
    narrate(f"all lines go from {number(low)} to {number(high)}")


def _curve(row: CurveView, low: float, high: float) -> list[str]:
    values = [value for _, value in row["points"]]
    head = [str(row["number"]), row["state"]]
    if not values:
        return [*head, "", "0", "-", "-"]
    steps = row["points"][-1][0] - row["points"][0][0] + 1
    line = sparkline(values[-_CURVE_WIDTH:], low, high)
    return [*head, line, str(steps), number(values[0]), number(values[-1])]


def best(sweep: SweepId, as_json: Json = False) -> None:
    """Show the best trials, and which parameters mattered."""
    client = Client.from_environment()
    detail = cast("SweepDetail", client.get(sweep_path(sweep)))
    importance = cast("dict[str, float]", client.get(sweep_path(sweep, "importance")))
    if as_json:
        emit({"id": detail["id"], "front": detail["front"], "importance": importance})
        return
    if not detail["front"]:
        narrate("no trial is complete yet")
        return
    metrics = [objective["metric"] for objective in detail["objectives"]]
    for trial in detail["front"]:
        values = zip(metrics, trial["values"], strict=True)
        told = ", ".join(f"{name} = {number(value)}" for name, value in values)
        say(f"trial {trial['number']} ({trial['job']}): {neutralise(told)}")
        say(f"  {parameters(trial['params'])}")
    if detail["sampler"] == "pbt":
        _show_lineage(client, sweep, detail["front"][0]["number"])
    if importance:
        say("importance: " + ", ".join(f"{neutralise(n)} {v:.0%}" for n, v in importance.items()))


def _show_lineage(client: Client, sweep: str, trial: int) -> None:
    """From which trials a member of a population has its weights, the first one first."""
    rows = cast("list[TrialView]", client.get(sweep_path(sweep, "trials")))
    by_number = {row["number"]: row for row in rows}
    line: list[TrialView] = []
    row = by_number.get(trial)
    while row is not None:
        line.insert(0, row)
        while row["origin"] == "rerun" and row["parent"] is not None:
            row = by_number[row["parent"]]  # it began where that one did
        row = None if row["parent"] is None else by_number.get(row["parent"])
    say("lineage:")
    for turn in line:
        how = f"member {turn['member']}, {turn['origin']}"
        value = " ".join(number(item) for item in turn["values"] or [])
        say(f"  trial {turn['number']} ({how}): {value}  {parameters(turn['params'])}")


def _steer(sweep: str, verb: str, body: Any, as_json: bool) -> None:
    view = cast("SweepView", Client.from_environment().post(sweep_path(sweep, verb), body))
    if as_json:
        emit(view)
    else:
        say(f"{view['id']} {paint_state(view['state'])} {neutralise(view['reason'])}".rstrip())


def stop(sweep: SweepId, as_json: Json = False) -> None:
    """Stop a sweep: its open trials are cancelled."""
    _steer(sweep, "stop", None, as_json)


def pause(sweep: SweepId, as_json: Json = False) -> None:
    """Pause a sweep: no new trials start; open ones continue."""
    _steer(sweep, "pause", None, as_json)


def resume(sweep: SweepId, as_json: Json = False) -> None:
    """Resume a paused sweep."""
    _steer(sweep, "resume", None, as_json)


def extend(
    sweep: SweepId,
    trials: Annotated[int | None, typer.Option(min=1, help="Total number of trials.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="Trials at a time.")] = None,
    time: Annotated[str | None, typer.Option(metavar="SPAN", help="Total time: 2h.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="Total GPU hours.")] = None,
    generations: Annotated[
        int | None, typer.Option(min=1, help="Turns of each member of a population.")
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="JSON", help='A point to try first, {"lr": 0.01}; repeatable.'),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the limits of a sweep, even of one that is over.

    A sweep that is over continues if its new limits allow more trials.
    """
    body = {
        "trials": trials,
        "parallel": parallel,
        "time": None if time is None else seconds(time, "--time"),
        "gpu_hours": gpu_hours,
        "generations": generations,
        "points": [_point(text) for text in point or []],
    }
    if not any(body.values()):
        raise InvalidInput(
            "nothing to change",
            "Give --trials, --parallel, --time, --gpu-hours, --generations or --point.",
        )
    _steer(sweep, "extend", body, as_json)


def _point(text: str) -> dict[str, Any]:
    try:
        point = json.loads(text)
    except ValueError:
        point = None
    if not isinstance(point, dict):
        raise InvalidInput(f"--point: '{text}' is not a point", "As JSON: '{\"lr\": 0.01}'.")
    return point


def prune(sweep: SweepId, trial: TrialNumber, as_json: Json = False) -> None:
    """Stop one trial of a sweep, as its pruner would."""
    view = _steer_trial(sweep, trial, "prune")
    if as_json:
        emit(view)
    else:
        say(f"trial {view['number']} {paint_state(view['state'])}")


def _steer_trial(sweep: str, trial: int, verb: str) -> TrialView:
    path = sweep_path(sweep, "trials", str(trial), verb)
    return cast("TrialView", Client.from_environment().post(path))


def pin(
    sweep: SweepId,
    trial: TrialNumber,
    off: Annotated[bool, typer.Option("--off", help="Let the pruner end it again.")] = False,
    as_json: Json = False,
) -> None:
    """Keep the pruner from ending a trial of a sweep."""
    view = _steer_trial(sweep, trial, "unpin" if off else "pin")
    if as_json:
        emit(view)
    else:
        told = "pinned: its pruner leaves it alone" if view["pinned"] else "not pinned any more"
        say(f"trial {view['number']} {paint_state(view['state'])} {told}")


def rerun(sweep: SweepId, trial: TrialNumber, as_json: Json = False) -> None:
    """Run a trial's point again, as a new trial.

    It runs before others; a sweep that is over continues for it.
    """
    _steer(sweep, f"trials/{trial}/rerun", None, as_json)
