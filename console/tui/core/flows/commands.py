"""How runs of pipelines and schedules are steered, and the words for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from console.text import neutralise
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.draw.format import many
from jobs.wire.flowviews import PIPELINE_ENDED, PipelineView, ScheduleView


def cancel(runs: Sequence[PipelineView]) -> Command | Refusal:
    """Stop what runs, and start nothing more."""
    live = [run for run in runs if run["state"] not in PIPELINE_ENDED]
    if not live:
        return _none(runs, "It is over: there is nothing to cancel.", "They are all over.")
    running = [name for run in live for name in run["running"]]
    waiting = sum(run["counts"].get("WAITING", 0) for run in live)
    effects = [f"{_names(live)}."]
    if running:
        effects.append(f"What runs is cancelled: {', '.join(map(neutralise, running[:6]))}.")
    effects.append(f"{many(waiting, 'step')} will not start.")
    effects.append("What has succeeded stays, and is reused by the next run.")
    return _of_all("cancel run", "Cancel", live, effects, "being cancelled", dangerous=True)


def retry(runs: Sequence[PipelineView]) -> Command | Refusal:
    """Run again what did not succeed."""
    ended = [run for run in runs if run["state"] in ("FAILED", "CANCELLED")]
    if not ended:
        return _none(
            runs,
            "Only a run that failed or was cancelled can be retried.",
            "None of the marked runs failed or was cancelled.",
        )
    again = sum(
        run["counts"].get(state, 0) for run in ended for state in ("FAILED", "CANCELLED", "SKIPPED")
    )
    effects = [
        f"{_names(ended)}.",
        f"{many(again, 'step')} that did not succeed may run again; what succeeded stays.",
    ]
    return _of_all("retry run", "Retry", ended, effects, "running again")


def _of_all(
    verb: str,
    says: str,
    runs: Sequence[PipelineView],
    effects: Sequence[str],
    done: str,
    *,
    dangerous: bool = False,
) -> Command:
    first, *others = [run["id"] for run in runs]
    one = not others
    what = f"{first} ({neutralise(runs[0]['name'])})" if one else many(len(runs), "run")
    told = first if one else many(len(runs), "run")
    return Command(
        verb,
        first,
        f"{says} {what}?",
        tuple(effects),
        f"{told} {'is' if one else 'are'} {done}",
        dangerous=dangerous,
        others=tuple(others),
    )


def _names(runs: Sequence[PipelineView]) -> str:
    shown = ", ".join(f"{run['id']} {neutralise(run['name'])}" for run in runs[:6])
    return shown + (f" and {len(runs) - 6} more" if len(runs) > 6 else "")


def _none(runs: Sequence[PipelineView], one: str, several: str) -> Refusal:
    if not runs:
        return Refusal("There is no run here.")
    return Refusal(one if len(runs) == 1 else several)


# Schedules -------------------------------------------------------------------------------------------


def pause(schedule: ScheduleView) -> Command:
    """Let a schedule start nothing for now, or go on."""
    name, pipeline = neutralise(schedule["name"]), neutralise(schedule["pipeline"])
    if schedule["state"] == "PAUSED":
        return Command(
            "resume schedule",
            schedule["name"],
            f"Resume {name}?",
            (f"It runs {pipeline} again: {schedule['told']}.",),
            f"{name} goes on",
        )
    return Command(
        "pause schedule",
        schedule["name"],
        f"Pause {name}?",
        (f"{pipeline} is not started by it until it is resumed.", "What runs now runs on."),
        f"{name} is paused",
    )


def fire(schedule: ScheduleView) -> Command:
    """Start what a schedule runs, once, now."""
    name = neutralise(schedule["name"])
    return Command(
        "run schedule",
        schedule["name"],
        f"Run {name} now?",
        (
            f"It starts {neutralise(schedule['pipeline'])} once, whatever the clock says.",
            "Its next firings stay as they are.",
        ),
        f"{name} has started {neutralise(schedule['pipeline'])}",
    )
