"""What the API says of a model's story."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

Tone = Literal["", "good", "bad"]


class Happening(TypedDict):
    """Something that happened: what, when, why, by whom, and what shows it."""

    at: str
    kind: str  # as in the audit log, or run, pipeline.ended, alert
    about: str  # digits:3, digits@production, p2, digits@2 ...
    text: str
    why: str
    who: str  # "" where the control plane decided by itself
    tone: Tone
    evidence: dict[str, str]  # digests, and the row of the audit log
    pipeline: str | None
    step: str | None


class ServingView(TypedDict):
    service: str
    target: str
    version: str | None


class StoryView(TypedDict):
    model: str
    versions: int
    aliases: dict[str, str]
    serving: list[ServingView]
    happenings: list[Happening]  # oldest first
    left_out: int  # older ones
