"""What the API says of pipelines: more shapes like those of `jobs/wire/views.py`."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

RunStateName = Literal["RUNNING", "STOPPING", "SUCCEEDED", "FAILED", "CANCELLED"]
TaskStateName = Literal[
    "WAITING", "RUNNING", "SUCCEEDED", "CACHED", "FAILED", "SKIPPED", "CANCELLED"
]
PIPELINE_ENDED: frozenset[str] = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


class PipelineView(TypedDict):
    """One row of `qd pipelines`."""

    id: str
    name: str
    user: str
    state: RunStateName
    reason: str
    params: dict[str, Any]
    counts: dict[str, int]  # runs of steps by state
    running: list[str]  # names of the steps that run
    submitted_at: str
    ended_at: str | None


class TaskView(TypedDict):
    """One run of a step."""

    step: str
    number: int
    matrix: dict[str, Any]
    kind: Literal[
        "job", "sweep", "data-check", "register", "evaluate", "gate", "approval", "deploy", "notify"
    ]
    left: dict[str, str]  # of a step that is no job: what others may take of it
    needs: list[str]
    state: TaskStateName
    job_state: str  # of its job, as long as it runs
    reason: str
    tries: int
    job: str | None
    sweep: str | None
    taken_from: str | None  # the pipeline in which it ran
    started_at: str | None
    ended_at: str | None


class PipelineDetail(PipelineView):
    spec: dict[str, Any]
    tasks: list[TaskView]  # in the order in which they may run


class PlannedTask(TypedDict):
    """What a run would do with a step."""

    step: str
    number: int
    needs: list[str]
    kind: str
    plan: Literal["run", "cached", "taken", "left out", "depends"]
    told: str


class PipelineSubmitView(TypedDict):
    id: str
    state: RunStateName
    created: bool
    reason: str
    plan: list[PlannedTask]  # of a dry run


class FiringView(TypedDict):
    """One moment of a schedule, and what came of it."""

    moment: str
    state: Literal["WAITING", "STARTED", "SKIPPED", "MISSED"]
    reason: str
    cause: str | None  # of a trigger: what has happened
    pipeline: str | None
    at: str


class ScheduleView(TypedDict):
    """One row of `qd schedules`."""

    name: str
    user: str
    pipeline: str  # the name of what it runs
    state: Literal["ACTIVE", "PAUSED"]
    schedule: dict[str, Any]
    told: str
    params: dict[str, Any]
    next: list[str]  # the next five moments
    fired: int  # how often it has started its pipeline
    firings: list[FiringView]  # the newest ones
    added_at: str
