"""A job that makes no progress looks like one wherever it is shown, and a hint is never the only sign."""

from __future__ import annotations

import time
from typing import cast

from console.tui.core.base.world import World
from console.tui.core.cluster.happenings import alert_line, alerts
from console.tui.core.cluster.queue import queue_line
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import Line
from console.tui.core.jobs import job as job_screen
from console.tui.core.jobs import jobs as job_list
from jobs.wire.views import JobView
from tests.console.tui import fake_views

REASON = "rank 3 has been silent for 4m"


def _jobs() -> tuple[JobView, JobView]:
    well = fake_views.job(7, "RUNNING", reason="")
    return well, cast(JobView, {**well, "stalled": True, "reason": REASON})


def _spans(shown: Line) -> list[tuple[str, str]]:
    return [(span.text.strip(), span.tone) for span in shown if span.text.strip()]


def test_it_is_an_alert_that_stays_one_row() -> None:
    well, stalled = _jobs()
    now = time.time()
    assert alerts(World(jobs={well["id"]: well}), now) == []
    (found,) = alerts(World(jobs={stalled["id"]: stalled}), now)
    assert (found.severity, found.name) == ("error", "j7")
    assert REASON in "".join(span.text for span in alert_line(found, 80, UNICODE))
    later = cast(JobView, {**stalled, "reason": "rank 3 has been silent for 5m"})
    (again,) = alerts(World(jobs={later["id"]: later}), now)
    assert again.key == found.key


def test_its_shape_and_tone_differ_from_a_job_that_is_well() -> None:
    well, stalled = _jobs()
    now = time.time()
    for glyphs in (UNICODE, ASCII):
        lines = [_spans(queue_line(job, now, 100, glyphs)) for job in (well, stalled)]
        assert lines[0][0] == (glyphs.running, "ok")
        assert lines[1][0] == (glyphs.warn, "warn")
        assert (REASON, "warn") in lines[1]
        cells = [job_list._state(job, now, glyphs) for job in (well, stalled)]
        assert cells == [
            (f"{glyphs.running} RUNNING", "ok"),
            (f"{glyphs.warn} STALLED", "warn"),
        ]
        heads = [
            [span for shown in job_screen.summary(job, now, 100, glyphs) for span in _spans(shown)]
            for job in (well, stalled)
        ]
        assert (f"{glyphs.warn} STALLED", "warn") in heads[1]
        assert (f"{glyphs.running} RUNNING", "ok") in heads[0]
