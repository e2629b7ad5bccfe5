"""What people say of a version: approve, reject, take it back."""

from __future__ import annotations

import asyncio

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.commands.modelrules import check_comment, groups_of, open_version
from agents.controller.controller import Controller
from jobs.access.roles import Role
from jobs.base.errors import Conflict, NotAllowed
from jobs.models import approval
from jobs.models.approval import Decision, Outcome, Policy, Subject
from jobs.models.names import ModelRef, version_name
from jobs.models.signers import APPROVAL, statement
from jobs.models.sshsig import BadSignature
from jobs.store import models
from jobs.store.modeltables import ApprovalRow
from jobs.store.writing import Caller
from jobs.wire.modelviews import ModelView, StatementView


async def decide_on(
    controller: Controller,
    who: Caller,
    ref: ModelRef,
    decision: Decision,
    *,
    digest: str,
    evidence: str | None,
    comment: str,
    signature: str | None = None,
) -> ModelView:
    """Approve or reject a version: these bytes, with that result of the gate before one's eyes.

    Saying the same again changes nothing. A signature is of `statement_for`.

    Raises:
        NotFound: no such version.
        Conflict: it is archived, has other bytes, or the gate has another result by now.
        NotAllowed: the policy does not let this person decide, or not about their own work; or the
            signature is missing or does not hold.
    """
    check_comment(comment)
    groups = await asyncio.to_thread(groups_of, who)
    signers = await controller.signers()

    def decide(session: Session, now: float) -> Done[ModelView]:
        model, row = open_version(session, ref)
        policy, subject = models.policy_of(model), models.subject_of(model, row)
        approval.check_approver(policy, subject, who.user, who.uid, groups)
        outcomes = [models.outcome(item) for item in models.gates_of(session, row.id or 0)]
        seen = approval.shown(policy, subject, outcomes)
        _check_seen(policy, subject, seen, digest, evidence)
        if decision == "approve":
            _check_ripe(policy, subject, seen, who)
            if signature is None and policy.signed:
                raise NotAllowed(
                    f"the policy of {model.name} takes only signed approvals",
                    "`qd model approve --sign` signs it with your SSH key.",
                )
        word = ApprovalRow(
            version_id=row.id or 0,
            decision=decision,
            digest=row.digest,
            evidence_digest=evidence,
            comment=comment,
            signature=signature,
            user=who.user,
            uid=who.uid,
            at=now,
            expires_at=None
            if policy.expires is None or decision == "reject"
            else now + policy.expires,
        )
        if signature is not None:
            message = models.statement_of(word, subject.name, signers.cluster)
            try:
                signers.check(signature, message, who.user, now)
            except BadSignature as error:
                raise NotAllowed(
                    f"the signature does not hold: {error}",
                    f"Keys that are believed are in {controller.allowed_signers.path}.",
                ) from None
        said = [
            one
            for one in models.decisions_of(session, row.id or 0)
            if one.uid == who.uid and one.revoked_at is None
        ]
        if said and _same(said[-1], word, now):
            return Done(models.model_view(session, model, row, now, signers))
        session.add(word)
        session.flush()
        verb = "approved" if decision == "approve" else "rejected"
        text = f"{subject.name} {verb} by {who.user}" + (f": {comment}" if comment else "")
        data = {
            "digest": row.digest,
            "evidence": evidence,
            "comment": comment,
            "signer": models.signer(word, subject.name, signers),
        }
        view = models.model_view(session, model, row, now, signers)
        severity = "info" if decision == "approve" else "warning"
        return Done(view, text, data, severity, target=subject.name)  # type: ignore[arg-type]

    return await act(controller, who, f"model.{decision}", str(ref), decide)


def _check_seen(
    policy: Policy, subject: Subject, seen: Outcome | None, digest: str, evidence: str | None
) -> None:
    """Whether somebody decides about what is there. Raises Conflict."""
    hint = f"Look at it again: `qd model show {subject.name}`."
    if digest != subject.digest:
        raise Conflict(
            f"{subject.name} has the digest {subject.digest[:19]}, not {digest[:19]}", hint
        )
    if evidence != (seen.evidence if seen else None):
        raise Conflict(f"the gate's result for {subject.name} has changed since", hint)


