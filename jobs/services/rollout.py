"""The life of a deployment, as a pure state machine: which release has how much of the traffic, and why.

`handle(deployment, event, now)` gives the next deployment and notes for people; what is then wanted
(replicas, the split) follows from the state alone (`wants`), so that a controller that was killed at any
moment derives it again, and no step is taken twice.

                Deployed          all replicas ready         rest over, no worse      last step
    (a release) ───────▶ STARTING ────────────────▶ STEPPING ──────────────────▶ … ─────────▶ DONE
                            │  (SHADOWING first,     │  ▲  │ too few requests, Pause
                            │  where that is asked)  │  │  │
                            │ cannot start,          │  │  ▼
                            │ too late, Abort        │ PAUSED      ROLLED_BACK: worse, or a person said so
                            └──────────▶ ROLLED_BACK · ABORTED ◀──────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jobs.base.errors import Conflict
from jobs.life.vocabulary import Note
from jobs.services import moves, resize, shadowing
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
    Shadowed,
    Short,
    Target,
    Tick,
    Wants,
)
from jobs.services.evidence import NONE
from jobs.services.moves import worse

__all__ = [
    "DRAIN", "OPEN", "TESTS", "Ask", "Broken", "Deployed", "Deployment", "Event", "Learnt", "Observed",
    "Phase", "Plan", "Ready", "Release", "ReleaseState", "Rescale", "Result", "Rollout", "Scaled", "Shadowed",
    "Short", "Target", "Tick", "Wants", "handle", "wants", "worse",
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
    if rollout is not None and rollout.phase == "shadowing":
        shadow, copies = rollout.new, rollout.plan.shadow
        return Wants(replicas, deployment.live, None, 0.0, shadow, copies)
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
        case Shadowed():
            return shadowing.shadowed(deployment, event, now)
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
    if event.plan.shadow and deployment.live is None:
        raise Conflict(
            f"{deployment.name} has no version at {deployment.target} whose answers could be compared",
            "Leave --shadow out, or deploy what it is to be compared with first.",
        )
    if event.plan.shadow:
        how = f"as a shadow of {event.plan.shadow:g} %, then {how}"
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
    if rollout.old is not None and rollout.plan.shadow:
        return shadowing.begun(deployment, rollout, now)
    if rollout.old is None or not rollout.plan.steps:
        return moves.promoted(deployment, rollout, now, "ready")
    return moves.stepped(deployment, rollout, 0, now)


def _broken(deployment: Deployment, event: Broken, now: float) -> Result:
    rollout = deployment.rollout
    if rollout is None or rollout.phase != "starting" or rollout.new != event.release:
        return Result(deployment)
    return moves.over(deployment, rollout, "rolled_back", now, f"it does not start: {event.reason}")


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
    return moves.judged(replace(deployment, rollout=rollout), rollout, now)


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
    return moves.judged(replace(deployment, rollout=rollout), rollout, now)


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
        result = moves.over(deployment, rollout, "rolled_back", now, text)
    elif rollout.phase == "shadowing":
        result = shadowing.ticked(deployment, rollout, now)
    elif rollout.phase == "stepping" and passed >= plan.rest:
        if rollout.seen >= plan.least and rollout.told >= plan.truths:
            if rollout.step + 1 < len(plan.steps):
                result = moves.stepped(deployment, rollout, rollout.step + 1, now)
            else:
                text = f"no worse in {rollout.errors.new.seen} requests"
                result = moves.promoted(deployment, rollout, now, text)
        elif passed >= max(plan.rest, plan.patience):
            text = f"inconclusive: {rollout.seen} of {plan.least} requests in {passed:.0f} s"
            if rollout.told < plan.truths:
                text += f", and the truth of {rollout.told} of {plan.truths} answers"
            result = moves.paused(deployment, rollout, now, text, None)
    return Result(result.deployment, (*notes, *result.notes))


def _pause(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = moves.opened(deployment, ("stepping",), "pause")
    return moves.paused(deployment, rollout, now, f"paused by {event.user}", event.user)


def _resume(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = moves.opened(deployment, ("paused",), "resume")
    new = replace(rollout, phase="stepping", since=now, seen=0, told=0, reason="")
    text = f"{moves.what(deployment, rollout)} goes on, by {event.user}"
    return Result(
        replace(deployment, rollout=new), (Note("rollout.resumed", text, user=event.user),)
    )


def _abort(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = moves.opened(deployment, OPEN, "abort")
    return moves.over(deployment, rollout, "aborted", now, f"aborted by {event.user}", event.user)


def _promote(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = moves.opened(deployment, ("shadowing", "stepping", "paused"), "promote")
    reason = f"promoted by {event.user}"
    if rollout.phase == "shadowing":
        return shadowing.ended(deployment, rollout, now, reason, event.user)
    return moves.promoted(deployment, rollout, now, reason, event.user)


def _rollback(deployment: Deployment, event: Ask, now: float) -> Result:
    rollout = deployment.rollout
    reason = f"rolled back by {event.user}"
    if rollout is not None and rollout.open:
        if rollout.old is None:
            raise Conflict(
                f"{deployment.name} has no version to go back to at {deployment.target}",
                f"`qd rollout {deployment.name} abort` ends the rollout.",
            )
        return moves.over(deployment, rollout, "rolled_back", now, reason, event.user)
    current = deployment.release(deployment.live)
    target = deployment.release(deployment.previous)
    if current is None or target is None or target.number == current.number:
        raise Conflict(
            f"{deployment.name} has no version to go back to at {deployment.target}",
            "`qd deploy` takes any approved version there.",
        )
    if target.state != "warm":  # its replicas are gone: it comes as any other, without steps
        plan = replace(rollout.plan, steps=(), shadow=0.0) if rollout is not None else Plan()
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
