"""Plausible versions of models and deployments for tests of the console."""

from __future__ import annotations

from typing import Any

from jobs.wire.modelviews import ApprovalView, EvidenceView, ModelDetail, ModelState
from jobs.wire.serviceviews import (
    ComparedView,
    DeploymentView,
    RolloutView,
    ScalingView,
    VersionView,
)
from tests.console.tui.fake_views import at


def evidence(ref: str, accuracy: float, *, passed: bool = True) -> EvidenceView:
    conditions = [
        {"asked": "accuracy >= 0.97", "metric": "accuracy", "measured": accuracy, "limit": 0.97,
         "against": None, "passed": passed, "why": f"{accuracy} against 0.97"},
        {"asked": "latency_ms <= 20", "metric": "latency_ms", "measured": 12.5, "limit": 20.0,
         "against": None, "passed": True, "why": "12.5 against 20"},
    ]  # fmt: skip
    document = {
        "gate": {"name": "quality"},
        "version": ref,
        "passed": passed,
        "conditions": conditions,
    }
    return {
        "evidence": f"sha256:{'e' * 60}{len(ref):04}",
        "sound": True,
        "passed": passed,
        "at": at(3600),
        "user": "mira",
        "document": document,
    }


def approval(user: str, decision: Any, comment: str) -> ApprovalView:
    return {
        "id": 1,
        "decision": decision,
        "user": user,
        "at": at(1800),
        "comment": comment,
        "digest": f"sha256:{'d' * 64}",
        "evidence": None,
        "counts": decision == "approve",
        "expires_at": None,
        "revoked_at": None,
        "revoked_by": None,
        "revoked_why": None,
        "signer": None,
        "signature": None,
        "statement": None,
    }


def version(
    name: str,
    number: int,
    state: ModelState,
    reason: str,
    accuracy: float,
    *,
    aliases: tuple[str, ...] = (),
    said: ApprovalView | None = None,
    gate: bool | None = True,
    hours: float = 5,
) -> ModelDetail:
    """`gate`: whether it passed; None without a result."""
    ref = f"{name}:{number}"
    result = None if gate is None else evidence(ref, accuracy, passed=gate)
    counted = int(said is not None and said["counts"])
    metrics: dict[str, float | None] = {"accuracy": accuracy, "loss": round(1 - accuracy, 4)}
    return {
        "id": ref,
        "name": name,
        "version": number,
        "label": None,
        "digest": f"sha256:{number:064x}",
        "stage": "production" if "production" in aliases else "",
        "aliases": list(aliases),
        "state": state,
        "reason": reason,
        "run": f"j{400 + number}.1",
        "format": "onnx",
        "pickle": False,
        "size": 4_200_000 * number,
        "files": 2,
        "metrics": metrics,
        "approvals": counted,
        "approvals_needed": 1,
        "user": "mira",
        "created_at": at(hours * 3600),
        "archived_at": None,
        "standing": {
            "state": state,
            "reason": reason,
            "counted": counted,
            "needed": 1,
            "evidence": None if result is None else result["evidence"],
        },
        "evaluations": [],
        "main": "model.onnx",
        "pickles": [],
        "signature": None,
        "tags": {"team": "vision"},
        "lineage": {
            "kind": "run",
            "run": f"j{400 + number}.1",
            "name": "train-digits",
            "user": "mira",
            "git": {"commit": "4f2a9c1d77e0b3", "branch": "main", "dirty": True},
            "snapshot": f"sha256:{'a' * 64}",
            "params": {"lr": 0.003, "layers": 4},
            "command": ["python", "train.py"],
        },
        "policy": {"signed": False},
        "gates": [] if result is None else [result],
        "decisions": [] if said is None else [said],
        "contents": [
            {"path": "model.onnx", "size": 4_200_000 * number, "sha256": "b" * 64},
            {"path": "labels.json", "size": 812, "sha256": "c" * 64},
        ],
    }


