"""What newly learnt truths say to a rollout that is under way (pure).

Only truths of requests that were answered since the rollout began count, of both versions: the two are
compared under the same requests. Each row counts; rows of one request are taken as independent.

Numbers are right or wrong by a limit: the median error of the running version, from the first truths that
come. These set the limit and are not counted, so that it is fixed before anything is measured by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from jobs.services.evidence import NONE, Counts
from jobs.services.feedback import Outcome
from jobs.services.rollout import Deployment, Learnt

ENOUGH = 20
"""Truths of the running version that fix the limit for numbers."""


class Truth(NamedTuple):
    """What a request's answer came to. `at`: when it was answered, unix time."""

    request: str
    version: str
    at: float
    outcome: Outcome


def learnt(deployment: Deployment, truths: Sequence[Truth]) -> Learnt | None:
    """What these truths, none of which was counted before, tell the rollout; None where it is nothing."""
    rollout = deployment.rollout
    if rollout is None or rollout.phase not in ("stepping", "paused"):
        return None
    new, old = deployment.release(rollout.new), deployment.release(rollout.old)
    if new is None or old is None or new.version == old.version:
        return None
    recent = [truth for truth in truths if truth.at >= rollout.began and truth.outcome.rows > 0]
    of_old = [truth.outcome for truth in recent if truth.version == old.version]
    of_new = [truth.outcome for truth in recent if truth.version == new.version]
    if any(outcome.correct is None for outcome in (*of_old, *of_new)):
        if rollout.far is None:
            errors = [_error(outcome) for outcome in of_old if outcome.correct is None]
            return Learnt(new.number, far=median(errors)) if len(errors) >= ENOUGH else None
        far = rollout.far
        return Learnt(new.number, _beyond(of_old, far), _beyond(of_new, far))
    if not of_old and not of_new:
        return None
    return Learnt(new.number, _wrong(of_old), _wrong(of_new))


def _wrong(outcomes: Sequence[Outcome]) -> Counts:
    rows = sum(outcome.rows for outcome in outcomes)
    right = sum(outcome.correct or 0 for outcome in outcomes)
    return Counts(rows, rows - right)


def _beyond(outcomes: Sequence[Outcome], far: float) -> Counts:
    """A request of several numbers counts once, by its mean error."""
    numbers = [outcome for outcome in outcomes if outcome.correct is None]
    if not numbers:
        return NONE
    return Counts(len(numbers), sum(not _error(outcome) <= far for outcome in numbers))


def _error(outcome: Outcome) -> float:
    return math.nan if outcome.error is None else outcome.error / outcome.rows
