"""A rank's log as it lies on disk: from an offset, up to a limit, and on while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from jobs.base.errors import Unreachable
from tests.agents.controller.conftest import Plane, until

RAW = "/v1/jobs/{}/logs/0/raw"


async def test_a_piece_is_what_was_asked_for(plane: Plane) -> None:
    job = await plane.submit("printf 'one\\n\\377\\000two\\n'")
    await plane.wait(job)
    whole = b"one\n\xff\x00two\n"
    for offset, limit in ((0, 1), (0, 99), (4, 3), (len(whole), 5), (99, 5)):
        data, headers = await asyncio.to_thread(
            plane.client.raw, RAW.format(job), offset=offset, limit=limit
        )
        assert (data, headers["X-Size"]) == (whole[offset : offset + limit], str(len(whole)))


async def test_a_log_is_longer_than_a_piece(plane: Plane) -> None:
    job = await plane.submit("seq 400000")
    await plane.wait(job)
    data, _ = await asyncio.to_thread(plane.client.raw, RAW.format(job), limit=1 << 40)
    assert data == b"".join(b"%d\n" % n for n in range(1, 400001))


async def test_followed_it_ends_with_its_attempt(plane: Plane) -> None:
    gate = plane.root / "gate"
    job = await plane.submit(f"echo one; while ! test -e {gate}; do sleep 0.05; done; echo two")
    await plane.wait(job, "RUNNING")
    came: list[bytes] = []
    following = asyncio.create_task(
        asyncio.to_thread(plane.client.copy, RAW.format(job), came.append, follow=True)
    )
    await until(lambda: came == [b"one\n"])
    gate.touch()
    await following
    assert b"".join(came) == b"one\ntwo\n"


async def test_a_log_that_was_cut_from_outside_is_not_taken_for_whole(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await plane.submit("echo one")
    await plane.wait(job)
    size: Callable[..., Any] = plane.controller.logs.size
    monkeypatch.setattr(plane.controller.logs, "size", lambda *of: size(*of) + 5)
    with pytest.raises(Unreachable):
        await asyncio.to_thread(plane.client.copy, RAW.format(job), lambda _: None)
