"""A deployment as the API shows it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.base.names import job_name
from jobs.base.times import rfc3339
from jobs.base.units import format_duration
from jobs.services.evidence import Evidence
from jobs.services.front import backend_name
from jobs.services.histogram import Seen
from jobs.services.rollout import Deployment, Release, Rollout, wants
from jobs.services.shadow import total
from jobs.store.services import Held
from jobs.wire.serviceviews import (
    ComparedView,
    DeploymentView,
    RolloutView,
    ScalingView,
    ShadowView,
    VersionView,
)

EXPIRES_SOON = 14 * 86_400.0
"""Seconds before its end from which a certificate that was not renewed is a problem: certbot and its kind
renew thirty days before."""


def deployment_view(
    deployment: Deployment,
    *,
    user: str,
    url: str,
    keyed: bool,
    certificate_until: float | None,
    changed_at: float,
    held: Sequence[Held],
    said: Mapping[str, Any],
    settled: bool,
    problem: str,
    scaling: ScalingView | None,
) -> DeploymentView:
    """Args:
    held: its replicas. said: what the front last wrote.
    """
    live = deployment.release(deployment.live)
    shown = [release for release in deployment.releases if release.state != "retired"]
    return {
        "name": deployment.name,
        "target": deployment.target,
        "user": user,
        "url": url,
        "live": live.version if live is not None else None,
        "versions": [_version(deployment, release, held, said) for release in shown],
        "rollout": _rollout(deployment) if deployment.rollout is not None else None,
        "changed_at": rfc3339(changed_at),
        "keyed": keyed,
        "certificate_until": None if certificate_until is None else rfc3339(certificate_until),
        "settled": settled,
        "problem": problem,
        "scaling": scaling,
    }


def _version(
    deployment: Deployment, release: Release, held: Sequence[Held], said: Mapping[str, Any]
) -> VersionView:
    wanted = wants(deployment)
    traffic = 0.0
    if release.number == wanted.candidate:
        traffic = wanted.share
    elif release.number == wanted.stable:
        traffic = 100.0 - wanted.share
    name = backend_name(deployment.id, release.number)
    seen = Seen.from_json(said.get("counts", {}).get(name))
    return {
        "release": release.number,
        "version": release.version,
        "state": release.state,
        "traffic": traffic,
        "replicas": release.replicas,
        "healthy": sum(said.get("servers", {}).get(name, {}).values()),
        "jobs": [job_name(one.job) for one in held if one.release == release.number],
        "requests": seen.seen,
        "errors": seen.bad,
        "p50": seen.quantile(0.5),
        "p95": seen.quantile(0.95),
        "p99": seen.quantile(0.99),
    }


def certificate_trouble(told: Mapping[str, Any], now: float) -> str:
    """What is wrong with a certificate, or will be soon; empty when nothing is."""
    if told.get("error"):
        return f"its certificate: {told['error']}"
    until = told.get("until")
    if until is None or until - now > EXPIRES_SOON:
        return ""
    if until <= now:
        return f"its certificate has expired ({rfc3339(until)}): callers refuse it"
    return f"its certificate expires in {format_duration(until - now)} ({rfc3339(until)})"


def _rollout(deployment: Deployment) -> RolloutView:
    rollout = deployment.rollout
    assert rollout is not None
    new, old = deployment.release(rollout.new), deployment.release(rollout.old)
    view: RolloutView = {
        "version": new.version if new is not None else "?",
        "before": old.version if old is not None else None,
        "phase": rollout.phase,
        "steps": list(rollout.plan.steps),
        "step": rollout.step,
        "share": wants(deployment).share,
        "since": rfc3339(rollout.since),
        "seen": rollout.seen,
        "least": rollout.plan.least,
        "reason": rollout.reason,
        "errors": _compared(rollout, rollout.errors),
        "slow": _compared(rollout, rollout.slow),
        "edge": rollout.edge,
        "truths": rollout.plan.truths,
        "told": rollout.told,
        "wrong": _compared(rollout, rollout.wrong),
        "far": rollout.far,
    }
    if rollout.plan.shadow:
        view["shadow"] = _shadow(rollout)
    return view


def _shadow(rollout: Rollout) -> ShadowView:
    tally = total(rollout.sources)
    return {
        "percent": rollout.plan.shadow,
        "copies": tally.new.seen,
        "dropped": tally.dropped,
        "agree": tally.agree,
        "wanted": rollout.plan.agree,
        "outputs": [
            {
                "name": name,
                "rows": one.rows,
                "same": one.same,
                "mean": one.mean,
                "most": one.most if one.numbers else None,
            }
            for name, one in sorted(tally.outputs.items())
        ],
        "old_p50": tally.old.quantile(0.5),
        "old_p95": tally.old.quantile(0.95),
        "new_p50": tally.new.quantile(0.5),
        "new_p95": tally.new.quantile(0.95),
    }


def _compared(rollout: Rollout, evidence: Evidence) -> ComparedView:
    return {
        "old_seen": evidence.old.seen,
        "old_bad": evidence.old.bad,
        "new_seen": evidence.new.seen,
        "new_bad": evidence.new.bad,
        "e_value": math.exp(min(evidence.log_e, 700.0)),
        "limit": 1 / rollout.plan.level,
    }
