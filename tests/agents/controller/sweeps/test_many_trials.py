"""Sweeps of very many trials: read page by page, told in the same shapes as ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents.controller.api import common
from agents.controller.stores.database import Database
from jobs.store import sweepreading
from tests.agents.controller.conftest import Plane
from tests.agents.controller.sweeps.test_sweeps import ended, sweep, trials
from tests.bench import bigstudy


async def test_pages_make_up_the_whole(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await sweep(plane, trials=7, parallel=4, enqueue=[{"x": 0.5, "kind": "a"}])
    await ended(plane, name)
    whole = await trials(plane, name)
    assert [row["number"] for row in whole] == list(range(7))
    for size in (1, 3, 7):  # the last page is empty, short, and full
        monkeypatch.setattr(common, "TRIALS_AT_ONCE", size)
        assert await trials(plane, name) == whole
        state = await watched(plane, name)
        assert [delta["op"] for delta in state] == ["reset", *["put"] * 8, "ready"]
        assert state[1]["key"] == name, "the sweep comes before its trials"
        assert [delta["value"] for delta in state[2:-1]] == whole


async def test_no_trials_are_an_empty_list() -> None:
    async def pages() -> AsyncIterator[bytes]:
        for page in ([], [1, {"a": "ü"}], [], [2]):
            yield common.inside(page)

    async def none() -> AsyncIterator[bytes]:
        yield common.inside([])

    assert [await told(pages()), await told(none())] == [[1, {"a": "ü"}, 2], []]


async def told(pages: AsyncIterator[bytes]) -> Any:
    """The document that comes of pages."""
    parts = [part async for part in common.json_list(pages).body_iterator]
    return json.loads(b"".join(part for part in parts if isinstance(part, bytes)))


async def watched(plane: Plane, name: str) -> list[dict[str, Any]]:
    """The state of a sweep's topic."""

    def read() -> list[dict[str, Any]]:
        found = []
        with plane.client.stream("/v1/watch", topics=f"sweep:{name}") as stream:
            for delta in stream:
                if delta["topic"]:
                    found.append(delta)
                if delta["op"] == "ready" and delta["topic"]:
                    break
        return found

    return await asyncio.to_thread(read)


async def test_a_page_is_what_lies_after_a_number(tmp_path: Path) -> None:
    await bigstudy._registry(
        url := f"sqlite:///{tmp_path / 'state.db'}", [{"x": 0.5, "y": 0.5}] * 9
    )
    database = Database.open(url)

    async def numbers(**which: Any) -> list[int]:
        found = await database.read(lambda s: sweepreading.trial_views(s, 1, 1.8e9, **which))
        return [view["number"] for view in found]

    assert await numbers() == list(range(9))
    assert await numbers(after=3, limit=2) == [4, 5]
    assert await numbers(after=8, limit=2) == []
    assert await numbers(only=[7, 2]) == [2, 7]
    database.close()
