"""The life of a job, as a pure state machine.

`handle(job, event, now)` gives the next job, the effects that are now wanted, and notes for people.
It never touches a clock, a database or a network. Effects are derived from the state alone
(`effects_of`), so after a crash they are simply derived again: every one is idempotent, and an event
only ever moves the state.

                    Placed            Granted            all parts staged
        QUEUED ──────────────▶ PLACING ──────▶ STAGING ──────────────────▶ RUNNING
          ▲  ▲                    │ Refused       │                           │ every part done
          │  └────────────────────┘               │ a part failed, was lost,  ▼
          │                                       │ Cancel, Timeout        SUCCEEDED
          │ restarts or losses left               ▼                           ▲
          └─────────────────────────────────── STOPPING ──▶ FAILED · CANCELLED│
                                                  └───────────────────────────┘
An attempt ends only when every part is confirmed ended, or gone (its lease has run out, so its guard
has stopped the ranks by itself). That is what keeps two copies of a gang from ever running.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from jobs.errors import Conflict
from jobs.states import JobState
from jobs.views import AttemptState
from jobs.vocabulary import (
    Attempt,
    Cancel,
    Effect,
    Ending,
    Event,
    Failure,
    Gone,
    Granted,
    Job,
    Launch,
    Note,
    Part,
    Phase,
    Placed,
    Refused,
    Release,
    Released,
    Reported,
    Reserve,
    Retry,
    Stage,
    Staged,
    StageFailed,
    Stalled,
    Stop,
    Timeout,
    Unstalled,
)

__all__ = [
    "MAX_LOSSES",
    "RESTART_BACKOFF",
    "Attempt",
    "Cancel",
    "Effect",
    "Ending",
    "Event",
    "Failure",
    "Gone",
    "Granted",
    "IllegalTransition",
    "Job",
    "Launch",
    "Note",
    "Part",
    "Phase",
    "Placed",
    "Refused",
    "Release",
    "Released",
    "Reported",
    "Reserve",
    "Result",
    "Retry",
    "Stage",
    "StageFailed",
    "Staged",
    "Stalled",
    "Stop",
    "Timeout",
    "Unstalled",
    "effects_of",
    "handle",
]

MAX_LOSSES = 10
"""How often a job may lose its attempt to the infrastructure (a node, a guard, a lease) before it
fails. It does not count against `max_restarts`: that budget is for the script's own failures. A job
that loses ten is more likely to be what kills the nodes."""

SAME_EVENT = 10.0
"""Seconds within which the failure of a rank and the silence of another node of its gang are one event:
a rank whose peer's host is gone fails too, at once or when its collective times out."""

RESTART_BACKOFF = (0.0, 5.0, 15.0, 60.0)
"""Seconds before the n-th restart; the last value holds from there on."""


@dataclass(frozen=True, slots=True)
class Result:
    job: Job
    effects: tuple[Effect, ...]
    notes: tuple[Note, ...]


class IllegalTransition(Conflict):
    """An event that the job's state has no place for. The caller adds the job's story."""

    def __init__(self, job: Job, event: Event) -> None:
        super().__init__(
            f"j{job.id} is {job.state.lower()}: {_WANTS.get(type(event), 'this')} is not possible",
            "See `qd job` for its story.",
        )


_WANTS: dict[type, str] = {Cancel: "cancelling it", Retry: "retrying it", Placed: "placing it"}


def effects_of(job: Job) -> tuple[Effect, ...]:
    """Everything that should be made true now, from the state alone."""
    attempt = job.attempt
    if attempt is None:
        return ()
    if attempt.state == "PLACING":
        return (Reserve(tuple(part.node for part in attempt.parts)),)
    if attempt.state == "STAGING":
        return tuple(
            Stage(part.node, rank)
            for rank, part in enumerate(attempt.parts)
            if part.phase == "pending"
        )
    if attempt.state == "RUNNING":
        return tuple(
            Launch(part.node, rank)
            for rank, part in enumerate(attempt.parts)
            if part.phase == "staged"
        )
    if attempt.state == "STOPPING":
        reason = "gang" if attempt.ending in ("failed", "stage", "lost") else attempt.ending
        return tuple(Stop(part.node, reason) for part in attempt.parts if not part.over)
    return () if attempt.released else (Release(attempt.epoch),)