def versions() -> list[ModelDetail]:
    good = approval("joao", "approve", "the confusion matrix looks right")
    bad = approval("joao", "reject", "it was trained on the test set")
    return [
        version("digits", 4, "PENDING", "needs 1 approval", 0.9853, hours=0.2),
        version("digits", 3, "APPROVED", "approved by joao", 0.9811,
                aliases=("production", "champion"), said=good),
        version("digits", 2, "REJECTED", "rejected by joao", 0.9999, said=bad, hours=30),
        version("digits", 1, "PENDING", "its gate has failed", 0.9412, gate=False, hours=900),
        version("ocr", 10, "PENDING", "its gate has not been run", 0.9022, gate=None, hours=2),
    ]  # fmt: skip


def compared(new_bad: int, new_seen: int) -> ComparedView:
    return {
        "old_seen": 3800,
        "old_bad": 8,
        "new_seen": new_seen,
        "new_bad": new_bad,
        "e_value": 0.41,
        "limit": 40.0,
    }


def served(
    release: int, name: str, traffic: float, healthy: int, *, state: str = "live", errors: int = 0
) -> VersionView:
    return {
        "release": release,
        "version": name,
        "state": state,
        "traffic": traffic,
        "replicas": 2,
        "healthy": healthy,
        "jobs": [f"j{430 + release}", f"j{440 + release}"],
        "requests": 4000,
        "errors": errors,
        "p50": 0.0123,
        "p95": 0.0412,
        "p99": 0.1404,
    }


def rollout(phase: Any, reason: str = "", **over: Any) -> RolloutView:
    view: RolloutView = {
        "version": "digits:4",
        "before": "digits:3",
        "phase": phase,
        "steps": [5.0, 25.0, 50.0],
        "step": 1,
        "share": 25.0,
        "since": at(95),
        "seen": 180,
        "least": 300,
        "reason": reason,
        "errors": compared(3, 1200),
        "slow": compared(40, 1200),
        "edge": 0.045,
        "truths": 0,
        "told": 0,
        "wrong": compared(0, 0),
        "far": None,
    }
    view.update(over)  # type: ignore[typeddict-item]
    return view


def deployment(name: str, target: Any = "production", **over: Any) -> DeploymentView:
    view: DeploymentView = {
        "name": name,
        "target": target,
        "user": "mira",
        "url": "http://127.0.0.1:8410",
        "live": "digits:3",
        "versions": [served(1, "digits:3", 100.0, 2)],
        "rollout": None,
        "changed_at": at(95),
        "keyed": False,
        "certificate_until": None,
        "scaling": None,
        "settled": True,
        "problem": "",
    }
    view.update(over)  # type: ignore[typeddict-item]
    return view


def scaling(**over: Any) -> ScalingView:
    view: ScalingView = {
        "version": "digits:3",
        "min": 0,
        "max": 4,
        "concurrency": 8.0,
        "latency": 0.2,
        "quiet": 120.0,
        "idle": 300.0,
        "hold": 60.0,
        "queue": 100,
        "replicas": 3,
        "ready": 2,
        "load": 20.0,
        "held": 0,
        "since": at(95),
        "reason": "20 requests in progress, at most 8 for each replica",
        "blocked": "",
    }
    view.update(over)  # type: ignore[typeddict-item]
    return view


def deployments() -> list[DeploymentView]:
    both = [served(1, "digits:3", 75.0, 2, errors=8), served(2, "digits:4", 25.0, 2, errors=3)]
    worse = "it errs more: 60 of 1200 requests (5.0%) against 8 of 3800 (0.2%)"
    return [
        deployment("digits", versions=both, rollout=rollout("stepping"), keyed=True),
        deployment("digits", "staging", versions=[served(3, "digits:4", 100.0, 2)], live="digits:4",
                   rollout=rollout("done", "no worse in 1200 requests")),
        deployment("ocr", versions=[served(4, "ocr:9", 100.0, 0)], live="ocr:9",
                   problem="none of its replicas is ready: requests get 503"),
        deployment("search", rollout=rollout("rolled_back", worse)),
    ]  # fmt: skip
