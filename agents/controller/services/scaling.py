"""Scaling of services: what the front counts goes to the decision (`jobs.services.scaling`), and on to the
rollout's machine, which stores it. All else follows from how many replicas are wanted then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agents.controller.services.front import Front, Plant
from agents.controller.services.kept import Kept
from agents.controller.services.replicas import Replicas
from jobs.base.names import job_name
from jobs.base.times import rfc3339
from jobs.services import resize
from jobs.services import rollout as ro
from jobs.services.front import backend_name
from jobs.services.measuring import History, sample
from jobs.services.scaling import decide
from jobs.wire.serviceviews import ScalingView

SHORT_AFTER = 5.0
"""Seconds for which a replica must have found no room before it is said: placing one takes a moment."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """`apply` lets the rollout's machine know."""

    plant: Plant
    front: Front
    replicas: Replicas
    apply: Callable[[Kept, ro.Event], Awaitable[None]]

    async def look(self, kept: Kept) -> None:
        """Decide for each version that is scaled, on what the front has just said."""
        versions = resize.scaled(kept.deployment)
        numbers = {release.number for release in versions}
        for gone in kept.histories.keys() - numbers:
            del kept.histories[gone]
        for release in versions:
            await self._decide(kept, release)
            await self._tell_short(kept, release)

    async def _decide(self, kept: Kept, release: ro.Release) -> None:
        name = backend_name(kept.number, release.number)
        new = sample(self.front.said, name)
        if new is None or release.scale is None:
            return
        history = kept.histories.setdefault(release.number, History())
        all_ready = self._healthy(kept, release) >= release.replicas
        look = history.add(new, release.scale.quiet, all_ready=all_ready)
        if look is None:
            return
        kept.looks[release.number] = look
        decision = decide(
            release.scale,
            resize.state_of(release),
            look,
            self.plant.now(),
            shrink=not kept.deployment.busy,
        )
        if decision is not None:
            await self.apply(kept, ro.Scaled(release.number, decision))

    async def _tell_short(self, kept: Kept, release: ro.Release) -> None:
        reason, now = self.waits(kept, release), self.plant.monotonic()
        if not reason:
            kept.short_since.pop(release.number, None)
        elif now - kept.short_since.setdefault(release.number, now) < SHORT_AFTER:
            return
        if release.short != bool(reason):
            await self.apply(kept, ro.Short(release.number, reason))

    def waits(self, kept: Kept, release: ro.Release) -> str:
        """Why a replica of a version waits for room; empty when none does."""
        stay = self.replicas.staying(kept)
        for one in kept.held:
            if (one.release, one.slot) in stay and one.release == release.number:
                reason = self.plant.reconciler.reasons.get(one.job, "")
                if one.state == "QUEUED" and reason:
                    return f"{job_name(one.job)} is queued: {reason}"
        return ""

    def _healthy(self, kept: Kept, release: ro.Release) -> int:
        name = backend_name(kept.number, release.number)
        return sum(self.front.said.get("servers", {}).get(name, {}).values())

    def asleep(self, kept: Kept) -> bool:
        """Whether a request may come that finds no replica."""
        return any(release.replicas == 0 for release in resize.scaled(kept.deployment))

    def comes(self, kept: Kept) -> str | None:
        """What is wrong with a version that has no ready replica, where that may be as it should: empty
        when nothing is, None when it is no such version, or takes too long."""
        release = kept.deployment.release(kept.deployment.live)
        if release is None or release.scale is None or release.scale.min > 0:
            return None
        waits = self.waits(kept, release)
        if waits and release.short:
            return f"none of its replicas is ready: {waits}"
        late = self.plant.now() - release.scaled > kept.spec(release.number).start_within
        return None if late and release.replicas else ""

    def view(self, kept: Kept) -> ScalingView | None:
        """How the version that serves is scaled."""
        release = kept.deployment.release(kept.deployment.live)
        if release is None or release.scale is None:
            return None
        scale, look = release.scale, kept.looks.get(release.number)
        return {
            "version": release.version,
            "min": scale.min,
            "max": scale.max,
            "concurrency": scale.concurrency,
            "latency": scale.latency,
            "quiet": scale.quiet,
            "idle": scale.idle,
            "hold": scale.hold,
            "queue": scale.queue,
            "replicas": release.replicas,
            "ready": self._healthy(kept, release),
            "load": look.load if look is not None else None,
            "held": look.held if look is not None else 0,
            "since": rfc3339(release.scaled),
            "reason": release.why,
            "blocked": self.waits(kept, release),
        }