def handle(job: Job, event: Event, now: float) -> Result:
    """Apply one event.

    Args:
        job: the job as stored.
        event: what happened.
        now: seconds since the epoch, used only for recorded times and back-off.

    Returns:
        The next job, the effects wanted in that state, and notes for its story. An event about an
        older attempt, or one that says what is known already, changes nothing.

    Raises:
        IllegalTransition: a request that makes no sense in this state.
    """
    epoch = getattr(event, "epoch", None)
    stale = epoch is not None and (
        not isinstance(event, Placed) and (job.attempt is None or job.attempt.epoch != epoch)
    )
    if stale:
        return Result(job, effects_of(job), ())
    handler = _TABLE.get((type(event), job.state))
    if handler is None:
        raise IllegalTransition(job, event)
    new, notes = handler(job, event, now)
    return Result(new, effects_of(new), notes)


# -- the table's entries --------------------------------------------------------------------------

_Next = tuple[Job, tuple[Note, ...]]


def _nothing(job: Job, event: Event, now: float) -> _Next:
    return job, ()


def _placed(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Placed)
    number = job.attempts + 1
    attempt = Attempt(
        number, event.epoch, "PLACING", tuple(Part(node) for node in event.nodes), placed_at=now
    )
    where = ", ".join(event.nodes)
    new = replace(job, state="PLACING", reason=f"on {where}", attempt=attempt, attempts=number)
    return new, (Note("job.placed", f"attempt {number} placed on {where}"),)


def _granted(job: Job, event: Event, now: float) -> _Next:
    return _with(job, "STAGING", _live(job)), ()


def _refused(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Refused)
    # Nothing was staged, so nothing can run: the attempt is forgotten and its number used again.
    # Its epoch is not, which is what the agents look at.
    back = replace(
        job,
        state="QUEUED",
        reason=event.reason,
        attempt=None,
        attempts=job.attempts - 1,
        not_before=now + 1.0,
    )
    return back, (Note("job.requeued", f"not placed: {event.reason}", "warning"),)


def _staged(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Staged)
    attempt = _set_part(_live(job), event.node, phase="staged", only_from=("pending",))
    if all(part.phase == "staged" for part in attempt.parts):
        attempt = replace(attempt, started_at=now)
        new = _with(job, "RUNNING", attempt)
        return replace(new, started_at=job.started_at or now, reason=""), (
            Note("job.running", f"attempt {attempt.number} starts on {_nodes(attempt)}"),
        )
    return replace(job, attempt=attempt), ()


def _stage_failed(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, StageFailed)
    failure = Failure(event.node, event.reason, None, now)
    ending: Ending = "lost" if event.blame == "node" else "stage"
    return _stopping(job, ending, failure, now, f"{event.node}: {event.reason}")


def _reported(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Reported)
    attempt = _live(job)
    if event.phase == "staged":
        return job, ()
    changed = _set_part(attempt, event.node, phase=event.phase, outcome=event.outcome)
    if changed == attempt:
        return job, ()
    job = replace(job, attempt=changed)
    if event.phase != "ended":
        return job, ()
    if event.outcome == "done":
        return _finish_if_over(job, now)
    failure = None
    if event.first_failed is not None or event.outcome == "failed":
        failure = Failure(
            event.node, event.reason, event.first_failed, event.first_failed_at or now
        )
    elif event.outcome in ("died", "fenced"):
        failure = Failure(event.node, event.reason or event.outcome, None, now)
    if job.state == "STOPPING":
        # A rank that fails because its peers were stopped is not the cause; one that failed earlier
        # on another node, whose report came later, is.
        if event.outcome in ("died", "fenced") and failure is not None:
            return _finish_if_over(_lost_after_all(job, failure, None), now)
        return _finish_if_over(_earlier_failure(job, failure), now)
    ending: Ending = "lost" if event.outcome in ("died", "fenced") else "failed"
    return _stopping(job, ending, failure, now, event.reason)


def _gone(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Gone)
    attempt = _live(job)
    changed = _set_part(attempt, event.node, phase="gone", outcome="gone")
    if changed == attempt:
        return job, ()
    job = replace(job, attempt=changed)
    failure = Failure(event.node, event.reason, None, now)
    if job.state == "STOPPING":
        heard = None if event.silent is None else now - event.silent
        return _finish_if_over(_lost_after_all(job, failure, heard), now)
    return _stopping(job, "lost", failure, now, f"{event.node}: {event.reason}")


