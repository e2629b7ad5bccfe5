"""What may be done with a version that is there: gates, aliases, tags, archive, policy."""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.commands.modelrules import (
    check_comment,
    open_version,
)
from agents.controller.controller import Controller
from jobs.access.roles import Role
from jobs.base.errors import Conflict, InvalidInput, NotAllowed
from jobs.base.times import rfc3339
from jobs.models import gates
from jobs.models.approval import Policy
from jobs.models.digests import digest_of
from jobs.models.gates import Gate
from jobs.models.names import (
    MAX_TAGS,
    ModelRef,
    alias_name,
    check_tag,
    model_name,
    version_name,
)
from jobs.store import evaluations, models
from jobs.store.modeltables import (
    GateRow,
    ModelAliasRow,
    ModelRow,
    ModelTagRow,
    ModelVersionRow,
)
from jobs.store.writing import Caller
from jobs.wire.modelviews import AliasView, EvidenceView, ModelView, PolicyView


async def run_gate(controller: Controller, who: Caller, ref: ModelRef, gate: Gate) -> EvidenceView:
    """Hold a version against a gate, and store what came of it.

    Raises NotFound; Conflict when it is archived.
    """

    def decide(session: Session, now: float) -> Done[EvidenceView]:
        model, row = open_version(session, ref)
        known = evaluations.for_gate(session, row.id or 0, gate)
        on = known[0].data_digest if known else None
        others = {}
        for alias in gates.aliases_of(gate):
            held = models.aliases(session, model.id or 0).get(alias)
            if held is not None:
                other = session.get_one(ModelVersionRow, held)
                theirs = evaluations.for_gate(session, held, gate, on)
                others[alias] = models.measured(model, other, theirs)
        candidate = models.measured(model, row, known)
        evidence = gates.evaluate(gate, candidate, others, at=rfc3339(now), by=who.user)
        stored = GateRow(
            version_id=row.id or 0,
            digest=row.digest,
            gate=gate.digest,
            passed=evidence["passed"],
            evidence_digest=digest_of(evidence),
            evidence=evidence,
            user=who.user,
            uid=who.uid,
            at=now,
        )
        session.add(stored)
        session.flush()
        name = evidence["version"]
        failed = gates.failures(evidence)
        text = f"{name} {'passed' if not failed else 'was stopped by'} gate {gate.name}"
        if failed:
            text += f": {failed[0]}"
        data = {
            "gate": gate.name,
            "gate_digest": gate.digest,
            "digest": row.digest,
            "passed": not failed,
            "evidence": stored.evidence_digest,
            "failures": list(failed),
        }
        return Done(
            models.evidence_view(stored),
            text,
            data,
            "warning" if failed else "info",
            target=name,
            left={"model": name, "evidence": stored.evidence_digest, "failed": "; ".join(failed)},
        )

    return await act(controller, who, "model.gate", str(ref), decide)


async def set_alias(controller: Controller, who: Caller, ref: ModelRef, alias: str) -> AliasView:
    """Let an alias point to a version. A protected one takes only a version that is approved.

    Raises NotFound; Conflict when it is archived; NotAllowed when it is not approved.
    """
    alias_name(alias)
    signers = await controller.signers()

    def decide(session: Session, now: float) -> Done[AliasView]:
        model, row = open_version(session, ref)
        name = version_name(model.name, row.number)
        where = models.standing_of(session, model, row, now, signers)
        if alias in models.policy_of(model).protected and not where.approved:
            raise NotAllowed(
                f"{name} may not become {alias}: {where.reason}",
                f"`qd model show {name}` says what it needs.",
            )
        held = session.get(ModelAliasRow, (model.id, alias))
        before = None if held is None else session.get_one(ModelVersionRow, held.version_id)
        view: AliasView = {
            "name": model.name,
            "alias": alias,
            "version": name,
            "before": None if before is None else version_name(model.name, before.number),
        }
        if held is not None and held.version_id == row.id:
            return Done(view)
        session.merge(
            ModelAliasRow(
                model_id=model.id or 0,
                alias=alias,
                version_id=row.id or 0,
                user=who.user,
                uid=who.uid,
                set_at=now,
            )
        )
        session.flush()
        data = {
            "alias": alias,
            "before": view["before"],
            "after": name,
            "digest": row.digest,
            "approvals": list(where.counted),
            "evidence": where.evidence,
        }
        was = f" (was {view['before']})" if view["before"] else ""
        return Done(view, f"{alias} of {model.name} is {name}{was}", data, target=model.name)

    return await act(controller, who, "model.alias", str(ref), decide)


