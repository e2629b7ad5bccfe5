"""The last copy of a job that is over, of which nobody asks again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.controller.core.copying import Copier, _Job
from agents.controller.nodes.links import Links
from agents.controller.stores.copies import Bounds, Copies
from agents.controller.stores.hub import Hub
from jobs.base.errors import Unreachable


async def test_why_the_last_copy_failed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def away(node: str) -> None:
        raise Unreachable(f"{node} does not answer")

    async def copied(*_: object) -> None:
        raise AssertionError

    copier = Copier(
        cast("Copies", SimpleNamespace(bounds=Bounds(), done=done.append)),
        cast("Links", SimpleNamespace(agent=away)),
        Hub(),
        now=lambda: 0.0,
        monotonic=lambda: 0.0,
        tell=lambda source, text: None,
        here=lambda node: False,
        copied=copied,
    )
    live: Any = SimpleNamespace(job=SimpleNamespace(id=4), spec=SimpleNamespace(copying="all"))
    await copier._last(live, _Job("k", 1, ("n1",)))
    assert done == [4]
    assert "j4 are not copied: n1 does not answer" in caplog.text
