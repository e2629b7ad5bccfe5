"""What a rollout does next: takes a step, pauses, is promoted, or is over; and whether it is worse. Pure.

Used by `jobs.services.rollout`, which decides on what.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from jobs.base.errors import Conflict
from jobs.life.vocabulary import Note
from jobs.services.deployment import DRAIN, Deployment, Phase, Result, Rollout
from jobs.services.evidence import Evidence


def judged(deployment: Deployment, rollout: Rollout, now: float) -> Result:
    if verdict := worse(rollout):
        return over(deployment, rollout, "rolled_back", now, verdict)
    return Result(deployment)


def worse(rollout: Rollout) -> str:
    """Why the new version is worse, in numbers; empty when that is not shown."""
    alpha = rollout.plan.level
    if rollout.errors.against(alpha):
        return f"it errs more: {_compared(rollout.errors)}"
    if rollout.slow.against(alpha) and rollout.edge is not None:
        return f"it is slower: {_compared(rollout.slow)} took over {rollout.edge * 1000:.3g} ms"
    if rollout.wrong.against(alpha):
        what = _compared(rollout.wrong, "answers")
        if rollout.far is not None:
            return f"it is less accurate: {what} are off by more than {rollout.far:.3g}"
        return f"it is wrong more often: {what}"
    return ""


def _compared(evidence: Evidence, what: str = "requests") -> str:
    old, new = evidence.old, evidence.new
    return (
        f"{new.bad} of {new.seen} {what} ({new.share:.1%}) against "
        f"{old.bad} of {old.seen} ({old.share:.1%})"
    )


def opened(deployment: Deployment, phases: tuple[Phase, ...], verb: str) -> Rollout:
    rollout = deployment.rollout
    if rollout is None or rollout.phase not in phases:
        state = "no rollout" if rollout is None else f"a rollout that is {SAID[rollout.phase]}"
        raise Conflict(
            f"{deployment.name} has {state} at {deployment.target}: nothing to {verb}",
            "`qd deployments` shows where it is.",
        )
    return rollout


SAID: dict[Phase, str] = {
    "starting": "starting",
    "shadowing": "a shadow",
    "stepping": "under way",
    "paused": "paused",
    "done": "done",
    "rolled_back": "rolled back",
    "aborted": "aborted",
}


def what(deployment: Deployment, rollout: Rollout) -> str:
    release = deployment.release(rollout.new)
    return f"{deployment.name} {release.version if release else '?'} at {deployment.target}"


def stepped(deployment: Deployment, rollout: Rollout, step: int, now: float) -> Result:
    new = replace(rollout, phase="stepping", step=step, since=now, seen=0, told=0)
    text = f"{what(deployment, rollout)} has {rollout.plan.steps[step]:g} % of the traffic"
    if step:
        text += f"; no worse in {rollout.errors.new.seen} requests"
    return Result(replace(deployment, rollout=new), (Note("rollout.step", text),))


def paused(
    deployment: Deployment, rollout: Rollout, now: float, reason: str, user: str | None
) -> Result:
    new = replace(rollout, phase="paused", since=now, reason=reason)
    share = rollout.plan.steps[rollout.step]
    text = f"{what(deployment, rollout)} stays at {share:g} %: {reason}"
    note = Note("rollout.paused", text, "warning", user=user)
    return Result(replace(deployment, rollout=new), (note,))


def promoted(
    deployment: Deployment, rollout: Rollout, now: float, reason: str, user: str | None = None
) -> Result:
    new = deployment.release(rollout.new)
    assert new is not None
    deployment = deployment.having(replace(new, state="live", until=0.0, scaled=now))
    # Going back is no step that could be taken back again.
    goes_back = rollout.old is not None and rollout.new < rollout.old
    previous = None if goes_back else rollout.old
    old = deployment.release(rollout.old)
    if old is not None and old.state != "retired":
        deployment = deployment.having(replace(old, state="warm", until=now + rollout.plan.warm))
    done = replace(rollout, phase="done", since=now, reason=reason)
    text = f"{what(deployment, rollout)} has all of the traffic: {reason}"
    return Result(
        replace(deployment, live=new.number, previous=previous, rollout=done),
        (Note("rollout.promoted", text, user=user),),
    )


def over(
    deployment: Deployment,
    rollout: Rollout,
    phase: Literal["rolled_back", "aborted"],
    now: float,
    reason: str,
    user: str | None = None,
) -> Result:
    """The new release loses its traffic; the old one, which never stopped serving, has all of it."""
    new = deployment.release(rollout.new)
    assert new is not None
    deployment = deployment.having(replace(new, state="warm", until=now + DRAIN))
    done = replace(rollout, phase=phase, since=now, reason=reason)
    text = f"{what(deployment, rollout)} is {SAID[phase]}: {reason}"
    return Result(
        replace(deployment, rollout=done), (Note(f"rollout.{phase}", text, "warning", user=user),)
    )
