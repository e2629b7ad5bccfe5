"""When a version is approved, by what people and gates have said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput, NotAllowed
from jobs.models.approval import (
    Given,
    Outcome,
    Policy,
    Subject,
    check_approval,
    check_approver,
    standing,
)

ANN, BOB, EVE = 1001, 1002, 1003
NAMES = {ANN: "ann", BOB: "bob", EVE: "eve"}
THIS = Subject("digits:2", "sha256:this", frozenset({ANN}))


def says(uid: int, decision: Any = "approve", number: int = 1, **fields: Any) -> Given:
    values = {"digest": THIS.digest, "evidence": None, "at": float(number)} | fields
    return Given(id=number, decision=decision, user=NAMES[uid], uid=uid, **values)


def gate(evidence: str, passed: bool = True, at: float = 0.0, **fields: Any) -> Outcome:
    values = {"gate": "sha256:gate", "digest": THIS.digest} | fields
    return Outcome(evidence, passed=passed, at=at, **values)


def state(
    given: list[Given], outcomes: list[Outcome] | None = None, now: float = 10.0, **policy: Any
) -> tuple[str, str]:
    found = standing(Policy(**policy), THIS, given, outcomes or [], now)
    assert found.approved is (found.state == "APPROVED")
    return found.state, found.reason


def test_so_many_people_have_to_approve() -> None:
    assert state([]) == ("PENDING", "needs 1 approval")
    assert state([says(BOB)]) == ("APPROVED", "approved by bob")
    assert state([says(BOB)], approvals=2) == ("PENDING", "needs 1 more approval")
    assert state([says(BOB), says(BOB, number=2)], approvals=2)[0] == "PENDING", "one person"
    assert state([says(BOB), says(EVE, number=2)], approvals=2)[0] == "APPROVED"
    assert state([], approvals=0) == ("APPROVED", "it needs no approval")


def test_an_approval_of_other_files_is_worth_nothing() -> None:
    found = state([says(BOB, digest="sha256:other")])
    assert found == ("PENDING", "needs 1 approval; that of bob is for other files")


def test_an_approval_ends() -> None:
    given = [says(BOB, expires_at=5.0)]
    assert state(given, now=4.9)[0] == "APPROVED"
    assert "expired" in state(given, now=5.0)[1]
    assert state([says(BOB, revoked_at=3.0)])[0] == "PENDING"


def test_the_maker_does_not_count_where_the_policy_says_so() -> None:
    assert state([says(ANN)])[0] == "APPROVED"
    assert "who made it" in state([says(ANN)], submitter=False)[1]
    assert state([says(ANN), says(BOB, number=2)], submitter=False)[0] == "APPROVED"


def test_one_no_is_enough_until_it_is_taken_back() -> None:
    no = says(EVE, "reject", 2)
    assert state([says(BOB), no]) == ("REJECTED", "rejected by eve")
    assert state([says(BOB), says(EVE, "reject", 2, revoked_at=3.0)])[0] == "APPROVED"
    assert state([no, says(EVE, number=3)])[0] == "APPROVED", "she has changed her mind"
    assert state([says(EVE), says(EVE, "reject", 2)])[0] == "REJECTED"


def test_an_approval_is_bound_to_the_gates_result() -> None:
    seen = [gate("e1")]
    assert state([says(BOB, evidence="e1")], seen, gate="any")[0] == "APPROVED"
    assert "without the gate" in state([says(BOB)], seen, gate="any")[1]
    assert "not here" in state([says(BOB, evidence="e9")], seen, gate="any")[1]
    assert state([says(BOB)], [], gate="any") == ("PENDING", "its gate has not been run")
    failed = [gate("e1"), gate("e2", passed=False)]
    assert state([says(BOB, evidence="e1")], failed, gate="any") == (
        "PENDING",
        "its gate has failed",
    )
    assert "before its gate failed" in state([says(BOB, evidence="e1")], failed)[1]
    again = [*failed, gate("e3")]
    assert state([says(BOB, evidence="e1")], again)[0] == "APPROVED"


def test_another_gate_takes_nothing_away_and_gives_nothing() -> None:
    other = gate("e2", passed=False, gate="sha256:nonsense")
    policy: dict[str, Any] = {"gate": "sha256:gate"}
    assert state([says(BOB, evidence="e1")], [gate("e1"), other], **policy)[0] == "APPROVED"
    assert state([says(BOB, evidence="e1")], [gate("e1"), other])[0] == "APPROVED"
    lenient = gate("e3", gate="sha256:lenient")
    assert state([says(BOB, evidence="e3")], [lenient], **policy)[1] == "its gate has not been run"
    both = [gate("e1"), lenient]
    assert "another gate" in state([says(BOB, evidence="e3")], both, **policy)[1]
    of_others = gate("e4", digest="sha256:other")
    assert state([says(BOB, evidence="e4")], [of_others], gate="any")[0] == "PENDING"


def test_evidence_that_was_changed_approves_nothing() -> None:
    found = state([says(BOB, evidence="e1")], [gate("e1", sound=False)])
    assert (found[0], "was changed" in found[1]) == ("PENDING", True)


def test_a_signature_that_does_not_hold_is_worth_nothing() -> None:
    assert state([says(BOB, signature="bad")])[0] == "PENDING"
    assert state([says(BOB, signature="good")])[0] == "APPROVED"
    assert "is not signed" in state([says(BOB)], signed=True)[1]
    assert state([says(BOB, signature="good")], signed=True)[0] == "APPROVED"


def test_what_is_archived_is_not_approved() -> None:
    gone = Subject(THIS.name, THIS.digest, THIS.authors, archived=True)
    assert standing(Policy(), gone, [says(BOB)], [], 10.0).state == "ARCHIVED"


def test_who_may_decide() -> None:
    policy = Policy(approvers=["bob", "@leads"], submitter=False)
    check_approver(policy, THIS, "bob", BOB, ())
    check_approver(policy, THIS, "eve", EVE, ("users", "leads"))
    check_approver(Policy(), THIS, "eve", EVE, ())
    with pytest.raises(NotAllowed):
        check_approver(policy, THIS, "eve", EVE, ("users",))
    with pytest.raises(NotAllowed, match="made digits:2"):
        check_approval(policy, THIS, "ann", ANN)
    check_approval(policy, THIS, "bob", BOB)


def test_policies_are_checked() -> None:
    assert Policy.from_json({"expires": "30d"}).expires == 30 * 86_400
    assert Policy.from_json(Policy(approvals=2).to_json()) == Policy(approvals=2)
    for bad in ({"approvals": -1}, {"aprovals": 1}, {"protected": ["9"]}, {"submitter": "no"}):
        with pytest.raises(InvalidInput):
            Policy.from_json(bad)


WORDS = st.lists(
    st.builds(
        says,
        st.sampled_from([ANN, BOB, EVE]),
        st.sampled_from(["approve", "reject"]),
        digest=st.sampled_from([THIS.digest, "sha256:other"]),
        evidence=st.sampled_from([None, "e1", "e2", "e3"]),
        expires_at=st.sampled_from([None, 5.0, 20.0]),
        revoked_at=st.sampled_from([None, 1.0]),
    ),
    max_size=6,
)
RESULTS = st.lists(
    st.builds(
        gate,
        st.sampled_from(["e1", "e2", "e3"]),
        st.booleans(),
        gate=st.sampled_from(["sha256:gate", "sha256:nonsense"]),
        digest=st.sampled_from([THIS.digest, "sha256:other"]),
    ),
    max_size=4,
    unique_by=lambda one: one.evidence,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw, on a busy machine
@given(
    WORDS, RESULTS, st.integers(1, 3), st.booleans(), st.sampled_from([None, "any", "sha256:gate"])
)
def test_nothing_is_approved_without_what_the_policy_asks_for(
    given: list[Given], outcomes: list[Outcome], approvals: int, submitter: bool, wanted: str | None
) -> None:
    policy = Policy(approvals=approvals, submitter=submitter, gate=wanted)
    found = standing(policy, THIS, given, outcomes, 10.0)
    if not found.approved:
        return
    last = {one.uid: one for one in given}
    good = [
        one
        for one in last.values()
        if one.decision == "approve" and one.revoked_at is None and one.digest == THIS.digest
        and (one.expires_at is None or one.expires_at > 10)
        and (submitter or one.uid not in THIS.authors)
    ]  # fmt: skip
    assert len(good) >= approvals
    assert not [o for o in last.values() if o.decision == "reject" and o.revoked_at is None]
    if wanted is not None:
        mine = [
            out for out in outcomes if out.digest == THIS.digest and wanted in ("any", out.gate)
        ]
        assert mine
        assert mine[-1].passed
