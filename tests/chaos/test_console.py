"""The console stays open while the controller is killed: it says so, keeps what it has, and goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psutil
import pytest

from console.client import Client
from console.tui.app import QuarterdeckApp
from console.tui.core.draw.lines import plain
from console.tui.screens.job import JobScreen
from console.tui.source import LiveSource
from console.tui.widgets.lines import LineView
from tests.chaos.cluster import Cluster
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


def badge(app: QuarterdeckApp) -> str:
    return plain(app.screen.query_one("#header", LineView).line_at(0))


async def shown(look: Callable[[], bool], what: str, patience: float = PATIENCE) -> float:
    """Seconds until it is so."""
    begin = time.monotonic()
    while not look():
        assert time.monotonic() - begin < patience, what
        await asyncio.sleep(0.02)
    return time.monotonic() - begin


async def test_the_console_goes_on_without_a_missing_line_or_event(cluster: Cluster) -> None:
    job = cluster.steady()
    source = LiveSource(Client(cluster.places.socket))
    app = QuarterdeckApp(source, start=job.id)
    async with app.run_test(size=(120, 36)):
        await shown(lambda: "live" in badge(app), "a live picture")
        screen = app.screen
        assert isinstance(screen, JobScreen)
        logs = screen.desks["logs"].logs
        await shown(lambda: logs.all_ranks is not None and logs.all_ranks.end > 20, "lines")
        victim = cluster.controller()
        victim.kill()
        psutil.wait_procs([victim], timeout=5)
        assert await shown(lambda: "reconnecting" in badge(app), "the badge") < 2.0
        assert "old" in badge(app)
        assert app.world.jobs[job.id]["state"] == "RUNNING"  # the last picture stays
        await shown(lambda: "live" in badge(app), "the way back")
        merged = logs.all_ranks
        assert merged is not None
        before = merged.end
        await shown(lambda: merged.end > before + 40, "its lines to come again")
        held = [(merged.rank(n), merged.text(n)) for n in range(merged.first, merged.end)]
        ids = [event["id"] for event in app.world.events]
    for rank in (0, 1):
        here = [text for of, text in held if of == rank]
        assert not [text for text in here if "bytes of r" in text]  # no note of a gap
        whole = cluster.log(job.id, 1, rank).splitlines()
        at = whole.index(here[0])
        assert here == whole[at : at + len(here)]
    assert ids == list(range(ids[0], ids[-1] + 1))
    cluster.finish(job)
