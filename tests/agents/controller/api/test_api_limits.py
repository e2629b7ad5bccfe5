"""What a caller may ask for, at the edges: an answer or a refusal in words, never a fault of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from agents.controller.api.limits import BodyLimit
from jobs.base.errors import InvalidInput, NotFound
from jobs.spec.job import JobSpec
from jobs.wire.version import HEADER, stamp
from tests.agents.controller.conftest import Plane

HUGE = 10**24


async def test_a_search_that_takes_years_holds_up_nobody(plane: Plane) -> None:
    job = await plane.submit(f"echo {'a' * 64}!; echo fine")
    await plane.wait(job)
    with pytest.raises(InvalidInput, match="takes too long"):
        await plane.lines(f"/v1/jobs/{job}/logs", grep="(a+)+$")
    assert (await plane.get("/v1/status"))["state"] == "ok"
    lines = await plane.lines(f"/v1/jobs/{job}/logs", grep="^f.n", follow=1)
    assert [line["line"] for line in lines] == ["fine"]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("logs", {"tail": HUGE}),
        ("logs", {"rank": 0, "offset": HUGE}),
        ("logs", {"attempt": HUGE}),
        ("logs", {"attempt": -1}),
        ("logs", {"grep": "a" * 10_000}),
        ("logs/0/raw", {"offset": HUGE}),
        ("logs/0/raw", {"attempt": -1}),
    ],
)
async def test_numbers_beyond_all_measure_are_refused(
    plane: Plane, path: str, query: dict[str, Any]
) -> None:
    job = await plane.submit("true")
    with pytest.raises(InvalidInput):
        await plane.get(f"/v1/jobs/{job}/{path}", **query)


async def test_logs_of_an_attempt_that_never_was_are_not_found(plane: Plane) -> None:
    job = await plane.submit("true")
    await plane.wait(job)
    for path in ("logs", "logs/0/raw"):
        with pytest.raises(NotFound, match="no attempt 9"):
            await plane.get(f"/v1/jobs/{job}/{path}", attempt=9)


async def test_an_unknown_path_is_refused_like_everything_else(plane: Plane) -> None:
    with pytest.raises(NotFound, match="there is no /v1/nonsense"):
        await plane.get("/v1/nonsense")


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000 + b"]" * 100_000, b"{", b'{"a":' + b"9" * 5000, b'{"spec": NaN}', b"[1e999]"],
    ids=["deep", "half", "long", "nan", "infinite"],
)
async def test_a_body_that_is_no_json_is_refused(plane: Plane, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        await asyncio.to_thread(plane.client.upload, "/v1/jobs", [body], "application/json")


async def test_a_body_is_not_taken_in_whole_before_it_is_refused(plane: Plane) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b" " * (1 << 20)

    with pytest.raises(InvalidInput, match="larger than 4 MiB"):
        await asyncio.to_thread(plane.client.upload, "/v1/jobs", endless(), "application/json")
    assert sent < 100


async def test_a_pack_has_its_own_limit() -> None:
    async def read_all(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    async def chunk() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 60, "more_body": False}

    app = BodyLimit(read_all, body=50, pack=100)
    await app({"type": "http", "path": "/v1/blobs"}, chunk, chunk)  # type: ignore[arg-type]
    with pytest.raises(HTTPException):
        await app({"type": "http", "path": "/v1/jobs"}, chunk, chunk)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        {"git": {"commit": {"not": "text"}}},
        {"secrets": {"TOKEN": "a\0b"}},
        {"secrets": {"TOKEN": "\ud800"}},
        {"secrets": {"TOKEN": "x" * 100_000}},
    ],
)
async def test_what_could_never_be_shown_or_run_is_not_taken(
    plane: Plane, more: dict[str, Any]
) -> None:
    spec = JobSpec.from_json({"command": "true", "secrets": sorted(more.get("secrets", ()))})
    with pytest.raises(InvalidInput) as refused:
        await plane.post("/v1/jobs", {"spec": spec.to_json(), **more})
    assert "xxx" not in refused.value.message
    assert (await plane.get("/v1/jobs"))["total"] == 0


async def test_a_reason_for_a_drain_is_a_sentence(plane: Plane) -> None:
    name = next(iter(plane.nodes))
    with pytest.raises(InvalidInput, match="reason"):
        await plane.post(f"/v1/nodes/{name}/drain", {"reason": "x" * 501})


async def test_every_answer_says_which_api_it_is(plane: Plane) -> None:
    """An answer, an error, a stream."""
    for path in ("/v1/status", "/v1/nothing", "/v1/events"):
        reader, writer = await asyncio.open_unix_connection(str(plane.client.socket))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"\r\n{HEADER.lower()}: {stamp()}\r\n".encode() in head.lower()
        writer.close()
        await writer.wait_closed()
