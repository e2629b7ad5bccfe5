"""What the API says of alerts: more shapes like those of `jobs/wire/views.py`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12


class SilenceView(TypedDict):
    id: int
    rule: str
    subject: str
    until: str
    user: str
    reason: str


class AlertView(TypedDict):
    """One row of `qd alerts`."""

    rule: str
    subject: str
    state: Literal["PENDING", "FIRING", "RESOLVED"]
    severity: Literal["info", "warning", "error"]
    text: str
    node: str
    since: str
    told_at: str | None
    acked_by: str
    acked_why: str
    changed_at: str  # of one that is over: when it ended
    silence: SilenceView | None  # the one that ends last


class ChannelTest(TypedDict):
    """What became of a message to a channel."""

    channel: str
    delivered: bool
