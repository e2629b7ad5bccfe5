"""What the API says of monitors: more shapes like those of `jobs/wire/views.py`."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

RunState = Literal["RUNNING", "DONE", "FAILED"]


class IntervalView(TypedDict):
    """A share or a mean with its 95 % interval."""

    value: float
    low: float
    high: float


class OnlineView(TypedDict):
    """How right a version was, over `truths` answers whose truth is known: the share of right classes, or
    the mean absolute error."""

    truths: int
    accuracy: IntervalView | None
    error: IntervalView | None


class FeedbackView(TypedDict):
    """What became of truths that were given."""

    joined: int
    unknown: list[str]  # ids that no log has, at most a hundred of them
    unknown_count: int
    refused: list[str]  # what could not be compared, and why
    missing: list[str]  # nodes whose logs could not be read
    versions: dict[str, OnlineView]


class MonitorRunView(TypedDict):
    """A window that was looked at. `report` is what the monitor's job wrote; empty in lists."""

    id: int
    service: str
    target: str
    version: str
    since: str
    until: str
    scheduled: bool
    user: str
    requests: int
    job: str | None
    state: RunState
    status: str  # ok, drift, not enough data, reference; empty while it runs, or when it failed
    reason: str
    drifted: list[str]  # features
    report: dict[str, Any]


class MonitorView(TypedDict):
    """The monitor of a service's live version."""

    service: str
    target: str
    version: str
    every: float | None  # seconds; None: only when asked
    alarms: float
    level: float
    least: int
    limit: float
    reference: str | None  # a data set, or since when the reference window has been held
    reference_rows: int
    drifting: bool
    windows: int
    runs: list[MonitorRunView]  # newest first
