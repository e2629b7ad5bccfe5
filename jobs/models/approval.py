"""When a version counts as approved: a model's policy, and what people and gates have said.

An approval names the bytes (the version's digest) and the gate's result (the digest of its evidence) that
its giver saw. It counts only for both: not for other bytes, not when that result is gone or was changed,
and not once the same gate has failed. Everything here is decided again at each question; nothing about
being approved is stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.base import words
from jobs.base.errors import NotAllowed
from jobs.base.times import rfc3339
from jobs.base.words import listed
from jobs.models.names import PRODUCTION, alias_name
from jobs.spec import fields, problems

State = Literal["PENDING", "APPROVED", "REJECTED", "ARCHIVED"]
Decision = Literal["approve", "reject"]

ANY_GATE = "any"


class Policy(BaseModel):
    """What a version of a model needs before it may get a protected alias."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    approvals: Annotated[int, Field(ge=0, le=20, description="how many people must approve")] = 1
    submitter: bool = Field(
        True, description="whether whoever registered the version, or ran its job, may approve it"
    )
    approvers: list[str] = Field(
        [], max_length=200, description="users, and groups as @name; empty: everyone"
    )
    expires: fields.Timeout | None = Field(None, description="how long an approval counts")
    gate: str | None = Field(
        None, description="the digest of the gate that must have passed, or any"
    )
    signed: bool = Field(False, description="whether approvals need a signature by SSH key")
    protected: list[str] = Field([PRODUCTION], max_length=50, description="aliases that need it")
    pickle: bool = Field(False, description="whether files are taken that unpickle")

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Policy:
        """Raises InvalidInput."""
        try:
            policy = cls.model_validate(dict(data or {}))
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "policy") from None
        for alias in policy.protected:
            alias_name(alias)
        return policy

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class Given:
    """What one person has said of a version, and when (unix time)."""

    id: int
    decision: Decision
    user: str
    uid: int
    at: float
    digest: str
    evidence: str | None  # digest of the gate's result that was shown to them
    expires_at: float | None = None
    revoked_at: float | None = None
    signature: Literal["none", "good", "bad"] = "none"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A gate's result: its evidence's digest, which gate it was, for which bytes, and how it ended.

    `sound` is whether the stored evidence still has its digest."""

    evidence: str
    gate: str
    digest: str
    passed: bool
    at: float
    sound: bool = True


@dataclass(frozen=True, slots=True)
class Subject:
    """A version as approvals see it. `authors` are the uids of who registered it and who ran its job."""

    name: str
    digest: str
    authors: frozenset[int]
    archived: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a version is on its way to a protected alias, with the reason in words.

    `counted` are the ids of the approvals that count; `evidence` is the result of the gate that a
    person has to look at, None where there is none."""

    state: State
    reason: str
    counted: tuple[int, ...] = ()
    needed: int = 0
    evidence: str | None = None

    @property
    def approved(self) -> bool:
        return self.state == "APPROVED"


def shown(policy: Policy, subject: Subject, outcomes: Sequence[Outcome]) -> Outcome | None:
    """The gate's result that a person has to look at: the newest of the policy's gate for these bytes.

    `outcomes` are oldest first."""
    for outcome in reversed(outcomes):
        if outcome.digest == subject.digest and policy.gate in (None, ANY_GATE, outcome.gate):
            return outcome
    return None


def standing(
    policy: Policy,
    subject: Subject,
    given: Sequence[Given],
    outcomes: Sequence[Outcome],
    now: float,
) -> Standing:
    """What a version's approvals and gate results come to at `now` (unix time).

    `outcomes` are oldest first, and so is `given`.
    """
    gate = shown(policy, subject, outcomes)
    evidence = gate.evidence if gate else None

    def at(state: State, reason: str, counted: Sequence[Given] = ()) -> Standing:
        ids = tuple(one.id for one in counted)
        return Standing(state, reason, ids, policy.approvals, evidence)

    if subject.archived:
        return at("ARCHIVED", "archived")
    if (broken := next((one for one in outcomes if not one.sound), None)) is not None:
        return at(
            "PENDING", f"gate evidence {broken.evidence[:19]} was changed after it was stored"
        )
    said = [one for one in _last_words(given) if one.revoked_at is None]
    if against := [one for one in said if one.decision == "reject"]:
        return at("REJECTED", f"rejected by {listed([one.user for one in against])}")
    if policy.gate is not None and gate is None:
        return at("PENDING", "its gate has not been run")
    if policy.gate is not None and gate is not None and not gate.passed:
        return at("PENDING", "its gate has failed")
    counted, why = [], []
    for one in said:
        if problem := _why_not(one, policy, subject, outcomes, now):
            why.append(f"that of {one.user} {problem}")
        else:
            counted.append(one)
    missing = policy.approvals - len(counted)
    if missing <= 0:
        users = listed([one.user for one in counted])
        return at("APPROVED", f"approved by {users}" if users else "it needs no approval", counted)
    reason = f"needs {words.counted(missing, 'more approval' if counted else 'approval')}"
    if gate is not None and not gate.passed:
        why.insert(0, "its gate has failed")
    return at("PENDING", "; ".join([reason, *why]), counted)


def _last_words(given: Sequence[Given]) -> list[Given]:
    """What each person said last."""
    last: dict[int, Given] = {}
    for one in given:
        last.pop(one.uid, None)
        last[one.uid] = one
    return list(last.values())


def _why_not(
    one: Given, policy: Policy, subject: Subject, outcomes: Sequence[Outcome], now: float
) -> str:
    """Why an approval does not count; empty when it does."""
    if one.digest != subject.digest:
        return "is for other files"
    if one.expires_at is not None and one.expires_at <= now:
        return f"expired on {rfc3339(one.expires_at)}"
    if one.signature == "bad":
        return "has a signature that does not hold"
    if policy.signed and one.signature == "none":
        return "is not signed"
    if not policy.submitter and one.uid in subject.authors:
        return "does not count, who made it"
    if one.evidence is None:
        return "was given without the gate" if policy.gate is not None else ""
    seen = next((out for out in outcomes if out.evidence == one.evidence), None)
    if seen is None or seen.digest != subject.digest:
        return "names a gate's result that is not here"
    if policy.gate not in (None, ANY_GATE, seen.gate):
        return "is for another gate"
    newest = [out for out in outcomes if out.gate == seen.gate and out.digest == seen.digest][-1]
    return "" if newest.passed else "was given before its gate failed"


def check_approver(
    policy: Policy, subject: Subject, user: str, uid: int, groups: Collection[str]
) -> None:
    """Whether this person's word counts at all. Raises NotAllowed.

    Args:
        groups: the names of the groups that the person is in.
    """
    if policy.approvers and not (
        user in policy.approvers or any(f"@{group}" in policy.approvers for group in groups)
    ):
        raise NotAllowed(
            f"{user} may not decide about {subject.name}",
            f"Its policy names {listed(policy.approvers)}.",
        )


def check_approval(policy: Policy, subject: Subject, user: str, uid: int) -> None:
    """Whether this person may approve what may be their own work. Raises NotAllowed."""
    if not policy.submitter and uid in subject.authors:
        raise NotAllowed(
            f"{user} made {subject.name}, and its policy wants somebody else to approve it",
            "Ask a colleague: `qd model show` says who may.",
        )
