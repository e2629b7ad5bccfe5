"""The life of a deployment, as a pure state machine: which release has how much of the traffic, and why.

`handle(deployment, event, now)` gives the next deployment and notes for people; what is then wanted
(replicas, the split) follows from the state alone (`wants`), so that a controller that was killed at any
moment derives it again, and no step is taken twice.

                Deployed          all replicas ready         rest over, no worse      last step
    (a release) ───────▶ STARTING ────────────────▶ STEPPING ──────────────────▶ … ─────────▶ DONE
                            │                        │  ▲  │ too few requests, Pause
                            │ cannot start,          │  │  ▼
                            │ too late, Abort        │ PAUSED      ROLLED_BACK: worse, or a person said so
                            └──────────▶ ROLLED_BACK · ABORTED ◀──────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from jobs.base.errors import Conflict
from jobs.life.vocabulary import Note
from jobs.services import resize
from jobs.services.deployment import (
    BLOCK,
    DRAIN,
    OPEN,
    TESTS,
    Ask,
    Broken,
    Deployed,
    Deployment,
    Event,
    Learnt,
    Observed,
    Phase,
    Plan,
    Ready,
    Release,
    ReleaseState,
    Rescale,
    Result,
    Rollout,
    Scaled,
    Short,
    Target,
    Tick,
    Wants,
)
from jobs.services.evidence import NONE, Evidence

__all__ = [
    "DRAIN", "OPEN", "TESTS", "Ask", "Broken", "Deployed", "Deployment", "Event", "Learnt", "Observed",
    "Phase", "Plan", "Ready", "Release", "ReleaseState", "Rescale", "Result", "Rollout", "Scaled", "Short",
    "Target", "Tick", "Wants", "handle", "wants", "worse",
]  # fmt: skip


def wants(deployment: Deployment) -> Wants:
    """Everything that should be made true, from the state alone."""
    rollout = deployment.rollout
    replicas = {
        release.number: release.replicas
        for release in deployment.releases
        if release.state != "retired"
    }
    candidate, share = None, 0.0
    if rollout is not None and rollout.phase in ("stepping", "paused"):
        candidate, share = rollout.new, rollout.plan.steps[rollout.step]
    return Wants(replicas, deployment.live, candidate, share)


def handle(deployment: Deployment, event: Event, now: float) -> Result:
    """Apply one event. `now`: unix time, seconds.

    Raises:
        Conflict: a request that makes no sense in this state.
    """
    match event:
        case Deployed():
            return _deployed(deployment, event, now)
        case Ready():
            return _ready(deployment, event, now)
        case Broken():
            return _broken(deployment, event, now)
        case Observed():
            return _observed(deployment, event, now)
        case Learnt():
            return _learnt(deployment, event, now)
        case Tick():
            return _tick(deployment, now)
        case Ask():
            return _ASKED[event.what](deployment, event, now)
        case Scaled() | Short() | Rescale():
            return resize.handle(deployment, event, now)


def _deployed(deployment: Deployment, event: Deployed, now: float) -> Result:
    if deployment.busy:
        assert deployment.rollout is not None
        running = deployment.release(deployment.rollout.new)
        version = running.version if running else "?"
        raise Conflict(
            f"{deployment.name} rolls out {version} at {deployment.target} already",
            f"`qd rollout {deployment.name} abort` ends that, promote completes it.",
        )
    release = resize.first(deployment, event, now)
    new = replace(
        deployment,
        removed=False,
        releases=(*deployment.releases, release),
        rollout=Rollout(event.number, deployment.live, event.plan, since=now, began=now),
    )
    steps = ", ".join(f"{step:g} %" for step in event.plan.steps)
    how = f"by {steps}" if steps and deployment.live is not None else "at once"
    text = f"{deployment.name} {event.version} to {deployment.target}, {how}, by {event.user}"
    return Result(new, (Note("rollout.started", text, user=event.user),))


def _ready(deployment: Deployment, event: Ready, now: float) -> Result:
    release = deployment.release(event.release)
    if release is None or release.ready or release.state == "retired":
        return Result(deployment)
    deployment = deployment.having(replace(release, ready=True))
    rollout = deployment.rollout
    if rollout is None or rollout.phase != "starting" or rollout.new != event.release:
        return Result(deployment)
    if rollout.old is None or not rollout.plan.steps:
        return _promoted(deployment, rollout, now, "ready")
    return _stepped(deployment, rollout, 0, now)


def _broken(deployment: Deployment, event: Broken, now: float) -> Result:
    rollout = deployment.rollout
    if rollout is None or rollout.phase != "starting" or rollout.new != event.release:
        return Result(deployment)
    return _over(deployment, rollout, "rolled_back", now, f"it does not start: {event.reason}")


def _observed(deployment: Deployment, event: Observed, now: float) -> Result:
    rollout = deployment.rollout
    if rollout is None or rollout.phase not in ("stepping", "paused"):
        return Result(deployment)
    rollout = replace(
        rollout,
        seen=rollout.seen + event.new.seen,
        errors=rollout.errors.and_also(event.old, event.new),
        slow=rollout.slow.and_also(event.old_slow, event.new_slow),
        edge=rollout.edge if rollout.edge is not None else event.edge,
    )
    return _judged(replace(deployment, rollout=rollout), rollout, now)


def _learnt(deployment: Deployment, event: Learnt, now: float) -> Result:
    rollout = deployment.rollout
    watched = rollout is not None and rollout.phase in ("stepping", "paused")
    if rollout is None or not watched or rollout.new != event.release:
        return Result(deployment)
    old, new = rollout.block[0] + event.old, rollout.block[1] + event.new
    full = old.seen and new.seen and old.seen + new.seen >= BLOCK
    rollout = replace(
        rollout,
        told=rollout.told + event.new.seen,
        wrong=rollout.wrong.and_also(old, new) if full else rollout.wrong,
        block=(NONE, NONE) if full else (old, new),
        far=rollout.far if rollout.far is not None else event.far,
    )
    return _judged(replace(deployment, rollout=rollout), rollout, now)


def _judged(deployment: Deployment, rollout: Rollout, now: float) -> Result:
    if verdict := worse(rollout):
        return _over(deployment, rollout, "rolled_back", now, verdict)
    return Result(deployment)


def worse(rollout: Rollout) -> str:
    """Why the new version is worse, in numbers; empty when that is not shown."""
    alpha = rollout.plan.alpha / TESTS
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


def _tick(deployment: Deployment, now: float) -> Result:
    notes: list[Note] = []
    for release in deployment.releases:
        if release.state == "warm" and now >= release.until:
            deployment = deployment.having(replace(release, state="retired"))
            text = f"{deployment.name} {release.version} is stopped at {deployment.target}"
            notes.append(Note("release.retired", text))
    rollout = deployment.rollout
    if rollout is None:
        return Result(deployment, tuple(notes))
    plan, passed = rollout.plan, now - rollout.since
    result = Result(deployment)
    if rollout.phase == "starting" and passed > plan.ready:
        text = f"it was not ready within {plan.ready:g} s"
        result = _over(deployment, rollout, "rolled_back", now, text)
    elif rollout.phase == "stepping" and passed >= plan.rest:
        if rollout.seen >= plan.least and rollout.told >= plan.truths:
            if rollout.step + 1 < len(plan.steps):
                result = _stepped(deployment, rollout, rollout.step + 1, now)
            else:
                text = f"no worse in {rollout.errors.new.seen} requests"
                result = _promoted(deployment, rollout, now, text)
        elif passed >= max(plan.rest, plan.patience):
            text = f"inconclusive: {rollout.seen} of {plan.least} requests in {passed:.0f} s"
            if rollout.told < plan.truths:
                text += f", and the truth of {rollout.told} of {plan.truths} answers"
            result = _paused(deployment, rollout, now, text, None)
    return Result(result.deployment, (*notes, *result.notes))


def _pause(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = _open(deployment, ("stepping",), "pause")
    return _paused(deployment, rollout, now, f"paused by {event.user}", event.user)


def _resume(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = _open(deployment, ("paused",), "resume")
    new = replace(rollout, phase="stepping", since=now, seen=0, told=0, reason="")
    text = f"{_what(deployment, rollout)} goes on, by {event.user}"
    return Result(
        replace(deployment, rollout=new), (Note("rollout.resumed", text, user=event.user),)
    )


def _abort(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = _open(deployment, OPEN, "abort")
    return _over(deployment, rollout, "aborted", now, f"aborted by {event.user}", event.user)


def _promote(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = _open(deployment, ("stepping", "paused"), "promote")
    return _promoted(deployment, rollout, now, f"promoted by {event.user}", event.user)


def _rollback(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = deployment.rollout
    reason = f"rolled back by {event.user}"
    if rollout is not None and rollout.open:
        if rollout.old is None:
            raise Conflict(
                f"{deployment.name} has no version to go back to at {deployment.target}",
                f"`qd rollout {deployment.name} abort` ends the rollout.",
            )
        return _over(deployment, rollout, "rolled_back", now, reason, event.user)
    current = deployment.release(deployment.live)
    target = deployment.release(deployment.previous)
    if current is None or target is None or target.number == current.number:
        raise Conflict(
            f"{deployment.name} has no version to go back to at {deployment.target}",
            "`qd deploy` takes any approved version there.",
        )
    if target.state != "warm":  # its replicas are gone: it comes as any other, without steps
        plan = replace(rollout.plan, steps=()) if rollout is not None else Plan()
        again = replace(target, state="starting", ready=False, replicas=max(1, target.replicas))
        deployment = deployment.having(again)
        started = Rollout(target.number, current.number, plan, since=now, reason=reason, began=now)
        text = f"{deployment.name} goes back to {target.version}, which starts again: {reason}"
        note = Note("rollout.started", text, "warning", user=event.user)
        return Result(replace(deployment, rollout=started), (note,))
    deployment = deployment.having(replace(target, state="live", until=0.0, scaled=now))
    deployment = deployment.having(replace(current, state="warm", until=now + DRAIN))
    done = Rollout(
        current.number,
        target.number,
        rollout.plan if rollout is not None else Plan(),
        phase="rolled_back",
        since=now,
        reason=reason,
    )
    text = f"{deployment.name} is back on {target.version} at {deployment.target}: {reason}"
    return Result(
        replace(deployment, live=target.number, previous=None, rollout=done),
        (Note("rollout.rolled_back", text, "warning", user=event.user),),
    )


def _remove(deployment: Deployment, event: Ask, now: float) -> Result:
    releases = tuple(
        item if item.state == "retired" else replace(item, state="warm", until=now + DRAIN)
        for item in deployment.releases
    )
    rollout = deployment.rollout
    if rollout is not None and rollout.open:
        rollout = replace(rollout, phase="aborted", since=now, reason=f"removed by {event.user}")
    text = f"{deployment.name} is taken down at {deployment.target} by {event.user}"
    return Result(
        replace(
            deployment, releases=releases, live=None, previous=None, rollout=rollout, removed=True
        ),
        (Note("deployment.removed", text, "warning", user=event.user),),
    )


_ASKED: dict[str, Callable[[Deployment, Ask, float], Result]] = {
    "pause": _pause,
    "resume": _resume,
    "abort": _abort,
    "promote": _promote,
    "rollback": _rollback,
    "remove": _remove,
}


# -- moves ----------------------------------------------------------------------------------------


def _open(deployment: Deployment, phases: tuple[Phase, ...], verb: str) -> Rollout:
    rollout = deployment.rollout
    if rollout is None or rollout.phase not in phases:
        state = "no rollout" if rollout is None else f"a rollout that is {_SAID[rollout.phase]}"
        raise Conflict(
            f"{deployment.name} has {state} at {deployment.target}: nothing to {verb}",
            "`qd deployments` shows where it is.",
        )
    return rollout


_SAID: dict[Phase, str] = {
    "starting": "starting",
    "stepping": "under way",
    "paused": "paused",
    "done": "done",
    "rolled_back": "rolled back",
    "aborted": "aborted",
}


def _what(deployment: Deployment, rollout: Rollout) -> str:
    release = deployment.release(rollout.new)
    return f"{deployment.name} {release.version if release else '?'} at {deployment.target}"


def _stepped(deployment: Deployment, rollout: Rollout, step: int, now: float) -> Result:
    new = replace(rollout, phase="stepping", step=step, since=now, seen=0, told=0)
    text = f"{_what(deployment, rollout)} has {rollout.plan.steps[step]:g} % of the traffic"
    if step:
        text += f"; no worse in {rollout.errors.new.seen} requests"
    return Result(replace(deployment, rollout=new), (Note("rollout.step", text),))


def _paused(
    deployment: Deployment, rollout: Rollout, now: float, reason: str, user: str | None
) -> Result:
    new = replace(rollout, phase="paused", since=now, reason=reason)
    share = rollout.plan.steps[rollout.step]
    text = f"{_what(deployment, rollout)} stays at {share:g} %: {reason}"
    note = Note("rollout.paused", text, "warning", user=user)
    return Result(replace(deployment, rollout=new), (note,))


def _promoted(
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
    text = f"{_what(deployment, rollout)} has all of the traffic: {reason}"
    return Result(
        replace(deployment, live=new.number, previous=previous, rollout=done),
        (Note("rollout.promoted", text, user=user),),
    )


def _over(
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
    text = f"{_what(deployment, rollout)} is {_SAID[phase]}: {reason}"
    return Result(
        replace(deployment, rollout=done), (Note(f"rollout.{phase}", text, "warning", user=user),)
    )
