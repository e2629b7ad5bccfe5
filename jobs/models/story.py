"""A model's story: what rows of the audit log and facts of the registry say to people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.base.times import rfc3339
from jobs.base.units import format_size
from jobs.base.words import counted
from jobs.wire.storyviews import Happening, Tone

_SHOWN = 4
"""Metrics of a run that are told."""
_BY_ITSELF = ("rollout.step", "release.retired")
_GOOD = ("rollout.promoted", "model.approve")
_BAD = ("rollout.rolled_back", "rollout.aborted", "model.reject", "model.revoke")


def happening(
    at: float,
    kind: str,
    about: str,
    text: str,
    *,
    why: str = "",
    who: str = "",
    tone: Tone = "",
    evidence: Mapping[str, str] | None = None,
    pipeline: str | None = None,
    step: str | None = None,
) -> Happening:
    """Args:
    at: unix time.
    """
    return {
        "at": rfc3339(at),
        "kind": kind,
        "about": about,
        "text": text,
        "why": why,
        "who": who,
        "tone": tone,
        "evidence": dict(evidence or {}),
        "pipeline": pipeline,
        "step": step,
    }


def of_audit(
    number: int, at: float, user: str, action: str, target: str, data: Mapping[str, Any]
) -> Happening:
    """What a row of the audit log says to people."""
    text, why = _told(action, target, data)
    who = user
    own = f"by {user}" in text or f"by {user}" in why
    if action in _BY_ITSELF or (action.startswith("rollout.") and not own):
        who = ""  # the control plane's own decision, which is recorded under its account
    text = text.removesuffix(f", by {user}")
    tone: Tone = ""
    if action in _GOOD or data.get("passed") is True:
        tone = "good"
    elif action in _BAD or data.get("passed") is False or action.endswith(".refused"):
        tone = "bad"
    evidence = {"audit": str(number)}
    for name, key in (("evidence", "evidence"), ("digest", "digest"), ("signature", "signer")):
        if isinstance(data.get(key), str):
            evidence[name] = str(data[key])
    pipeline, step = data.get("pipeline"), data.get("step")
    return happening(
        at, action, target, text,
        why=why, who=who, tone=tone, evidence=evidence, pipeline=pipeline, step=step,
    )  # fmt: skip


def _told(action: str, target: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """What happened, and why."""
    reason = str(data.get("comment") or data.get("reason") or "")
    match action:
        case "data.add":
            size = format_size(int(data.get("size", 0)))
            return f"{target} added: {counted(int(data.get('files', 0)), 'file')}, {size}", ""
        case "model.register":
            return f"{target} registered from {data.get('origin')}", ""
        case "model.gate":
            verb = "passed" if data.get("passed") else "was stopped by"
            why = "; ".join(str(one) for one in data.get("failures", []))
            return f"{target} {verb} gate {data.get('gate')}", why
        case "model.evaluate":
            return f"{target} is measured on {data.get('data')} by {data.get('job')}", ""
        case "model.evaluated":
            values = (data.get("metrics") or {}).items()
            shown = [f"{name} {value:.4g}" for name, value in values if value is not None]
            verb = "was measured" if values else "could not be measured"
            return f"{target} {verb} on {data.get('data')}", ", ".join(shown[:_SHOWN]) or reason
        case "model.approve" | "model.reject":
            return f"{target} {'approved' if action == 'model.approve' else 'rejected'}", reason
        case "model.revoke":
            return f"{target}: an approval was taken back", reason
        case "model.archive":
            verb = "archived" if data.get("archived") else "taken back from the archive"
            return f"{target} {verb}", reason
        case "model.alias":
            before = f" (was {data['before']})" if data.get("before") else ""
            return f"{data.get('alias')} of {target} is {data.get('after') or 'gone'}{before}", ""
        case "model.policy":
            return f"the policy of {target} was set", ""
        case "model.tag":
            return f"tags of {target} changed", ""
        case "pipeline.run":
            params = data.get("params") or {}
            told = ", ".join(f"{name} = {value}" for name, value in params.items())
            return f"{target} {data.get('name', '')} started".replace("  ", " "), told
        case "pipeline.triggered":
            on = data.get("on") or {}
            what = f"on {on.get('what')} {on.get('name')}"
            return (
                f"{target} started by schedule {data.get('schedule')}",
                f"{what}: {data.get('cause')}",
            )
        case "pipeline.cancel" | "pipeline.retry":
            return f"{target} {'cancelled' if action.endswith('cancel') else 'retried'}", ""
    if action.endswith(".refused"):
        return f"refused: {action.removesuffix('.refused')} {target}", str(data.get("why", ""))
    text = str(data.get("text") or "")
    head, colon, rest = text.partition(": ")
    return (head, rest) if colon else (text or f"{action} {target}", reason)


def of_run(
    at: float,
    run: str,
    user: str,
    metrics: Mapping[str, float | None],
    data: Mapping[str, str],
    objective: str | None,
) -> Happening:
    """A run that a version came from, at its end."""
    names = [objective] if objective in metrics else sorted(metrics)[:_SHOWN]
    values = [f"{name} {metrics[name]:.4g}" for name in names if name and metrics[name] is not None]
    on = f" on {', '.join(sorted(set(data.values())))}" if data else ""
    text = f"{run} trained{on}" + (f": {', '.join(values)}" if values else "")
    return happening(at, "run", run, text, who=user)
