"""What the API says of models: more shapes like those of `jobs/wire/views.py`."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from jobs.wire.evaluationviews import EvaluationView

ModelState = Literal["PENDING", "APPROVED", "REJECTED", "ARCHIVED"]


class StandingView(TypedDict):
    """Where a version is on its way to a protected alias."""

    state: ModelState
    reason: str
    counted: int  # approvals that count
    needed: int
    evidence: str | None  # digest of the gate's result that an approval has to name


class ModelView(TypedDict):
    """One row of `qd models`: a version."""

    id: str  # "digits:3"
    name: str
    version: int
    label: str | None
    digest: str
    stage: str  # the first protected alias that points to it; empty without one
    aliases: list[str]
    state: ModelState
    reason: str
    run: str | None  # "j3.1"
    format: str
    pickle: bool
    size: int
    files: int
    metrics: dict[str, float | None]
    approvals: int  # that count
    approvals_needed: int
    user: str
    created_at: str
    archived_at: str | None


class ModelFileView(TypedDict):
    path: str
    size: int
    sha256: str  # hex: the blob's name


class ConditionView(TypedDict):
    asked: str
    metric: str
    measured: float | None
    limit: float | None
    against: dict[str, Any] | None  # {"alias", "version", "run", "value"}
    passed: bool
    why: str
    # Of what an evaluation has measured: {"data", "data_digest", "evaluation", "evidence"}, and the interval
    # of the value, or of its distance to the limit where another version is compared.
    on: NotRequired[dict[str, Any] | None]
    interval: NotRequired[list[float] | None]


class EvidenceView(TypedDict):
    """The result of a gate; approvals name it by `evidence`, the digest of `document`."""

    evidence: str
    sound: bool  # the document still has that digest
    passed: bool
    at: str
    user: str
    document: dict[str, Any]  # {"gate", "version", "digest", "run", "passed", "conditions", ...}


class ApprovalView(TypedDict):
    id: int
    decision: Literal["approve", "reject"]
    user: str
    at: str
    comment: str
    digest: str
    evidence: str | None
    counts: bool
    expires_at: str | None
    revoked_at: str | None
    revoked_by: str | None
    revoked_why: str | None
    signer: str | None  # the fingerprint of the key whose signature holds
    signature: str | None  # armoured SSHSIG, of `statement`
    statement: str | None


class ModelDetail(ModelView):
    """Everything about a version."""

    standing: StandingView
    main: str | None  # the file to load
    pickles: list[list[str]]  # [path, why]
    signature: dict[str, Any] | None
    tags: dict[str, str]
    lineage: dict[str, Any]
    policy: dict[str, Any]
    gates: list[EvidenceView]  # newest first
    decisions: list[ApprovalView]  # newest first
    evaluations: list[EvaluationView]  # newest first
    contents: list[ModelFileView]


class StatementView(TypedDict):
    """What the caller has to sign to approve or reject what is there now."""

    statement: str
    namespace: str


class PublishView(TypedDict):
    """`created` false: these very files are a version already."""

    id: str
    digest: str
    created: bool
    warnings: list[str]


class DiffView(TypedDict):
    left: str
    right: str
    files: list[dict[str, Any]]  # {"path", "left", "right"}: digests, None where it is not there
    facts: list[dict[str, Any]]  # {"what", "left", "right"}, only what differs
    metrics: list[dict[str, Any]]  # {"metric", "left", "right"}


class VerifyFile(TypedDict):
    path: str
    problem: str


class VerifyView(TypedDict):
    id: str
    digest: str
    ok: bool
    files: int
    bytes: int
    problems: list[VerifyFile]


class AliasView(TypedDict):
    name: str
    alias: str
    version: str | None  # what it points to now
    before: str | None


class PolicyView(TypedDict):
    name: str
    policy: dict[str, Any]


class AuditView(TypedDict):
    id: int
    at: str
    user: str
    uid: int
    action: str
    target: str
    data: dict[str, Any]
    hash: str
    previous: NotRequired[str]


class AuditVerifyView(TypedDict):
    """`broken_at` is the first row that does not fit; None where the chain is whole."""

    ok: bool
    rows: int
    head: str
    broken_at: int | None
    reason: str
    checkpoints: int  # that were held against the log
