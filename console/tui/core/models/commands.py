"""What a person says of a version, and the words for it. Pure."""

from __future__ import annotations

from typing import Literal

from console.text import neutralise
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.draw.format import many
from jobs.wire.modelviews import EvidenceView, ModelDetail

Decision = Literal["approve", "reject"]


def decide(detail: ModelDetail, decision: Decision, reason: str) -> Command | Refusal:
    """Approve or reject these bytes, with that result of the gate: both digests are sent along, so that
    the control plane refuses when either is another one by then."""
    ref, reason = detail["id"], reason.strip()
    if detail["state"] == "ARCHIVED":
        return Refusal(f"{ref} is archived.")
    if decision == "approve" and detail["policy"].get("signed"):
        return Refusal(
            f"Approvals of {detail['name']} are signed with a key: `qd model approve {ref} --sign`."
        )
    if decision == "reject" and not reason:
        return Refusal("Say why: whoever made it reads the reason.")
    return Command(
        decision,
        ref,
        f"{decision.title()} {ref}?",
        tuple(_effects(detail, decision, reason)),
        f"{ref} is {'approved' if decision == 'approve' else 'rejected'} by you",
        dangerous=decision == "reject",
        body={
            "digest": detail["digest"],
            "evidence": detail["standing"]["evidence"],
            "comment": reason,
        },
    )


def _effects(detail: ModelDetail, decision: Decision, reason: str) -> list[str]:
    seen = detail["standing"]["evidence"]
    result = next((one for one in detail["gates"] if one["evidence"] == seen), None)
    out = [f"These files: {detail['digest'][:19]}.", _gate(result)]
    if decision == "approve":
        out.append(
            f"{detail['approvals']} of {many(detail['approvals_needed'], 'approval')} so far."
        )
    else:
        out.append("It gets no protected alias until the rejection is revoked.")
    if reason:
        out.append(f"Your reason: {neutralise(reason)}")
    return out


def _gate(result: EvidenceView | None) -> str:
    if result is None:
        return "No gate has been run on it."
    conditions = result["document"]["conditions"]
    held = sum(bool(one["passed"]) for one in conditions)
    told = "passed" if result["passed"] else "FAILED"
    name = neutralise(str(result["document"]["gate"]["name"]))
    return (
        f"Gate {name} {told}: {held} of {many(len(conditions), 'condition')} "
        f"{'holds' if held == 1 else 'hold'}, evidence {result['evidence'][:19]}."
    )
