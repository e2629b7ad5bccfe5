"""What the controller still holds of jobs that have ended."""

from __future__ import annotations

from tests.agents.controller.conftest import Plane, until


async def test_finished_jobs_leave_nothing_in_memory(plane: Plane) -> None:
    for _ in range(3):
        await plane.wait(await plane.submit("true"))
    controller = plane.controller
    link = controller.links.links["n1"]
    await until(lambda: not controller.reconciler.live)
    await until(lambda: not link.reports and not link.forget)  # the agent has let go of them too
    assert link.bounds == {}
    assert controller._intake._attempts == {}
    assert controller._intake._metric_offsets == {}
    assert controller.reconciler.reasons == {}
    assert controller.cluster.nodes["n1"].bindings == {}
