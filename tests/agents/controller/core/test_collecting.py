"""What a job leaves behind is fetched from one node while the others of its gang end as they like."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.controller.core import collecting
from agents.controller.core.collecting import Collected, Collector
from agents.controller.core.live import Live
from agents.controller.stores.blobs import FolderBlobs
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from jobs.spec.job import Output
from jobs.wire.messages import AgentClient, AttemptReport


class SlowNode:
    """Gives its file only when it is let."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def list_files(self, key: str, place: str, patterns: list[str], written: bool) -> Any:
        files = [{"path": path, "mode": 0o644, "size": 7, "mtime": 0.0} for path in patterns]
        return {"files": files, "more": 0, "until": None}

    async def read_file(self, key: str, place: str, path: str, offset: int, limit: int) -> bytes:
        self.asked.set()
        await self.go.wait()
        return b"weights"[offset : offset + limit]


def _live() -> Live:
    spec = SimpleNamespace(
        outputs={"model": Output(path="m.bin")}, checkpoint=SimpleNamespace(artifact=False)
    )
    job = SimpleNamespace(id=1, attempt=SimpleNamespace(epoch=7))
    return cast(Live, SimpleNamespace(job=job, spec=spec))


def _report(rank: int) -> AttemptReport:
    report: dict[str, Any] = {"key": "c-j1.1", "outcome": "done", "ranks": [{"rank": rank}]}
    return cast(AttemptReport, report)


async def test_a_fetch_goes_on_when_another_node_of_the_gang_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keyed by the attempt alone, the other node's end cancelled it, and with it the node's whole link."""
    monkeypatch.setattr(collecting, "PATIENCE", 0.0)
    collector = Collector(cast(Database, None), FolderBlobs(tmp_path), Hub(), lambda: 0.0)
    node, live = SlowNode(), _live()
    agent = cast(AgentClient, node)

    assert await collector.of("n1", live, agent, _report(0)) is None
    await node.asked.wait()
    assert await collector.of("n3", live, agent, _report(1)) == Collected()
    collector.drop("n3", "c-j1.1")

    assert collector.busy("n1", "c-j1.1") and not collector.busy("n3", "c-j1.1")
    node.go.set()
    monkeypatch.setattr(collecting, "PATIENCE", 60.0)
    found = await collector.of("n1", live, agent, _report(0))
    assert found is not None and [(row.name, row.size) for row in found.rows] == [("model", 7)]
    await collector.close()


async def test_a_fetch_that_was_cancelled_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector(cast(Database, None), FolderBlobs(tmp_path), Hub(), lambda: 0.0)
    node, live = SlowNode(), _live()
    asking = asyncio.create_task(collector.of("n1", live, cast(AgentClient, node), _report(0)))
    await node.asked.wait()
    collector.drop("n1", "c-j1.1")
    assert await asking is None
    node.go.set()
    found = await collector.of("n1", live, cast(AgentClient, node), _report(0))
    assert found is not None and len(found.rows) == 1
    await collector.close()
