"""Events are read backwards, and searched in all that is recorded."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from jobs.base.errors import InvalidInput
from jobs.life.lifecycle import Note
from jobs.store import writing
from tests.agents.controller.conftest import Plane


async def test_older_events_come_by_page_text_and_level(plane: Plane) -> None:
    notes = [Note("test.tick", f"tick {n} of 100%", "info", node="n1") for n in range(30)]
    notes[7] = Note("test.bad", "the Needle broke", "error", node="n2")

    def write(session: Session) -> None:
        writing.add_events(session, None, notes, plane.controller.now())

    await plane.controller.db.write(write)
    every = await plane.lines("/v1/events?limit=1000")
    last = every[-1]["id"]
    page = await plane.lines(f"/v1/events?before={last}&limit=10")
    assert [one["id"] for one in page] == list(range(last - 10, last))
    for query in (
        "text=needle",
        "text=test.bad",
        "text=n2",
        "level=error",
        "text=n2&level=warning",
    ):
        found = await plane.lines(f"/v1/events?{query}")
        assert [one["message"] for one in found] == ["the Needle broke"], query
    assert len(await plane.lines("/v1/events?text=100%25&limit=1000")) == 29, "no pattern"
    with pytest.raises(InvalidInput, match="follow"):
        await plane.lines("/v1/events?level=error&follow=1")
