"""What the API says of evaluations."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

EvaluationState = Literal["RUNNING", "DONE", "FAILED"]


class EvaluationView(TypedDict):
    """A version, measured on a version of a data set. `metrics` has the interval of each metric."""

    id: str  # "e3"
    model: str  # "digits:3"
    digest: str
    data: str  # "digits-test@2"
    data_digest: str
    job: str
    state: EvaluationState
    reason: str
    evidence: str | None  # digest of `document`
    task: str | None
    rows: int | None
    metrics: dict[str, dict[str, float | None]]  # {"accuracy": {"value", "low", "high"}}
    user: str
    created_at: str
    ended_at: str | None


class EvaluationDetail(EvaluationView):
    """`sound`: the document still has the digest that it was stored with."""

    asked: dict[str, Any]
    sound: bool
    document: dict[str, Any] | None
