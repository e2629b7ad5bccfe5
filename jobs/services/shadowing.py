"""A rollout before its first step: the new version answers copies of requests that nobody gets. Pure.

It ends automatically where it is shown to be worse (`moves.worse`: errors, and slow answers), or where
`agree` was asked for and is known. Otherwise a person promotes it, to its first step, or aborts it.

Both versions answer the same requests. Outcomes that depend on each other only make the test
(`jobs.services.evidence`) more careful: a pair that goes the same way at both counts for at most 1.
"""

from __future__ import annotations

from dataclasses import replace

from jobs.life.vocabulary import Note
from jobs.services import moves
from jobs.services.deployment import Deployment, Result, Rollout, Shadowed
from jobs.services.evidence import NONE, UNSEEN, Counts
from jobs.services.shadow import Tally, merged, total, words

_WAITS = "inconclusive: "


def begun(deployment: Deployment, rollout: Rollout, now: float) -> Result:
    """All its replicas answer: copies may come."""
    new = replace(rollout, phase="shadowing", since=now)
    text = f"{moves.what(deployment, rollout)} gets copies of {rollout.plan.shadow:g} % of the requests"
    return Result(replace(deployment, rollout=new), (Note("rollout.shadow", text),))


def shadowed(deployment: Deployment, event: Shadowed, now: float) -> Result:
    """Take in what was counted: only what is more than was known is evidence."""
    rollout = deployment.rollout
    if rollout is None or rollout.phase != "shadowing" or rollout.new != event.release:
        return Result(deployment)
    sources = merged(rollout.sources, event.sources)
    before, after = total(rollout.sources), total(sources)
    if after.size == before.size:
        return Result(deployment)
    old, new = after.old.since(before.old), after.new.since(before.new)
    edge = rollout.edge if rollout.edge is not None else before.old.edge(rollout.plan.slower)
    rollout = replace(
        rollout,
        sources=sources,
        seen=after.new.seen,
        edge=edge,
        errors=rollout.errors.and_also(Counts(old.seen, old.bad), Counts(new.seen, new.bad)),
        slow=rollout.slow.and_also(
            NONE if edge is None else old.slow(edge), NONE if edge is None else new.slow(edge)
        ),
    )
    return moves.judged(replace(deployment, rollout=rollout), rollout, now)


def ticked(deployment: Deployment, rollout: Rollout, now: float) -> Result:
    """Time has passed."""
    plan, passed = rollout.plan, now - rollout.since
    if passed >= plan.rest and rollout.seen >= plan.least:
        tally = total(rollout.sources)
        if plan.agree is not None and tally.agree is not None:
            return _decided(deployment, rollout, tally, now)
        if not rollout.reason or rollout.reason.startswith(_WAITS):
            text = f"no worse in {rollout.seen} copies; {words(tally) or 'no answer was compared'}"
            return _asking(deployment, rollout, text)
    elif passed >= max(plan.rest, plan.patience) and not rollout.reason:
        text = f"{_WAITS}{rollout.seen} of {plan.least} copies in {passed:.0f} s"
        return _asking(deployment, rollout, text)
    return Result(deployment)


def ended(
    deployment: Deployment, rollout: Rollout, now: float, reason: str, user: str | None = None
) -> Result:
    """On to its first step, or to all requests. What copies have shown of errors and times is of another
    place than what the front sees: each is judged by itself, at half the chance of a mistake."""
    if not rollout.plan.steps:
        return moves.promoted(deployment, rollout, now, reason, user)
    fresh = replace(rollout, errors=UNSEEN, slow=UNSEEN, edge=None, reason="")
    result = moves.stepped(deployment, fresh, 0, now)
    (note,) = result.notes
    return Result(
        result.deployment, (replace(note, message=f"{note.message}: {reason}", user=user),)
    )


def _decided(deployment: Deployment, rollout: Rollout, tally: Tally, now: float) -> Result:
    """By how many rows agree."""
    assert tally.agree is not None and rollout.plan.agree is not None
    text = f"{words(tally)}; {rollout.plan.agree:g} % must agree"
    if 100 * tally.agree >= rollout.plan.agree:
        return ended(deployment, rollout, now, text)
    return moves.over(deployment, rollout, "rolled_back", now, f"it answers otherwise: {text}")


def _asking(deployment: Deployment, rollout: Rollout, reason: str) -> Result:
    new = replace(rollout, reason=reason)
    text = f"{moves.what(deployment, rollout)} waits for promote or abort: {reason}"
    return Result(replace(deployment, rollout=new), (Note("rollout.shadowed", text),))
