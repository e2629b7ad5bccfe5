"""A stream as a script sees it: an iterator of records that commits between two of them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quarterdeck

from .commits import Commits
from .folder import CUT, Folder, Read
from .measures import RARE, Drift, Score
from .nats import Nats
from .rules import Rules
from .settings import Settings, StreamError

if TYPE_CHECKING:
    from .commits import Save

BEAT = 60.0
"""Seconds of silence after which a waiting stream logs how far behind it is."""
HELD = 16 << 20
"""Bytes of bad records in memory from which a commit is due."""


def open(save: Save | None = None, settings: Mapping[str, Any] | None = None) -> Stream:
    """The stream that $QD_STREAM describes, or `settings`, at the point that its last commit reached.

    Args:
        save: writes what is to be committed, the model, into the empty folder that it is given.

    Raises StreamError: there is none, or it cannot be.
    """
    if settings is not None:
        return Stream(Settings(settings), save)
    text = os.environ.get("QD_STREAM")
    if not text:
        raise StreamError("QD_STREAM is not set; the job has no `stream:`")
    return Stream(Settings.from_json(text), save)


class Stream:
    """Attributes:
    checkpoint: the folder that `save` filled at the last commit; None at the first start.
    read, rejected: records so far, bad ones among them; how many of them are bad.
    """

    def __init__(self, settings: Settings, save: Save | None) -> None:
        if quarterdeck.world_size > 1:
            raise StreamError("a stream is read by one rank; the job has more")
        self._settings, self._save = settings, save
        self._rules = Rules(settings.expect)
        self._source = _source(settings, self._rules)
        self._score = Score(settings.score, settings.window)
        self._drift = Drift(settings.drift_size, settings.drift_between)
        self._commits = Commits(quarterdeck.checkpoint_dir, settings.rejects)
        self.read = self.rejected = 0
        self._release: dict[str, Any] | None = None
        self._released_at = 0  # good records at the last release
        self._wanted = ""  # why a release is due
        self._bad: list[bytes] = []
        self._held = 0
        self._committed = (0, 0)  # read, rejected
        self._last = self._beaten = time.monotonic()
        self._restore()

    @property
    def checkpoint(self) -> Path | None:
        return self._commits.last / "model" if self._commits.last is not None else None

    @property
    def trained(self) -> int:
        """Good records so far."""
        return self.read - self.rejected

    @property
    def drifts(self) -> int:
        """How often drift was found."""
        return self._drift.found

    # -- the loop -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        """The next good record, once there is one. The stream ends when the job is to stop."""
        while True:
            if self._due():
                self.commit()
            if quarterdeck.should_stop():
                break
            found = self._source.read()
            if found is None:
                if self._settings.end and self._source.over():
                    break
                self._beat()
                self._source.wait(self._patience())
                continue
            self.read += 1
            reason = found.reason
            if found.record is not None:
                reason = self._rules.problem(found.record)
                if not reason:
                    return found.record
            self._reject(found, reason)
        self.commit()
        raise StopIteration

    def score(self, guess: Any, truth: Any) -> bool:
        """Note what the model made of a record before it was trained on it.

        Returns whether the errors have become larger now: there is drift. A truth of None is not known, and
        counts nothing.

        Raises TypeError, ValueError: they cannot be compared.
        """
        if truth is None:
            return False
        error = self._score.add(guess, truth)
        if self._score.kind == "accuracy":
            self._drift.floor = RARE
        if not self._drift.add(error):
            return False
        _say(f"drift after {self.read} records: the errors have become larger")
        if self._settings.on_drift == "release":
            self._wanted = "drift"
        return True

    def release(self, why: str = "script") -> None:
        """Release what the model will be at the end of this record, whatever the settings say."""
        self._wanted = str(why)[:100]

    # -- commits ------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make what was reached durable. The script has finished with the record that it got last."""
        every = self._settings.release_records
        if not self._wanted and every and self.trained - self._released_at >= every:
            self._wanted = "records"
        if (self.read, self.rejected) == self._committed:
            return
        if self._wanted:
            self._released_at = self.trained
            self._release = {
                "number": (self._release["number"] if self._release else 0) + 1,
                "read": self.read,
                "trained": self.trained,
                "why": self._wanted,
                "at": round(time.time(), 3),
                "scores": {}
                if self._score.value is None
                else {self._score.kind: self._score.value},
            }
        self._commits.commit(self._state(), self._save, self._bad)
        self._source.committed()
        if self._wanted:
            assert self._release is not None
            _say(f"release {self._release['number']} after {self.read} records: {self._wanted}")
        self._wanted = ""
        now = time.monotonic()
        self._log((self.read - self._committed[0]) / max(1e-3, now - self._last))
        self._last, self._committed = now, (self.read, self.rejected)
        self._bad, self._held = [], 0

    def close(self) -> None:
        """Let go of the source and the folder. What was not committed is read again next time."""
        self._source.close()
        self._commits.close()

    def _due(self) -> bool:
        uncommitted = self.read - self._committed[0]
        if not uncommitted:
            return False
        settings = self._settings
        return (
            bool(self._wanted)
            or uncommitted >= settings.commit_records
            or self._held > HELD
            or 0 < settings.release_records <= self.trained - self._released_at
            or time.monotonic() - self._last >= settings.commit_seconds
        )

    def _beat(self) -> None:
        """Now and then, to show that a stream without records is no script that hangs."""
        now = time.monotonic()
        if now - self._beaten >= BEAT:
            self._beaten = now
            quarterdeck.log({"stream/behind": self._source.behind()}, step=self.read)

    def _patience(self) -> float:
        """Seconds to wait for records."""
        if self.read == self._committed[0]:
            return 1.0
        return max(0.01, self._settings.commit_seconds - (time.monotonic() - self._last))

    def _reject(self, found: Read, reason: str) -> None:
        self.rejected += 1
        entry = {
            "where": found.where,
            "reason": reason,
            "record": found.raw[:CUT].decode("utf-8", "backslashreplace"),
        }
        line = json.dumps(entry).encode("ascii") + b"\n"
        self._bad.append(line)
        self._held += len(line)

    def _state(self) -> dict[str, Any]:
        return {
            "version": 1,
            "read": self.read,
            "rejected": self.rejected,
            "kind": self._settings.kind,
            "position": self._source.position(),
            "score": self._score.state(),
            "drift": self._drift.state(),
            "release": self._release,
            "released_at": self._released_at,
        }

    def _restore(self) -> None:
        state = self._commits.restore()
        if state is None:
            return
        kind = self._settings.kind
        if state.get("version") != 1 or state["kind"] != kind:
            raise StreamError(
                f"{self._commits.last} is of a source of another kind ({state.get('kind')});"
                " begin again with another job"
            )
        self.read, self.rejected = state["read"], state["rejected"]
        self._committed = (self.read, self.rejected)
        self._source.restore(state["position"])
        self._score.restore(state["score"])
        self._drift.restore(state["drift"])
        self._release, self._released_at = state["release"], state["released_at"]
        self._log(None)  # a kill may have come before it was logged

    def _log(self, rate: float | None) -> None:
        values = {
            "stream/records": self.read,
            "stream/rejected": self.rejected,
            "stream/drifts": self._drift.found,
            "stream/releases": self._release["number"] if self._release else 0,
            "stream/behind": self._source.behind(),
        }
        if rate is not None:
            values["stream/records_per_s"] = rate
        if self._score.value is not None and self._score.kind is not None:
            values[self._score.kind] = self._score.value
        quarterdeck.log(values, step=self.read)
        self._beaten = time.monotonic()


def _source(settings: Settings, rules: Rules) -> Folder | Nats:
    if "nats" in settings.source:
        return Nats(settings.source, settings.commit_seconds)
    return Folder(settings.source["folder"], rules.types)


def _say(text: str) -> None:
    sys.stderr.write(f"quarterdeck_stream: {text}\n")
    sys.stderr.flush()
