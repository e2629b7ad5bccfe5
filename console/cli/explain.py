"""`qd explain` and `qd stacks`: why a job waits, failed, or hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from console.cli.details import show_failure
from console.cli.ids import run_path
from console.cli.options import JobId, Json
from console.cli.output import emit, narrate, paint, paint_state, say
from console.client import Client
from console.text import neutralise
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.views import ExplainView, StacksView

_STACKS_TIMEOUT = 60.0
"""Seconds: the stacks of a thousand ranks are read on many nodes."""


def explain(job: JobId, as_json: Json = False) -> None:
    """Say why a job waits, or why it failed.

    Includes the smallest changes that would let a waiting job start.
    """
    found = cast("ExplainView", Client.from_environment().get(run_path(job, "explain")))
    if as_json:
        emit(found)
        return
    say(
        f"{paint(found['id'], 'bold')}  {paint_state(found['state'])}  {neutralise(found['summary'])}"
    )
    for reason in found["reasons"]:
        say(f"  - {neutralise(reason)}")
    if "checkpoint" in found:
        say(f"  {paint('checkpoint', 'dim')}  {neutralise(found['checkpoint'])}")
    if found["first_failure"] is not None:
        show_failure(found["first_failure"])
    if found["unblock"]:
        say()
        waits = found["state"] == "QUEUED"
        say("It would start with any of these:" if waits else "What to do:")
        for unblock in found["unblock"]:
            command = neutralise(unblock["command"])
            say(f"  - {neutralise(unblock['change'])}" + (f": {command}" if command else ""))
    if found["story"]:
        say()
        say(paint("What happened", "dim"))
        for line in found["story"]:
            say(f"  {neutralise(line)}")


def stacks(job: JobId, as_json: Json = False) -> None:
    """Show the Python stacks of all ranks, equal ones together.

    The largest group comes first: a rank that is alone in its group is the one to look at.
    """
    client = Client.from_environment(timeout=_STACKS_TIMEOUT)
    found = cast("StacksView", client.get(run_path(job, "stacks")))
    if as_json:
        emit(found)
        return
    for group in found["groups"]:
        ranks = rank_list(group["ranks"])
        say(f"{paint(ranks, 'bold')}  {paint('thread', 'dim')} {neutralise(group['thread'])}")
        for frame in group["frames"]:
            say(f"    {neutralise(frame)}")
        say()
    for rank, why in found["failed"].items():
        narrate(f"rank {rank}: its stack could not be read: {why}")
    if not found["groups"] and not found["failed"]:
        narrate(f"{found['id']} has no running ranks")


def rank_list(ranks: list[int]) -> str:
    """Ranks in words, runs of them as a range: `3 ranks: 0-1, 5`."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
    return f"{counted(len(ranks), 'rank')}: {text}"
