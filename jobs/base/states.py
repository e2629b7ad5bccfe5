"""The states of a job. Apart from the views, so that a command that only compares them imports little."""

from __future__ import annotations

from typing import Literal

JobState = Literal[
    "QUEUED", "PLACING", "STAGING", "RUNNING", "STOPPING", "SUCCEEDED", "FAILED", "CANCELLED"
]

JOB_STATES: tuple[JobState, ...] = (
    "QUEUED", "PLACING", "STAGING", "RUNNING", "STOPPING", "SUCCEEDED", "FAILED", "CANCELLED",
)  # fmt: skip

TERMINAL: frozenset[str] = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
