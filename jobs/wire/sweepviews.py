"""What the API says of sweeps: more shapes like those of `jobs/wire/views.py`."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from jobs.base.numbers import Number
from jobs.base.states import JobState

SweepStateName = Literal["RUNNING", "PAUSED", "STOPPING", "FINISHED", "FAILED"]
TrialStateName = Literal[
    "QUEUED", "RUNNING", "STOPPING", "COMPLETE", "PRUNED", "FAILED", "CANCELLED"
]
Origin = Literal["drawn", "enqueued", "rerun", "continued", "copied"]
"""Where a trial's point comes from: the sampler, a person, another trial that a person has run again; in
a population, its member's last trial, or a better member's, whose checkpoint it began with."""
SWEEP_ENDED: frozenset[str] = frozenset({"FINISHED", "FAILED"})


class TrialView(TypedDict):
    """One row of `qd trials`."""

    number: int
    state: TrialStateName
    params: dict[str, Any]
    values: list[Number] | None  # one for each objective, once it is complete
    job: str
    job_state: JobState
    reason: str
    last: Number | None  # the newest value of the first objective
    step: int | None  # and its step
    losses: int  # how often its job was lost to the infrastructure
    nodes: list[str]
    gpus: list[str]  # UUIDs of its ranks' GPUs, in its job's newest attempt
    asked_at: str
    started_at: str | None
    ended_at: str | None
    gpu_hours: float
    origin: Origin
    parent: int | None  # the trial whose checkpoint it began with, or that it runs again
    member: int | None  # of a population; counted from 0
    generation: int | None  # its member's how manieth trial, counted from 0
    pinned: bool  # the pruner leaves it alone
    constraints: dict[str, float] | None  # each as it was written: by how much it is exceeded
    feasible: bool | None  # it meets them all; None without any, and before its end


class ObjectiveView(TypedDict):
    metric: str
    goal: Literal["maximize", "minimize"]


class TrialCounts(TypedDict):
    open: int
    complete: int
    pruned: int
    failed: int
    cancelled: int
    total: int


class BestTrial(TypedDict):
    number: int
    values: list[Number]
    params: dict[str, Any]
    job: str


class SweepView(TypedDict):
    """One row of `qd sweeps`."""

    id: str
    name: str
    user: str
    state: SweepStateName
    reason: str
    objectives: list[ObjectiveView]
    sampler: str
    pruner: str
    trials: int | None  # how many there will be at most
    parallel: int
    counts: TrialCounts
    best: BestTrial | None  # of one objective
    time_budget: float | None  # seconds
    gpu_hours_budget: float | None
    gpu_hours: float
    submitted_at: str
    ended_at: str | None


class SweepDetail(SweepView):
    spec: dict[str, Any]
    snapshot: str | None
    study: str  # its name in Optuna's storage
    front: list[BestTrial]  # of several objectives: the trials that none beats in all of them


class CurveView(TypedDict):
    """What one trial has logged of a metric, thinned."""

    number: int
    state: TrialStateName
    points: list[tuple[int, float]]  # (step, value), ascending; what is finite


class SlicePoint(TypedDict):
    number: int
    x: bool | int | float | str | None  # the parameter's value
    y: float  # the objective's


class SliceView(TypedDict):
    """One parameter against one objective, over all trials that are complete with a finite value."""

    name: str
    log: bool
    low: float | None
    high: float | None
    choices: list[Any] | None
    points: list[SlicePoint]


class SweepSubmitView(TypedDict):
    id: str
    state: SweepStateName
    created: bool
    reason: str