async def drop_alias(controller: Controller, who: Caller, name: str, alias: str) -> AliasView:
    """Take an alias away. Raises NotFound."""

    def decide(session: Session, now: float) -> Done[AliasView]:
        model, row = models.get_version(session, ModelRef(name, alias=alias))
        before = version_name(model.name, row.number)
        session.delete(session.get_one(ModelAliasRow, (model.id, alias)))
        session.flush()
        view: AliasView = {"name": name, "alias": alias, "version": None, "before": before}
        data = {"alias": alias, "before": before, "after": None}
        return Done(view, f"{alias} of {name} is gone (was {before})", data, target=name)

    return await act(controller, who, "model.alias", name, decide)


async def set_tags(
    controller: Controller, who: Caller, ref: ModelRef, tags: Mapping[str, str | None]
) -> dict[str, str]:
    """Set tags of a version, and take away those whose value is None; gives all of them.

    Raises NotFound, and InvalidInput for too many.
    """
    for key, value in tags.items():
        check_tag(key, value or "")

    def decide(session: Session, now: float) -> Done[dict[str, str]]:
        model, row = models.get_version(session, ref)
        name, version = version_name(model.name, row.number), row.id or 0
        before = models.tags_of(session, version)
        for key, value in tags.items():
            held = session.get(ModelTagRow, (version, key))
            if value is None and held is not None:
                session.delete(held)
            elif value is not None:
                session.merge(ModelTagRow(version_id=version, key=key, value=value))
        session.flush()
        after = models.tags_of(session, version)
        if len(after) > MAX_TAGS:
            raise InvalidInput(f"{name} would have {len(after)} tags; allowed: {MAX_TAGS}")
        if after == before:
            return Done(after)
        changed = {
            key: {"before": before.get(key), "after": after.get(key)}
            for key in tags
            if before.get(key) != after.get(key)
        }
        return Done(after, f"tags of {name} changed by {who.user}", changed, target=name)

    return await act(controller, who, "model.tag", str(ref), decide)


async def archive(
    controller: Controller, who: Caller, ref: ModelRef, reason: str, *, undo: bool = False
) -> ModelView:
    """Put a version away, or take it back; its files stay.

    Raises NotFound; Conflict while a protected alias points to it.
    """
    check_comment(reason)
    signers = await controller.signers()

    def decide(session: Session, now: float) -> Done[ModelView]:
        model, row = models.get_version(session, ref)
        name = version_name(model.name, row.number)
        protected = set(models.policy_of(model).protected)
        held = sorted(protected.intersection(models.aliases_of(session, row.id or 0)))
        if held and not undo:
            raise Conflict(f"{name} is {held[0]}", f"Point {held[0]} to another version first.")
        if undo is (row.archived_at is None):
            return Done(models.model_view(session, model, row, now, signers))
        row.archived_at = None if undo else now
        session.add(row)
        session.flush()
        text = f"{name} {'taken back from the archive' if undo else 'archived'} by {who.user}"
        text += f": {reason}" if reason else ""
        view = models.model_view(session, model, row, now, signers)
        return Done(view, text, {"archived": not undo, "reason": reason}, target=name)

    return await act(controller, who, "model.archive", str(ref), decide)


async def set_policy(controller: Controller, who: Caller, name: str, policy: Policy) -> PolicyView:
    """Say what versions of a model need; the model is made when it is not there yet.

    Raises NotAllowed for everybody but admins.
    """
    model_name(name)

    def decide(session: Session, now: float) -> Done[PolicyView]:
        if who.role < Role.ADMIN:
            raise NotAllowed(f"{who.user} may not set the policy of {name}", "Ask an admin.")
        row = models.find_model(session, name) or ModelRow(
            name=name, user=who.user, uid=who.uid, created_at=now
        )
        before, after = Policy.from_json(row.policy).to_json(), policy.to_json()
        view: PolicyView = {"name": name, "policy": after}
        if row.id is not None and before == after:
            return Done(view)
        row.policy = after
        session.add(row)
        session.flush()
        data = {"before": before, "after": after}
        return Done(view, f"policy of {name} set by {who.user}", data)

    return await act(controller, who, "model.policy", name, decide)
