"""What the console asks of a sweep, and the words for it. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from console.tui.core.base.commands import Command, Refusal
from console.tui.core.draw.format import count, many, span
from console.tui.core.sweeps import words
from console.tui.core.sweeps.space import Dimension
from jobs.base.units import parse_duration
from jobs.wire.sweepviews import SWEEP_ENDED, SweepView, TrialView


def _several(
    verb: str,
    says: str,
    picked: Sequence[SweepView],
    of: int,
    effects: Sequence[str],
    done: str,
    *,
    dangerous: bool = False,
) -> Command:
    """One question for all sweeps that it is about."""
    ids = [sweep["id"] for sweep in picked]
    what = f"{ids[0]} ({picked[0]['name']})" if len(ids) == 1 else f"{len(ids)} sweeps"
    told = [*effects] if len(ids) == 1 else [f"{', '.join(ids[:8])}.", *effects]
    if of > len(ids):
        told.append(f"{many(of - len(ids), 'other')} of the marked stay as they are.")
    return Command(
        verb,
        ids[0],
        f"{says} {what}?",
        tuple(told),
        f"{what} {done}",
        dangerous=dangerous,
        others=tuple(ids[1:]),
    )


def pause(picked: Sequence[SweepView]) -> Command | Refusal:
    """Pause what runs; resume when all that is picked is paused."""
    if not picked:
        return Refusal("There is no sweep here.")
    runs = [sweep for sweep in picked if sweep["state"] == "RUNNING"]
    if runs:
        open_ = sum(sweep["counts"]["open"] for sweep in runs)
        effects = (
            "No more trials are started, and its time budget is paused.",
            f"{many(open_, 'trial')} that are open run on to their end.",
        )
        return _several("pause", "Pause", runs, len(picked), effects, "paused")
    still = [sweep for sweep in picked if sweep["state"] == "PAUSED"]
    if still:
        slots = sum(sweep["parallel"] for sweep in still)
        again = (f"Trials are started again, up to {slots} at a time.",)
        return _several("resume", "Go on with", still, len(picked), again, "resumed")
    return Refusal("It is over; e gives it more trials.")


def stop(picked: Sequence[SweepView]) -> Command | Refusal:
    live = [sweep for sweep in picked if sweep["state"] not in SWEEP_ENDED]
    if not live:
        return Refusal("It is over already." if picked else "There is no sweep here.")
    open_ = sum(sweep["counts"]["open"] for sweep in live)
    effects = (
        f"{many(open_, 'open trial')} get SIGTERM, and SIGKILL after the job's grace time.",
        "The sampler is not told to mind them. What is complete stays, with logs and metrics.",
    )
    return _several("stop", "Stop", live, len(picked), effects, "is being stopped", dangerous=True)


# Trials ---------------------------------------------------------------------------------------------


def _of_trials(
    verb: str,
    says: str,
    sweep: SweepView,
    picked: Sequence[TrialView],
    of: int,
    effects: Sequence[str],
    done: str,
    *,
    dangerous: bool = False,
) -> Command:
    targets = [f"{sweep['id']}/{trial['number']}" for trial in picked]
    numbers = ", ".join(f"#{trial['number']}" for trial in picked[:8])
    numbers += f" and {len(picked) - 8} more" if len(picked) > 8 else ""
    what = f"trial {numbers}" if len(picked) == 1 else f"{len(picked)} trials"
    told = [*effects] if len(picked) == 1 else [f"{numbers}.", *effects]
    if of > len(picked):
        told.append(f"{many(of - len(picked), 'other')} of the marked stay as they are.")
    return Command(
        verb,
        targets[0],
        f"{says} {what} of {sweep['id']}?",
        tuple(told),
        f"{what} {done}",
        dangerous=dangerous,
        others=tuple(targets[1:]),
    )


def prune(sweep: SweepView, picked: Sequence[TrialView]) -> Command | Refusal:
    live = [trial for trial in picked if trial["state"] in ("RUNNING", "QUEUED")]
    if not live:
        return Refusal("Only a trial that runs or waits can be pruned.")
    effects = (
        "It is asked to stop, then gets SIGTERM, and SIGKILL after the job's grace time.",
        "The sampler is told that it was pruned, with its last value.",
    )
    return _of_trials(
        "prune", "Prune", sweep, live, len(picked), effects, "is being pruned", dangerous=True
    )


def pin(sweep: SweepView, picked: Sequence[TrialView]) -> Command | Refusal:
    """Keep the pruner away from trials; let it at them again when all are pinned."""
    live = [trial for trial in picked if trial["state"] in ("RUNNING", "QUEUED")]
    if not live:
        return Refusal("Only a trial that runs or waits can be pinned.")
    if free := [trial for trial in live if not trial["pinned"]]:
        effects = ("The pruner leaves it alone, however it does.",)
        return _of_trials("pin", "Pin", sweep, free, len(picked), effects, "is pinned")
    effects = ("The pruner may end it again.",)
    return _of_trials("unpin", "Unpin", sweep, live, len(picked), effects, "is not pinned any more")


def rerun(sweep: SweepView, picked: Sequence[TrialView]) -> Command | Refusal:
    if not picked:
        return Refusal("There is no trial here.")
    point = words.params_text(picked[0]["params"])
    what = "Its point is" if len(picked) == 1 else "Their points are"
    effects = [
        f"{what} run again, as a new trial" + (f": {point}." if len(picked) == 1 else " each.")
    ]
    if sweep["state"] in SWEEP_ENDED:
        effects.append(f"{sweep['id']} is over, and goes on for it.")
    return _of_trials("rerun", "Run again", sweep, picked, len(picked), effects, "is tried again")


# What is typed --------------------------------------------------------------------------------------


def parallel(sweep: SweepView, text: str) -> Command | Refusal:
    """How many trials run at a time, from `4` or `parallel=4`."""
    bare = text.strip()
    return extend(sweep, f"parallel={bare}" if bare and "=" not in bare else text)


def extend(sweep: SweepView, text: str) -> Command | Refusal:
    """New limits from `trials=60 parallel=4 time=1h30m gpu_hours=3`; what is left out stays.

    The words of the command are what will happen; a refusal says what is wrong with the text.
    """
    body: dict[str, float] = {}
    for part in text.split():
        name, _, value = part.partition("=")
        if name not in ("trials", "parallel", "time", "gpu_hours"):
            return Refusal(f"there is no limit '{name}': trials, parallel, time, gpu_hours")
        held = _amount(name, value)
        if held is None:
            what = "a time such as 90s, 30m or 1h30m" if name == "time" else "a number above 0"
            return Refusal(f"{name}: {what}")
        body[name] = held
    changes = _changes(sweep, body)
    if not changes:
        return Refusal("nothing is changed: type other limits")
    if "trials" in body and body["trials"] < sweep["counts"]["total"]:
        have = sweep["counts"]["total"]
        changes.append(f"There are {have} trials already: no more are started.")
    if sweep["state"] in SWEEP_ENDED:
        changes.append("It is over, and goes on if these limits allow for more.")
    return Command(
        "extend",
        sweep["id"],
        f"Change the limits of {sweep['id']} ({sweep['name']})?",
        tuple(changes),
        f"the limits of {sweep['id']} are changed",
        body=body,
    )


def _amount(name: str, text: str) -> float | None:
    try:
        number = parse_duration(text) if name == "time" else float(text)
    except ValueError:
        return None
    if name in ("trials", "parallel"):
        return int(number) if number.is_integer() and number >= 1 else None
    return number if 0 < number < float("inf") else None


def _changes(sweep: SweepView, body: Mapping[str, float]) -> list[str]:
    out: list[str] = []
    if "trials" in body and body["trials"] != sweep["trials"]:
        was = "no limit" if sweep["trials"] is None else str(sweep["trials"])
        out.append(f"{count(body['trials'])} trials in all (was {was}).")
    if "parallel" in body and body["parallel"] != sweep["parallel"]:
        out.append(f"{count(body['parallel'])} at a time (was {sweep['parallel']}).")
    if "time" in body and body["time"] != sweep["time_budget"]:
        was = "no limit" if sweep["time_budget"] is None else span(sweep["time_budget"])
        out.append(f"{span(body['time'])} in all (was {was}).")
    if "gpu_hours" in body and body["gpu_hours"] != sweep["gpu_hours_budget"]:
        held = sweep["gpu_hours_budget"]
        was = "no limit" if held is None else count(held)
        out.append(f"{count(body['gpu_hours'])} GPU hours in all (was {was}).")
    return out


def limits_text(sweep: SweepView) -> str:
    """The limits as `extend` reads them."""
    out = [f"trials={sweep['trials']}"] if sweep["trials"] is not None else []
    out.append(f"parallel={sweep['parallel']}")
    if sweep["time_budget"] is not None:
        out.append(f"time={count(sweep['time_budget'])}s")
    if sweep["gpu_hours_budget"] is not None:
        out.append(f"gpu_hours={count(sweep['gpu_hours_budget'])}")
    return " ".join(out)


def point_text(params: Mapping[str, Any]) -> str:
    """A point as `add` reads it, with as many digits as one would type."""
    return " ".join(f"{name}={_typed(value)}" for name, value in params.items())


def _typed(value: Any) -> str:
    if isinstance(value, str):
        return shlex.quote(value)
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def add(sweep: SweepView, text: str, axes: Mapping[str, Dimension]) -> Command | Refusal:
    """A point to try next, from `lr=0.01 width=64`; what is left out is drawn.

    Args:
        axes: the parameters, by name.
    """
    try:
        parts = shlex.split(text)
    except ValueError as error:
        return Refusal(str(error).lower())
    point: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        axis = axes.get(name)
        if axis is None or not equals:
            return Refusal(f"there is no parameter '{name}': {', '.join(axes)}")
        held = _scalar(value)
        problem = _misfit(axis, held)
        if problem:
            return Refusal(problem)
        point[name] = held
    if not point:
        return Refusal("type a point: " + " ".join(f"{name}=" for name in axes))
    drawn = [name for name in axes if name not in point]
    effects = ["It is tried before others, and counts as a trial."]
    if drawn:
        effects.append(f"Drawn by the sampler: {', '.join(drawn)}.")
    if sweep["trials"] is not None and sweep["counts"]["total"] >= sweep["trials"]:
        effects.append(f"All {sweep['trials']} trials are used: give it more with e.")
    return Command(
        "extend",
        sweep["id"],
        f"Try {words.params_text(point)}?",
        tuple(effects),
        f"the point is next in {sweep['id']}",
        body={"points": [point]},
    )


def _scalar(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, bool | int | float | str) else text


def _misfit(axis: Dimension, value: Any) -> str:
    """Why a value is none of a parameter's; empty when it is one."""
    if axis.choices:
        if axis.share(value) is None:
            return f"{axis.name} is one of {', '.join(map(words.value_text, axis.choices))}"
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{axis.name}: '{value}' is not a number"
    if axis.whole and value != int(value):
        return f"{axis.name} is a whole number"
    if not axis.low <= value <= axis.high:
        return f"{axis.name} is from {axis.text(0.0)} to {axis.text(1.0)}"
    return ""
