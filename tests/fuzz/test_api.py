"""Schemathesis against the controller's real socket, made from the document that the API publishes.

Every answer has a status, a type and a shape that the document names, and none is a fault of ours (5xx).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.controller.api import create_app
from tests.agents.controller.conftest import Plane, make_plane, plane

__all__ = ["make_plane", "plane"]

NOT_ASKED = "wait|watch|backups|deployments-hold|events|logs$|/metrics$"
"""What answers only after a while, or without end, or acts on the machine's disk."""
UNCHECKED = (
    "ignored_auth", "missing_required_header", "unsupported_method", "positive_data_acceptance",
    "negative_data_rejection", "use_after_free",
)  # fmt: skip
"""Checks of documents that say more than ours does: which values of a text are good."""


@contextlib.asynccontextmanager
async def over_tcp(path: Path) -> AsyncIterator[int]:
    """A port of this machine that leads to the socket: the fuzzer knows no unix sockets."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_unix_connection(str(path))
        await asyncio.gather(pump(reader, here), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.timeout(600)
async def test_no_request_finds_a_fault_of_ours(plane: Plane, tmp_path: Path) -> None:
    job = await plane.submit("echo hi")
    await plane.wait(job)
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(create_app(plane.controller).openapi()))
    async with over_tcp(plane.client.socket) as port:
        fuzzing = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "schemathesis.cli", "run", str(document)],
            *["--url", f"http://127.0.0.1:{port}"],
            *["--phases", "fuzzing", "--max-examples", "3", "--workers", "2", "--seed", "1"],
            *["--exclude-checks", ",".join(UNCHECKED), "--exclude-path-regex", f"({NOT_ASKED})"],
            *["--request-timeout", "20", "--continue-on-failure", "--no-color"],
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await fuzzing.communicate()
    assert fuzzing.returncode == 0, said.decode()[-20_000:]
    assert b"generated" in said
    assert (await plane.get("/v1/status"))["state"] == "ok"
