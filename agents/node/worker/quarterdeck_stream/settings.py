"""What a stream is: where its records come from, what they must be, when it is committed and released."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class StreamError(Exception):
    """A stream that cannot be: its settings, its source or its checkpoint."""


COMMIT_RECORDS = 100_000
COMMIT_SECONDS = 30.0
"""A commit is due after so many records or so many seconds, whichever is first. The head copies checkpoints
that it sees twice, two seconds apart."""
WINDOW = 1000
"""Records over which a score is taken."""
REJECTS = 64 << 20
"""Bytes of bad records that are kept; the oldest are deleted first."""

_FIELDS = {
    "source": dict,
    "expect": dict,
    "commit": dict,
    "release": dict,
    "on_drift": str,
    "drift": dict,
    "score": str,
    "window": int,
    "rejects": int,
    "end": bool,
}


class Settings:
    """Checked settings. Raises StreamError that names the field."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            kind = _FIELDS.get(name)
            if kind is None:
                raise StreamError(f"{name}: no such field; allowed: {', '.join(_FIELDS)}")
            if value is not None and (
                not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
            ):
                raise StreamError(f"{name}: found {value!r}; allowed: {_WORDS[kind]}")
        present = {name: value for name, value in given.items() if value is not None}
        self.source: Mapping[str, Any] = present.get("source", {})
        if not (set(self.source) == {"folder"} or {"nats", "stream"} <= set(self.source)):
            raise StreamError("source: allowed: {folder: PATH} or {nats: ADDRESS, stream: NAME}")
        self.kind = "nats" if "nats" in self.source else "folder"
        self.expect: Mapping[str, Any] = present.get("expect", {})
        commit = _known("commit", present.get("commit", {}), ("records", "every"))
        self.commit_records = int(_positive("commit.records", commit, "records", COMMIT_RECORDS))
        self.commit_seconds = _positive("commit.every", commit, "every", COMMIT_SECONDS)
        release = _known("release", present.get("release", {}), ("records", "model"))
        self.release_records = int(_positive("release.records", release, "records", 0))
        self.on_drift = _word("on_drift", present.get("on_drift", "note"), ("note", "release"))
        drift = _known("drift", present.get("drift", {}), ("size", "between"))
        self.drift_size = _positive("drift.size", drift, "size", 0.1)
        self.drift_between = _positive("drift.between", drift, "between", 1_000_000)
        self.score = present.get("score")
        if self.score is not None:
            _word("score", self.score, ("accuracy", "mae"))
        self.window = int(_positive("window", present, "window", WINDOW))
        self.rejects = int(_positive("rejects", present, "rejects", REJECTS))
        self.end = bool(present.get("end", False))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises StreamError."""
        try:
            given = json.loads(text)
        except ValueError as error:
            raise StreamError(f"QD_STREAM is no JSON: {error}") from None
        if not isinstance(given, dict):
            raise StreamError(f"QD_STREAM is a JSON object, not {text[:80]!r}")
        return cls(given)


_WORDS = {
    dict: "fields with values",
    str: "text",
    int: "a whole number",
    bool: "true or false",
}


def _known(what: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> Mapping[str, Any]:
    for name in given:
        if name not in allowed:
            raise StreamError(f"{what}.{name}: no such field; allowed: {', '.join(allowed)}")
    return given


def _word(what: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise StreamError(f"{what}: found {value!r}; allowed: {' or '.join(allowed)}")
    return value


def _positive(what: str, given: Mapping[str, Any], name: str, default: float) -> float:
    value = given.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise StreamError(f"{what}: found {value!r}; allowed: a number above 0")
    return value
