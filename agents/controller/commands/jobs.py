"""What people ask of a job that was submitted: to end it, or to run it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.controller.commands import submitting
from jobs.base.names import job_name
from jobs.life.lifecycle import IllegalTransition
from jobs.spec.job import JobSpec
from jobs.store import reading
from jobs.store.writing import Caller

if TYPE_CHECKING:
    from agents.controller.controller import Controller

_TOLD = 3
"""Events at the end of a job's story that a refusal tells."""


async def cancel(
    controller: Controller, number: int, who: Caller, grace: float | None = None
) -> None:
    """Stop a job for good, or take it out of the queue.

    Args:
        grace: see `Reconciler.cancel`.

    Raises:
        NotFound: no such job.
        IllegalTransition: it has ended; with the end of its story.
    """
    try:
        await controller.reconciler.cancel(number, who, grace)
    except IllegalTransition as error:
        await _tell(controller, number, error)
        raise


async def retry(controller: Controller, number: int, who: Caller) -> None:
    """Queue a finished job again.

    Raises:
        NotFound: no such job.
        IllegalTransition: it is not finished; with the end of its story.
        InvalidInput: what it begins with is not there any more.
    """
    spec = (await controller.job_detail(number))["spec"]
    await submitting.checkpoint_of(controller, JobSpec.from_json(spec))
    try:
        await controller.reconciler.retry(number, who)
    except IllegalTransition as error:
        await _tell(controller, number, error)
        raise


async def _tell(controller: Controller, number: int, error: IllegalTransition) -> None:
    """How the job came to where it is."""
    events = await controller.db.read(lambda s: reading.events(s, 0, _TOLD, number, newest=True))
    story = [f"{event['at'][11:19]} {event['message']}" for event in events]
    error.details["story"] = story
    whole = f"`qd explain {job_name(number)}` tells all of it."
    error.hint = "\n".join([*story, whole])
