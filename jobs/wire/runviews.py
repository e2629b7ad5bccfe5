"""What the API says of runs. Times are RFC 3339 in UTC."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from jobs.base.numbers import Number
from jobs.base.states import JobState


class RunView(TypedDict):
    """A job's last attempt, as an experiment."""

    id: str  # "j3.2"; "j3" before its first attempt
    job: str
    name: str
    user: str
    state: JobState
    params: dict[str, Any]  # those that the program logged too
    metrics: dict[str, Number | None]  # last values; None where NaN was logged
    tags: dict[str, str]
    data: dict[str, str]  # "digits@3"
    seed: int | None
    commit: str
    dirty: bool
    snapshot: str | None
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    curve: NotRequired[list[float]]  # its objective by steps, thinned; where that is asked for


class RunPage(TypedDict):
    runs: list[RunView]
    next: (
        str | None
    )  # pass as `before` for the following page; None when they are sorted by a value
    total: int
