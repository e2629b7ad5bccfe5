"""How an attempt comes to its end, and what its job does then. Pure, as `jobs.life.lifecycle`, whose table
calls it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from jobs.life.vocabulary import Allocation, Attempt, Ending, Failure, Job, Note, Phase
from jobs.wire.views import AttemptState

Next = tuple[Job, tuple[Note, ...]]
"""A job as it is next, and what there is to tell of that."""

MAX_LOSSES = 10
"""How often a job may lose its attempt to the infrastructure (a node, a guard, a lease) before it
fails. It does not count against `max_restarts`: that budget is for the script's own failures. A job
that loses ten is more likely to be what kills the nodes."""

STEADY = 600.0
"""Seconds after which an attempt of an endless job counts as having run: it then has all of its restarts
again, which are to end what fails again and again, not what fails once a month."""

SAME_EVENT = 10.0
"""Seconds within which the failure of a rank and the silence of another node of its gang are one event:
a rank whose peer's host is gone fails too, at once or when its collective times out."""

RESTART_BACKOFF = (0.0, 5.0, 15.0, 60.0)
"""Seconds before the n-th restart; the last value holds from there on."""


def live(job: Job) -> Attempt:
    assert job.attempt is not None, f"j{job.id} is {job.state} without an attempt"
    return job.attempt


def nodes_of(attempt: Attempt) -> str:
    return ", ".join(one.node for one in attempt.allocations)


def moved_to(job: Job, state: Literal["STAGING", "RUNNING", "STOPPING"], attempt: Attempt) -> Job:
    return replace(job, state=state, attempt=replace(attempt, state=state))


def set_part(
    attempt: Attempt,
    node: str,
    *,
    phase: Phase,
    outcome: str = "",
    ran: float | None = None,
    only_from: tuple[Phase, ...] | None = None,
    boot: str = "",
) -> Attempt:
    """The attempt with one allocation moved on; an allocation never moves back from where it ended."""

    def moved(allocation: Allocation) -> Allocation:
        if (
            allocation.node != node
            or allocation.over
            or (only_from and allocation.phase not in only_from)
        ):
            return allocation
        return replace(
            allocation,
            phase=phase,
            outcome=outcome or allocation.outcome,
            ran=ran,
            boot=boot or allocation.boot,
        )

    return replace(attempt, allocations=tuple(moved(one) for one in attempt.allocations))


def earlier_failure(job: Job, failure: Failure | None) -> Job:
    attempt = live(job)
    if failure is None or failure.rank is None or attempt.ending not in ("failed", "lost"):
        return job
    known = attempt.failure
    if known is None or known.rank is None or failure.at < known.at:
        return replace(job, attempt=replace(attempt, failure=failure))
    return job


def lost_after_all(job: Job, loss: Failure, heard: float | None) -> Job:
    """A gang that stops because a rank has failed, with what is now known of another of its nodes: it
    was gone by then, which is why the rank failed. That is no fault of the script.

    Args:
        loss: the node that is gone, and why.
        heard: when it was last heard of, unix time; None when nobody knows.
    """
    attempt = live(job)
    known = attempt.failure
    if attempt.ending != "failed" or known is None or known.node == loss.node:
        return job
    if heard is not None and heard > known.at + SAME_EVENT:
        return job
    reason = f"{loss.node}: {loss.reason}; then on {known.node}: {known.reason}"
    return replace(job, reason=reason, attempt=replace(attempt, ending="lost", failure=loss))


def stopping(job: Job, ending: Ending, failure: Failure | None, now: float, reason: str) -> Next:
    attempt = replace(live(job), ending=ending, failure=failure)
    new = replace(moved_to(job, "STOPPING", attempt), reason=reason)
    severity: Literal["info", "warning"] = "info" if ending == "cancelled" else "warning"
    note = Note("job.stopping", f"attempt {attempt.number} stops: {reason}", severity)
    final, more = finish_if_over(new, now)
    return final, (note, *more)


def finish_if_over(job: Job, now: float) -> Next:
    attempt = live(job)
    if not all(one.over for one in attempt.allocations):
        return job, ()
    ended = _ended_at(attempt, now)
    attempt = replace(attempt, ended_at=ended)
    if all(one.outcome == "done" for one in attempt.allocations):
        done = replace(attempt, state="SUCCEEDED", ending="")
        new = replace(job, state="SUCCEEDED", reason="", attempt=done, ended_at=ended)
        return new, (Note("job.succeeded", f"attempt {attempt.number} succeeded"),)
    if job.cancel or attempt.ending == "cancelled":
        return _end(job, replace(attempt, state="CANCELLED"), "CANCELLED", job.reason, now)
    if attempt.ending in ("timeout", "stage"):
        # What cannot be staged (no such interpreter, a package that does not exist) cannot be staged
        # a second time either; restarting would only hide the reason.
        return _end(job, replace(attempt, state="FAILED"), "FAILED", job.reason, now)
    if attempt.ending in ("lost", "preempted"):
        state: AttemptState = "LOST" if attempt.ending == "lost" else "PREEMPTED"
        losses = job.losses + (attempt.ending == "lost")
        if losses > MAX_LOSSES and not job.endless:
            text = f"lost {losses} attempts to the infrastructure, last: {job.reason}"
            return _end(job, replace(attempt, state=state), "FAILED", text, now)
        return _again(replace(job, losses=losses), replace(attempt, state=state), now)
    if job.endless and attempt.started_at is not None and ended - attempt.started_at >= STEADY:
        job = replace(job, restarts_left=job.max_restarts)
    if job.restarts_left > 0:
        job = replace(job, restarts_left=job.restarts_left - 1)
        return _again(job, replace(attempt, state="FAILED"), now)
    return _end(job, replace(attempt, state="FAILED"), "FAILED", job.reason, now)


def _ended_at(attempt: Attempt, now: float) -> float:
    """When the last rank ended: by what the nodes counted, where all of them did, for it may be heard of
    long afterwards."""
    ran = [one.ran for one in attempt.allocations]
    if attempt.started_at is None or None in ran:
        return now
    return attempt.started_at + max(seconds or 0.0 for seconds in ran)


def _again(job: Job, attempt: Attempt, now: float) -> Next:
    delay = RESTART_BACKOFF[min(attempt.number - 1, len(RESTART_BACKOFF) - 1)]
    text = f"restarts after attempt {attempt.number}: {job.reason}"
    new = replace(job, state="QUEUED", reason=text, attempt=attempt, not_before=now + delay)
    note = Note(
        "job.restart", f"attempt {attempt.number} {attempt.state.lower()}; {text}", "warning"
    )
    return new, (note,)


def _end(
    job: Job, attempt: Attempt, state: Literal["FAILED", "CANCELLED"], reason: str, now: float
) -> Next:
    new = replace(
        job, state=state, reason=reason, attempt=attempt, ended_at=attempt.ended_at or now
    )
    kind, severity = ("job.failed", "error") if state == "FAILED" else ("job.cancelled", "info")
    return new, (Note(kind, reason, "error" if severity == "error" else "info"),)
