"""How many replicas the releases of a deployment have: what a person sets, and what scaling decides. Pure.

While a rollout is open both versions keep what they have and may grow: the one before must be able to take
all requests back at any moment, and the new one, which grows with it, to get them. A version that is only
kept warm is not scaled.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from jobs.base.errors import Conflict
from jobs.base.words import counted
from jobs.life.vocabulary import Note
from jobs.services.deployment import Deployed, Deployment, Release, Rescale, Result, Scaled, Short
from jobs.services.scaling import Now


def first(deployment: Deployment, event: Deployed, now: float) -> Release:
    """A new release with the replicas that it begins with: as many as the version before it has, where it
    is scaled, for it may get all requests of that."""
    live = deployment.release(deployment.live)
    scale, replicas = event.scale, event.replicas
    if scale is None and replicas is None and live is not None:
        scale = live.scale
    if scale is not None:
        has = live.replicas if live is not None else 1
        replicas = scale.within(replicas or has)
    return Release(event.number, event.version, replicas or 1, scale=scale, scaled=now)


def scaled(deployment: Deployment) -> list[Release]:
    """The releases that are scaled automatically now."""
    heir = _heir(deployment)
    numbers = {deployment.live, heir.number if heir is not None else None}
    return [one for one in deployment.releases if one.number in numbers and one.scale is not None]


def state_of(release: Release) -> Now:
    return Now(release.replicas, release.scaled, release.capacity, release.learned)


def handle(deployment: Deployment, event: Scaled | Short | Rescale, now: float) -> Result:
    """Apply one event. Raises Conflict where nothing serves that could be scaled."""
    if isinstance(event, Rescale):
        return _rescaled(deployment, event, now)
    release = next((one for one in scaled(deployment) if one.number == event.release), None)
    if release is None or release.scale is None:
        return Result(deployment)
    if isinstance(event, Short):
        if release.short == bool(event.reason):
            return Result(deployment)
        note = Note(
            "service.short",
            f"{_what(deployment, release)} finds no room for "
            f"{'another' if release.replicas > 1 else 'a'} replica: {event.reason}",
            "warning",
        )
        deployment = deployment.having(replace(release, short=bool(event.reason)))
        return Result(deployment, (note,) if event.reason else ())
    decision = event.decision
    same = decision.replicas == release.replicas
    if same or not release.scale.min <= decision.replicas <= release.scale.max:
        return Result(deployment)
    if decision.replicas < release.replicas and deployment.busy:
        return Result(deployment)
    new = _sized(release, decision.replicas, now, decision.reason)
    if decision.capacity is not None:
        new = replace(new, capacity=decision.capacity, learned=now)
    note = Note("service.scaled", f"{_change(deployment, release, new)}: {decision.reason}")
    after = deployment.having(new)
    heir = _heir(deployment)
    if heir is None or heir.scale is None or heir.number == release.number:
        return Result(after, (note,))
    replicas = max(heir.replicas, heir.scale.within(new.replicas))
    if replicas == heir.replicas:
        return Result(after, (note,))
    grown = _sized(heir, replicas, now, f"as many as {release.version} has")
    with_it = Note("service.scaled", f"{_change(deployment, heir, grown)}: {grown.why}")
    return Result(after.having(grown), (note, with_it))


def _heir(deployment: Deployment) -> Release | None:
    """The version that is being rolled out, once it serves."""
    rollout = deployment.rollout
    if rollout is None or rollout.phase not in ("shadowing", "stepping", "paused"):
        return None
    return deployment.release(rollout.new)


def _rescaled(deployment: Deployment, event: Rescale, now: float) -> Result:
    serving = [one for one in deployment.releases if one.state in ("live", "starting")]
    if not serving:
        raise Conflict(
            f"{deployment.name} has no version that serves at {deployment.target}",
            "`qd deploy` deploys one.",
        )
    texts = []
    reason = f"set by {event.user}"
    for release in serving:
        has, scale = release.replicas, event.scale
        wanted = event.replicas
        if scale is not None:
            asleep = has == 0 and scale.min == 0 and release.ready
            wanted = 0 if asleep else scale.within(has)
        new = release
        if (has, release.scale) != (wanted, scale):
            new = replace(_sized(release, wanted, now, reason), scale=scale, short=False)
            texts.append(_change(deployment, release, new))
        deployment = deployment.having(new)
    if not texts:
        return Result(deployment)
    how = "by hand" if event.scale is None else f"automatically, {event.scale.words()}"
    text = f"{', '.join(texts)}; scaled {how}, {reason}"
    return Result(deployment, (Note("service.rescaled", text, user=event.user),))


def _sized(release: Release, replicas: int, now: float, reason: str) -> Release:
    return replace(release, replicas=replicas, scaled=now, why=reason)


def _what(deployment: Deployment, release: Release) -> str:
    return f"{deployment.name} {release.version} at {deployment.target}"


def _change(deployment: Deployment, before: Release, after: Release) -> str:
    what = _what(deployment, before)
    if before.replicas == after.replicas:
        return f"{what} has {counted(after.replicas, 'replica')}"
    return f"{what} goes from {before.replicas} to {counted(after.replicas, 'replica')}"


# -- which replicas ---------------------------------------------------------------------------------

Standing = Literal["ready", "running", "coming", "stopping", "over"]
"""Of a replica: it answers; its program runs; it waits or starts; it is being stopped; its job has ended."""
_RANK: dict[Standing, int] = {"ready": 0, "running": 1, "coming": 2, "stopping": 3, "over": 4}


def chosen(standings: Mapping[int, Standing], count: int) -> set[int]:
    """The slots to keep when there may be so many: those that serve before those that do not yet."""
    order = sorted(standings, key=lambda slot: (_RANK[standings[slot]], slot))
    return set(order[:count])


def places(count: int, taken: set[int]) -> list[int]:
    """The first slots that are free, for so many more replicas."""
    free = (slot for slot in itertools.count() if slot not in taken)
    return list(itertools.islice(free, max(0, count)))