def _cancel_queued(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Cancel)
    new = replace(
        job, state="CANCELLED", cancel=True, reason=f"cancelled by {event.user}", ended_at=now
    )
    return new, (Note("job.cancelled", f"cancelled by {event.user}", user=event.user),)


def _cancel_live(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Cancel)
    if job.cancel:
        return job, ()
    note = Note("job.cancel", f"{event.user} asked to cancel it", user=event.user)
    job = replace(job, cancel=True)
    if job.state == "STOPPING":  # it may have been on its way to a restart: no more
        return replace(job, reason=f"cancelled by {event.user}"), (note,)
    new, notes = _stopping(job, "cancelled", None, now, f"cancelled by {event.user}")
    return new, (note, *notes)


def _timeout(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Timeout)
    text = f"ran longer than its timeout of {event.limit:g} s"
    return _stopping(job, "timeout", None, now, text)


def _stalled(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Stalled)
    note = Note("job.stalled", event.reason, "warning", node=event.node)
    if event.action == "warn":
        return (job, ()) if job.stalled else (replace(job, reason=event.reason), (note,))
    if event.action == "fail":
        job = replace(job, restarts_left=0)
    failure = Failure(event.node, event.reason, None, now)
    new, notes = _stopping(job, "stalled", failure, now, event.reason)
    return new, (note, *notes)


def _unstalled(job: Job, event: Event, now: float) -> _Next:
    if not job.stalled:
        return job, ()
    return replace(job, reason=""), (Note("job.unstalled", "its ranks write again"),)


def _retry(job: Job, event: Event, now: float) -> _Next:
    assert isinstance(event, Retry)
    new = replace(
        job,
        state="QUEUED",
        reason="",
        cancel=False,
        restarts_left=job.max_restarts,
        losses=0,
        not_before=0.0,
        ended_at=None,
    )
    return new, (Note("job.retried", f"retried by {event.user}", user=event.user),)


def _released(job: Job, event: Event, now: float) -> _Next:
    return replace(job, attempt=replace(_live(job), released=True)), ()


# -- their parts ----------------------------------------------------------------------------------


def _live(job: Job) -> Attempt:
    assert job.attempt is not None, f"j{job.id} is {job.state} without an attempt"
    return job.attempt


def _nodes(attempt: Attempt) -> str:
    return ", ".join(part.node for part in attempt.parts)


def _with(job: Job, state: Literal["STAGING", "RUNNING", "STOPPING"], attempt: Attempt) -> Job:
    return replace(job, state=state, attempt=replace(attempt, state=state))


def _set_part(
    attempt: Attempt,
    node: str,
    *,
    phase: Phase,
    outcome: str = "",
    only_from: tuple[Phase, ...] | None = None,
) -> Attempt:
    """The attempt with one part moved on; a part never moves back from where it ended."""

    def moved(part: Part) -> Part:
        if part.node != node or part.over or (only_from and part.phase not in only_from):
            return part
        return replace(part, phase=phase, outcome=outcome or part.outcome)

    return replace(attempt, parts=tuple(moved(part) for part in attempt.parts))


def _earlier_failure(job: Job, failure: Failure | None) -> Job:
    attempt = _live(job)
    if failure is None or failure.rank is None or attempt.ending not in ("failed", "lost"):
        return job
    known = attempt.failure
    if known is None or known.rank is None or failure.at < known.at:
        return replace(job, attempt=replace(attempt, failure=failure))
    return job


def _lost_after_all(job: Job, loss: Failure, heard: float | None) -> Job:
    """A gang that stops because a rank has failed, with what is now known of another of its nodes: it
    was gone by then, which is why the rank failed. That is no fault of the script.

    Args:
        loss: the node that is gone, and why.
        heard: when it was last heard of, unix time; None when nobody knows.
    """
    attempt = _live(job)
    known = attempt.failure
    if attempt.ending != "failed" or known is None or known.node == loss.node:
        return job
    if heard is not None and heard > known.at + SAME_EVENT:
        return job
    reason = f"{loss.node}: {loss.reason}; then on {known.node}: {known.reason}"
    return replace(job, reason=reason, attempt=replace(attempt, ending="lost", failure=loss))


