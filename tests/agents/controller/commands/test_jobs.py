"""A refusal tells how the job came to where it is."""

from __future__ import annotations

import pytest

from jobs.base.errors import Conflict
from tests.agents.controller.conftest import Plane


async def test_what_a_job_has_no_place_for_is_refused_with_its_story(plane: Plane) -> None:
    job = await plane.submit("exit 3")
    await plane.wait(job, "FAILED")
    with pytest.raises(Conflict, match=f"{job} is failed: cancelling it is not possible") as caught:
        await plane.post(f"/v1/jobs/{job}/cancel")
    story = caught.value.details["story"]
    assert any("exit code 3" in line for line in story)
    assert caught.value.hint.splitlines() == [*story, f"`qd explain {job}` tells all of it."]

    job = await plane.submit("sleep 1000")
    with pytest.raises(Conflict, match=f"{job} is .*: retrying it is not possible"):
        await plane.post(f"/v1/jobs/{job}/retry")
    await plane.post(f"/v1/jobs/{job}/cancel")
    await plane.wait(job, "CANCELLED")
