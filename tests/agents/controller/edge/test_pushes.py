"""Pushes while the head itself cannot go on: its registry or its store of blobs is full, or away."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from agents.controller.edge import ssh
from agents.controller.edge.pushes import Pushes
from agents.controller.stores.blobs import FolderBlobs
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from jobs.base.errors import StorageFull, Unreachable
from jobs.edge import push as machine
from jobs.edge.fleet import Fleet, Host
from jobs.edge.push import At, Push
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store.edgetables import EdgePushRow

URL = "ssh://shop1/opt/model"


class Registry:
    """`refuses` says for each write whether there is no room."""

    def __init__(self, refuses: Callable[[int], bool]) -> None:
        self.writes, self._refuses = 0, refuses

    async def write(self, fn: Callable[[Any], Any]) -> list[Any]:
        self.writes += 1
        if self._refuses(self.writes):
            raise StorageFull("the registry cannot be written: disk full")
        return []


class Blobs(FolderBlobs):
    away = 0

    def local(self, digest: str) -> Path:
        if self.away > 0:
            self.away -= 1
            raise Unreachable("the object storage does not answer")
        return super().local(digest)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the host, of which all goes well."""
    scripts: list[str] = []

    async def ended(host: Host, script: str, **_: object) -> tuple[int, list[str]]:
        scripts.append(script)
        return 0, ["0"] if "wc -c < " in script and "while read" in script else []

    monkeypatch.setattr(ssh, "ended", ended)
    return scripts


async def pushed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuses: Callable[[int], bool] = lambda number: False,
    away: int = 0,
) -> tuple[Push, list[float]]:
    """A push of one file to one host until it is over; how long it waited between tries."""
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        assert len(waits) < 50
        await real(0)

    blobs = Blobs(tmp_path)
    data = b"model"
    digest = sha256(data).hexdigest()
    blobs.put(digest, io.BytesIO(data))
    manifest = Manifest.of([FileEntry("model.bin", 0o644, len(data), digest)])
    blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
    blobs.away = away
    row = EdgePushRow(
        id=7, fleet="shops", model="digits", version="digits:3", digest=manifest.digest,
        spec=Fleet(name="shops", hosts=(URL,)).to_json(),
        state=machine.to_json(Push(7, "shops", "digits:3", len(data), {URL: At(0)})),
        user="ann", uid=1, created_at=0.0, changed_at=0.0,
    )  # fmt: skip
    # A host has the patience of one look at the clock, and not of two.
    looks = itertools.count(0, 1_000)
    made = Pushes(
        cast("Database", Registry(refuses)), Hub(), blobs,
        now=lambda: 0.0, monotonic=lambda: float(next(looks)), tell=lambda source, text: None,
    )  # fmt: skip
    kept = made._keep(row)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    running = asyncio.create_task(made.run())
    while not kept.push.over:
        assert not running.done()
        await real(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return kept.push, waits


async def test_a_registry_that_is_full_fails_no_host_and_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    push, waits = await pushed(tmp_path, monkeypatch, lambda number: number <= 6)
    assert push.phase == "done"
    assert waits, "what cannot be stored is not done again at once"


async def test_blobs_that_are_away_fail_no_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    push, _ = await pushed(tmp_path, monkeypatch, away=3)
    assert push.phase == "done"
