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
An attempt ends only when every allocation is confirmed ended, or gone (its lease has run out, so its guard
has stopped the ranks by itself; or its machine is known to have gone down). That is what keeps two copies
of a gang from ever running.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from jobs.base.errors import Conflict
from jobs.base.states import JobState
from jobs.life import endings
from jobs.life.endings import MAX_LOSSES, RESTART_BACKOFF, Next
from jobs.life.vocabulary import (
    Allocation,
    Attempt,
    Cancel,
    ClockSet,
    Effect,
    Ending,
    Event,
    Failure,
    Gone,
    Granted,
    Job,
    Launch,
    Note,
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
    "Allocation",
    "Attempt",
    "Cancel",
    "ClockSet",
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


@dataclass(frozen=True, slots=True)
class Result:
    job: Job
    effects: tuple[Effect, ...]
    notes: tuple[Note, ...]


class IllegalTransition(Conflict):
    """An event that the job's state has no place for. A request adds how the job came to that state."""

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
        return (Reserve(tuple(one.node for one in attempt.allocations)),)
    if attempt.state == "STAGING":
        return tuple(
            Stage(allocation.node, rank)
            for rank, allocation in enumerate(attempt.allocations)
            if allocation.phase == "pending"
        )
    if attempt.state == "RUNNING":
        return tuple(
            Launch(allocation.node, rank)
            for rank, allocation in enumerate(attempt.allocations)
            if allocation.phase == "staged"
        )
    if attempt.state == "STOPPING":
        reason = "gang" if attempt.ending in ("failed", "stage", "lost") else attempt.ending
        return tuple(Stop(one.node, reason) for one in attempt.allocations if not one.over)
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


def _nothing(job: Job, event: Event, now: float) -> Next:
    return job, ()


def _placed(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, Placed)
    number = event.number or job.attempts + 1
    attempt = Attempt(
        number,
        event.epoch,
        "PLACING",
        tuple(Allocation(node) for node in event.nodes),
        placed_at=now,
        identity=event.identity,
        waits=event.waits,
    )
    where = ", ".join(event.nodes)
    new = replace(job, state="PLACING", reason=f"on {where}", attempt=attempt, attempts=number)
    return new, (Note("job.placed", f"attempt {number} placed on {where}"),)


def _granted(job: Job, event: Event, now: float) -> Next:
    return endings.moved_to(job, "STAGING", endings.live(job)), ()


def _refused(job: Job, event: Event, now: float) -> Next:
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


def _staged(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, Staged)
    attempt = endings.set_part(
        endings.live(job), event.node, phase="staged", only_from=("pending",), boot=event.boot
    )
    if all(one.phase == "staged" for one in attempt.allocations):
        attempt = replace(attempt, started_at=now)
        new = endings.moved_to(job, "RUNNING", attempt)
        return replace(new, started_at=job.started_at or now, reason=""), (
            Note("job.running", f"attempt {attempt.number} starts on {endings.nodes_of(attempt)}"),
        )
    return replace(job, attempt=attempt), ()


def _stage_failed(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, StageFailed)
    failure = Failure(event.node, event.reason, None, now)
    ending: Ending = "lost" if event.blame == "node" else "stage"
    return endings.stopping(job, ending, failure, now, f"{event.node}: {event.reason}")


def _reported(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, Reported)
    attempt = endings.live(job)
    if event.phase == "staged":
        return job, ()
    ran = event.ran if event.phase == "ended" else None
    changed = endings.set_part(
        attempt, event.node, phase=event.phase, outcome=event.outcome, ran=ran
    )
    if changed == attempt:
        return job, ()
    job = replace(job, attempt=changed)
    if event.phase != "ended":
        return job, ()
    if event.outcome == "done":
        return endings.finish_if_over(job, now)
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
            return endings.finish_if_over(endings.lost_after_all(job, failure, None), now)
        return endings.finish_if_over(endings.earlier_failure(job, failure), now)
    # "stopped" though nobody asked: its machine shuts down, or an operator ended the guard.
    ending: Ending = "lost" if event.outcome in ("died", "fenced", "stopped") else "failed"
    if event.outcome == "stopped" and failure is None:
        failure = Failure(event.node, event.reason, None, now)
    return endings.stopping(job, ending, failure, now, event.reason)


def _gone(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, Gone)
    attempt = endings.live(job)
    changed = endings.set_part(attempt, event.node, phase="gone", outcome="gone")
    if changed == attempt:
        return job, ()
    job = replace(job, attempt=changed)
    failure = Failure(event.node, event.reason, None, now)
    if job.state == "STOPPING":
        heard = None if event.silent is None else now - event.silent
        return endings.finish_if_over(endings.lost_after_all(job, failure, heard), now)
    return endings.stopping(job, "lost", failure, now, f"{event.node}: {event.reason}")


def _cancel_queued(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, Cancel)
    new = replace(
        job, state="CANCELLED", cancel=True, reason=f"cancelled by {event.user}", ended_at=now
    )
    return new, (Note("job.cancelled", f"cancelled by {event.user}", user=event.user),)


def _cancel_live(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, Cancel)
    if job.cancel:
        return job, ()
    note = Note("job.cancel", f"{event.user} asked to cancel it", user=event.user)
    job = replace(job, cancel=True)
    if job.state == "STOPPING":  # it may have been on its way to a restart: no more
        return replace(job, reason=f"cancelled by {event.user}"), (note,)
    new, notes = endings.stopping(job, "cancelled", None, now, f"cancelled by {event.user}")
    return new, (note, *notes)


def _timeout(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, Timeout)
    text = f"ran longer than its timeout of {event.limit:g} s"
    return endings.stopping(job, "timeout", None, now, text)


def _stalled(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, Stalled)
    note = Note("job.stalled", event.reason, "warning", node=event.node)
    if event.action == "warn":
        return (job, ()) if job.stalled else (replace(job, reason=event.reason), (note,))
    if event.action == "fail":
        job = replace(job, restarts_left=0)
    failure = Failure(event.node, event.reason, None, now)
    new, notes = endings.stopping(job, "stalled", failure, now, event.reason)
    return new, (note, *notes)


def _unstalled(job: Job, event: Event, now: float) -> Next:
    if not job.stalled:
        return job, ()
    return replace(job, reason=""), (Note("job.unstalled", "its ranks write again"),)


def _retry(job: Job, event: Event, now: float) -> Next:
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


def _clock_set(job: Job, event: Event, now: float) -> Next:
    assert isinstance(event, ClockSet)
    attempt = job.attempt
    if attempt is not None and attempt.started_at is not None and attempt.ended_at is None:
        attempt = replace(attempt, started_at=attempt.started_at + event.seconds)
    return replace(
        job,
        attempt=attempt,
        started_at=None if job.started_at is None else job.started_at + event.seconds,
        not_before=job.not_before + event.seconds if job.not_before else 0.0,
    ), ()


def _released(job: Job, event: Event, now: float) -> Next:
    return replace(job, attempt=replace(endings.live(job), released=True)), ()


_Handler = Callable[[Job, Event, float], Next]

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
    **{(ClockSet, state): _clock_set for state in ("QUEUED", "PLACING", *_LIVE)},
    **{(ClockSet, state): _nothing for state in _ENDED},
}
"""What each event does in each state. A pair that is not here is an illegal transition."""
