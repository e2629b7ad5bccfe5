"""What a front is asked for, and what its counts say of two versions. Pure.

A front's counts only grow while it runs (`boot` names the run), so what is new is a difference, and where
it was last looked at is stored with what was decided from it: no request is counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.services import resize
from jobs.services.evidence import NONE, Counts
from jobs.services.histogram import UNCOUNTED, Seen
from jobs.services.keys import Policy
from jobs.services.rollout import Deployment, Observed, Release, wants


@dataclass(frozen=True, slots=True)
class Replica:
    """One that can be asked. `id` names the run of its program: a restart is another server."""

    id: str
    address: str


@dataclass(frozen=True, slots=True)
class Service:
    """What a deployment needs of the front. `replicas` by release, those that run."""

    deployment: Deployment
    bind: str
    port: int
    ready: Mapping[int, str]  # release -> path
    replicas: Mapping[int, Sequence[Replica]]
    policy: Policy = field(default_factory=Policy)
    tls: Mapping[str, str] | None = None  # files on the front's node: `cert`, `key`


def needs(service: Mapping[str, Any]) -> set[str]:
    """What a front must know to do what is asked for a service: one of an older release does not."""
    asked = (("keys", service["keyed"]), ("tls", service["tls"]), ("scale", service["scaled"]))
    return {name for name, is_asked in asked if is_asked}


def service_name(deployment: int) -> str:
    return f"d{deployment}"


def backend_name(deployment: int, release: int) -> str:
    return f"d{deployment}r{release}"


def asked(services: Sequence[Service]) -> dict[str, Any]:
    """What the front should do, as it reads it."""
    return {"services": [asked_of(service) for service in services]}


def asked_of(service: Service) -> dict[str, Any]:
    """The part of one service."""
    deployment = service.deployment
    wanted = wants(deployment)
    backends = [
        {
            "name": backend_name(deployment.id, number),
            "ready": service.ready[number],
            "servers": [
                {"name": replica.id, "address": replica.address}
                for replica in service.replicas.get(number, ())
            ],
            "hold": _hold(deployment.release(number)),
        }
        for number in sorted(wanted.replicas)
    ]
    has = set(wanted.replicas)
    return {
        "name": service_name(deployment.id),
        "bind": service.bind,
        "port": service.port,
        "stable": _named(deployment.id, wanted.stable, has),
        "candidate": _named(deployment.id, wanted.candidate, has),
        "share": wanted.share,
        "backends": backends,
        "scaled": bool(resize.scaled(deployment)),
        **service.policy.to_json(),
        "tls": None if service.tls is None else dict(service.tls),
    }


def _hold(release: Release | None) -> dict[str, Any] | None:
    """How requests wait for the first replica of a version that may have none."""
    if release is None or release.scale is None or release.scale.min > 0:
        return None
    return {"seconds": release.scale.hold, "requests": release.scale.queue}


def _named(deployment: int, release: int | None, has: set[int]) -> str:
    return backend_name(deployment, release) if release in has and release is not None else ""


# -- what was counted -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Baseline:
    """Where a rollout's versions were last looked at, in which run of the front."""

    rollout: int = 0  # the release that it brings
    boot: str = ""
    old: Seen = UNCOUNTED
    new: Seen = UNCOUNTED

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Baseline:
        if not data:
            return cls()
        old, new = Seen.from_json(data["old"]), Seen.from_json(data["new"])
        return cls(data["rollout"], data["boot"], old, new)

    def to_json(self) -> dict[str, Any]:
        return {
            "rollout": self.rollout,
            "boot": self.boot,
            "old": self.old.to_json(),
            "new": self.new.to_json(),
        }


def observe(
    deployment: Deployment, baseline: Baseline, boot: str, counts: Mapping[str, Any]
) -> tuple[Observed | None, Baseline]:
    """What is new since the baseline, and the next baseline.

    Args:
        boot: the run of the front.
        counts: by backend, as the front writes them.
    """
    rollout = deployment.rollout
    if rollout is None or rollout.old is None or rollout.phase not in ("stepping", "paused"):
        return None, baseline
    old = Seen.from_json(counts.get(backend_name(deployment.id, rollout.old)))
    new = Seen.from_json(counts.get(backend_name(deployment.id, rollout.new)))
    now = Baseline(rollout.new, boot, old, new)
    if baseline.rollout != rollout.new:
        # What the running version did before the rollout is no part of the comparison.
        baseline = Baseline(rollout.new, boot, old, Seen())
    elif baseline.boot != boot:
        baseline = Baseline(rollout.new, boot)  # the counts of the new run began at nothing
    old_block, new_block = old.since(baseline.old), new.since(baseline.new)
    edge = rollout.edge
    if edge is None:  # from what was there before this block
        edge = baseline.old.edge(rollout.plan.slower)
    if not old_block.seen and not new_block.seen:
        return None, now
    return (
        Observed(
            old=Counts(old_block.seen, old_block.bad),
            new=Counts(new_block.seen, new_block.bad),
            old_slow=NONE if edge is None else old_block.slow(edge),
            new_slow=NONE if edge is None else new_block.slow(edge),
            edge=edge,
        ),
        now,
    )