def _check_ripe(policy: Policy, subject: Subject, seen: Outcome | None, who: Caller) -> None:
    """Whether it may be approved by this person now. Raises NotAllowed and Conflict."""
    approval.check_approval(policy, subject, who.user, who.uid)
    if seen is not None and not seen.passed:
        raise Conflict(
            f"{subject.name} has failed its gate", f"`qd model show {subject.name}` says why."
        )
    if seen is None and policy.gate is not None:
        raise Conflict(f"the gate of {subject.name} has not been run", "Run `qd gate` first.")


def _same(said: ApprovalRow, word: ApprovalRow, now: float) -> bool:
    """Whether it has been said already, and counts."""
    return (
        (said.expires_at is None or said.expires_at > now)
        and said.decision == word.decision
        and said.evidence_digest == word.evidence_digest
        and (said.signature is None) is (word.signature is None)
    )


async def statement_for(
    controller: Controller, who: Caller, ref: ModelRef, decision: Decision, comment: str
) -> StatementView:
    """What this caller has to sign to say this of what is there now. Raises NotFound."""
    check_comment(comment)

    def look(session: Session) -> bytes:
        model, row = open_version(session, ref)
        policy, subject = models.policy_of(model), models.subject_of(model, row)
        outcomes = [models.outcome(item) for item in models.gates_of(session, row.id or 0)]
        seen = approval.shown(policy, subject, outcomes)
        return statement(
            cluster=controller.cluster_id,
            version=subject.name,
            digest=row.digest,
            decision=decision,
            evidence=seen.evidence if seen else None,
            comment=comment,
            user=who.user,
        )

    found = await controller.db.read(look)
    return {"statement": found.decode(), "namespace": APPROVAL}


async def revoke(
    controller: Controller, who: Caller, ref: ModelRef, reason: str, user: str | None = None
) -> ModelView:
    """Take back what people have said of a version: one's own word, or, for an admin,
    that of anybody (`user`) or of everybody.

    An alias stays where it is; whoever deploys by it asks whether the version is approved.

    Raises:
        NotFound: no such version.
        Conflict: there is nothing to take back.
        NotAllowed: it is somebody else's word.
    """
    check_comment(reason)
    signers = await controller.signers()

    def decide(session: Session, now: float) -> Done[ModelView]:
        model, row = models.get_version(session, ref)
        name = version_name(model.name, row.number)
        standing_ones = [
            one for one in models.decisions_of(session, row.id or 0) if one.revoked_at is None
        ]
        if who.role >= Role.ADMIN:
            mine = [one for one in standing_ones if user in (None, one.user)]
        else:
            if user not in (None, who.user):
                raise NotAllowed(
                    f"{who.user} may not take back what {user} has said of {name}",
                    "Everybody takes back their own word, and an admin any.",
                )
            mine = [one for one in standing_ones if one.uid == who.uid]
        if not mine:
            raise Conflict(f"there is no decision on {name} to revoke")
        for one in mine:
            one.revoked_at, one.revoked_by, one.revoked_why = now, who.user, reason
            session.add(one)
        session.flush()
        view = models.model_view(session, model, row, now, signers)
        text = f"{name}: {who.user} took back what {_listed(mine)} had said"
        text += f": {reason}" if reason else ""
        if view["stage"] and view["state"] != "APPROVED":
            text += f"; it is still {view['stage']}"
        data = {
            "decisions": [
                {"id": one.id, "decision": one.decision, "user": one.user} for one in mine
            ],
            "reason": reason,
        }
        return Done(view, text, data, "warning", target=name)

    return await act(controller, who, "model.revoke", str(ref), decide)


def _listed(rows: list[ApprovalRow]) -> str:
    return ", ".join(sorted({row.user for row in rows}))