def _stopping(job: Job, ending: Ending, failure: Failure | None, now: float, reason: str) -> _Next:
    attempt = replace(_live(job), ending=ending, failure=failure)
    new = replace(_with(job, "STOPPING", attempt), reason=reason)
    severity: Literal["info", "warning"] = "info" if ending == "cancelled" else "warning"
    note = Note("job.stopping", f"attempt {attempt.number} stops: {reason}", severity)
    final, more = _finish_if_over(new, now)
    return final, (note, *more)


def _finish_if_over(job: Job, now: float) -> _Next:
    attempt = _live(job)
    if not all(part.over for part in attempt.parts):
        return job, ()
    attempt = replace(attempt, ended_at=now)
    if all(part.outcome == "done" for part in attempt.parts):
        done = replace(attempt, state="SUCCEEDED", ending="")
        new = replace(job, state="SUCCEEDED", reason="", attempt=done, ended_at=now)
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
        if losses > MAX_LOSSES:
            text = f"lost {losses} attempts to the infrastructure, last: {job.reason}"
            return _end(job, replace(attempt, state=state), "FAILED", text, now)
        return _again(replace(job, losses=losses), replace(attempt, state=state), now)
    if job.restarts_left > 0:
        job = replace(job, restarts_left=job.restarts_left - 1)
        return _again(job, replace(attempt, state="FAILED"), now)
    return _end(job, replace(attempt, state="FAILED"), "FAILED", job.reason, now)


def _again(job: Job, attempt: Attempt, now: float) -> _Next:
    delay = RESTART_BACKOFF[min(attempt.number - 1, len(RESTART_BACKOFF) - 1)]
    text = f"restarts after attempt {attempt.number}: {job.reason}"
    new = replace(job, state="QUEUED", reason=text, attempt=attempt, not_before=now + delay)
    note = Note(
        "job.restart", f"attempt {attempt.number} {attempt.state.lower()}; {text}", "warning"
    )
    return new, (note,)


def _end(
    job: Job, attempt: Attempt, state: Literal["FAILED", "CANCELLED"], reason: str, now: float
) -> _Next:
    new = replace(job, state=state, reason=reason, attempt=attempt, ended_at=now)
    kind, severity = ("job.failed", "error") if state == "FAILED" else ("job.cancelled", "info")
    return new, (Note(kind, reason, "error" if severity == "error" else "info"),)


_Handler = Callable[[Job, Event, float], _Next]

_LIVE: tuple[JobState, ...] = ("STAGING", "RUNNING", "STOPPING")
_ENDED: tuple[JobState, ...] = ("SUCCEEDED", "FAILED", "CANCELLED")

_TABLE: dict[tuple[type, JobState], _Handler] = {
    (Placed, "QUEUED"): _placed,
    (Granted, "PLACING"): _granted,
    (Granted, "STOPPING"): _nothing,  # cancelled while the reservation was under way
    (Refused, "PLACING"): _refused,
    (Refused, "STOPPING"): _nothing,
    (Staged, "STAGING"): _staged,
    (Staged, "RUNNING"): _nothing,
    (Staged, "STOPPING"): _nothing,
    (StageFailed, "STAGING"): _stage_failed,
    (StageFailed, "STOPPING"): _nothing,
    **{(Reported, state): _reported for state in _LIVE},
    **{(Reported, state): _nothing for state in ("PLACING", "QUEUED", *_ENDED)},
    **{(Gone, state): _gone for state in ("PLACING", *_LIVE)},
    **{(Gone, state): _nothing for state in ("QUEUED", *_ENDED)},
    (Cancel, "QUEUED"): _cancel_queued,
    **{(Cancel, state): _cancel_live for state in ("PLACING", *_LIVE)},
    **{(Timeout, state): _timeout for state in ("STAGING", "RUNNING")},
    **{(Timeout, state): _nothing for state in ("QUEUED", "PLACING", "STOPPING", *_ENDED)},
    (Stalled, "RUNNING"): _stalled,
    (Unstalled, "RUNNING"): _unstalled,
    **{
        (event, state): _nothing
        for event in (Stalled, Unstalled)
        for state in ("QUEUED", "PLACING", "STAGING", "STOPPING", *_ENDED)
    },
    **{(Retry, state): _retry for state in _ENDED},
    **{(Released, state): _released for state in ("QUEUED", *_ENDED)},
    **{(Released, state): _nothing for state in ("PLACING", *_LIVE)},
}
"""What each event does in each state. A pair that is not here is an illegal transition."""
