"""Shadow traffic: which replicas copy their requests, to whom, and what they have counted.

A letter to each replica of the version that serves, as to the front. What it should do follows from the
registry, so a controller that was started anew says it again: also that nothing is copied any more.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from agents.controller.core.live import Live
from agents.controller.services.front import Plant
from agents.controller.services.kept import Kept
from agents.controller.services.replicas import Replicas, server_name
from jobs.base.errors import Conflict, NotFound, Unreachable
from jobs.services import rollout as ro
from jobs.services.front import backend_name
from jobs.services.shadow import Tally

READ_EVERY = 1.0
"""Seconds between two readings of what a replica has counted."""
LONGEST = 1 << 20
"""Bytes of that: a model has few outputs."""


@dataclass(slots=True)
class _Said:
    """What a replica, by its epoch, was last asked, and when it was read; monotonic seconds."""

    letter: str
    at: float


@dataclass(frozen=True, slots=True)
class Shadows:
    """`apply` lets the rollout's machine know."""

    plant: Plant
    replicas: Replicas
    apply: Callable[[Kept, ro.Event], Awaitable[None]]
    said: dict[int, _Said] = field(default_factory=dict)

    async def look(self, kept: Kept) -> None:
        """Have the replicas of our model server do what is wanted, and take in what they counted."""
        wanted = ro.wants(kept.deployment)
        asked = None
        if wanted.shadow is not None:
            servers = self.replicas.asked(kept).replicas.get(wanted.shadow, ())
            asked = {
                "id": backend_name(kept.number, wanted.shadow),
                "percent": wanted.copies,
                "servers": [one.address for one in servers],
            }
        sources: dict[str, Tally] = {}
        for one in kept.held:
            live = self.plant.reconciler.live.get(one.job)
            if live is None or live.job.state != "RUNNING" or not kept.spec(one.release).ours:
                continue
            copies = asked if one.release == wanted.stable else None
            seen = await self._exchange(live, copies)
            if copies is not None and seen is not None and seen.get("id") == copies["id"]:
                tally = _tally(seen)
                if tally is not None:
                    sources[f"{server_name(live)}/{seen.get('boot')}"[:64]] = tally
        if sources and wanted.shadow is not None:
            await self.apply(kept, ro.Shadowed(wanted.shadow, sources))

    async def _exchange(self, live: Live, asked: dict[str, Any] | None) -> dict[str, Any] | None:
        """What a replica has counted; None when it is not time, or it was not reached."""
        attempt = live.job.attempt
        if attempt is None:
            return None
        letter, now = json.dumps({"shadow": asked}), self.plant.monotonic()
        said = self.said.get(attempt.epoch)
        new = said is None or said.letter != letter
        if said is not None and not new and (asked is None or now - said.at < READ_EVERY):
            return None
        try:
            _, agent = self.plant.links.agent(attempt.allocations[0].node)
            answer = await agent.exchange(
                live.key(self.plant.cluster), letter.encode() if new else b""
            )
        except (Unreachable, NotFound, Conflict):
            return None  # it goes on with what it was asked last
        self.said[attempt.epoch] = _Said(letter, now)
        return _read(answer)

    def forget(self, kept: Collection[Kept]) -> None:
        """Keep only what was said to replicas that there are."""
        jobs = [one.job for deployment in kept for one in deployment.held]
        found = [self.plant.reconciler.live.get(job) for job in jobs]
        epochs = {live.job.attempt.epoch for live in found if live and live.job.attempt}
        for epoch in self.said.keys() - epochs:
            del self.said[epoch]


# A replica's file is the user's: whatever is in it, other services go on.


def _read(answer: bytes) -> dict[str, Any] | None:
    if not answer or len(answer) > LONGEST:
        return None
    try:
        told = json.loads(answer)
    except ValueError:
        return None
    seen = told.get("shadow") if isinstance(told, dict) else None
    return seen if isinstance(seen, dict) else None


def _tally(seen: dict[str, Any]) -> Tally | None:
    try:
        return Tally.from_json(seen)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
