"""What the API says of hosts at the edge."""

from __future__ import annotations

from typing import (
    Literal,
    NotRequired,  # pydantic needs this one before Python 3.12
)

from typing_extensions import TypedDict


class HasView(TypedDict):
    """What a host has, as it says itself. `drift`: it is not what the last push left there."""

    version: str | None
    release: str
    altered: list[str]  # files whose hash is another, or that are missing
    unknown: list[str]  # files that no push brought
    drift: bool
    error: str  # why it was not reached


class EdgeHostView(TypedDict):
    url: str
    wave: int  # from 1
    phase: Literal["waiting", "sending", "switching", "done", "returning", "returned", "failed"]
    sent: int  # bytes
    reason: str
    has: NotRequired[HasView]


class EdgeView(TypedDict):
    """The last push of a fleet."""

    fleet: str
    push: int
    version: str
    phase: Literal["running", "failing", "returning", "done", "failed", "returned"]
    wave: int
    waves: int
    reason: str
    size: int  # bytes
    user: str
    created_at: str
    changed_at: str
    hosts: list[EdgeHostView]
