"""Stretches of files in replies, as a reader sees them who is slow, leaves, or stays for a second one."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from agents.controller.api import zerocopy
from agents.controller.api.files import FileStretches, Stretch
from agents.controller.api.identity import PeerProtocol
from agents.daemon import bind
from tests.agents.controller.conftest import until

SIZE = 3 << 20
"""More than a socket takes at once."""


class Server:
    """Answers each request with stretches of one file; the paths tell how."""

    def __init__(self, folder: Path) -> None:
        self.file, self.socket = folder / "file", folder / "api"
        self.file.write_bytes(os.urandom(SIZE))
        self.ended = 0

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        async def opened() -> Any:
            return self.file.open("rb")

        async def stretches() -> AsyncIterator[Stretch]:
            yield 0, 10
            yield 10, 10
            yield 10, end

        end = SIZE + 5 if scope["path"] == "/cut" else SIZE
        headers = {} if scope["path"] == "/chunked" else {"Content-Length": str(end)}
        try:
            await FileStretches(opened, stretches(), headers)(scope, receive, send)
        finally:
            self.ended += 1

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(20)
        connection.sock.connect(str(self.socket))
        return connection

    def get(self, path: str) -> bytes:
        connection = self.connect()
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    served = Server(tmp_path)
    config = uvicorn.Config(
        served.app, interface="asgi3", http=PeerProtocol, lifespan="off", log_config=None
    )
    program = uvicorn.Server(config)
    serving = asyncio.create_task(program._serve([bind(served.socket)]))
    await until(lambda: program.started)
    yield served
    program.should_exit = True
    await serving


@pytest.mark.parametrize("path", ["/sized", "/chunked"])
async def test_all_of_a_file_comes(server: Server, path: str) -> None:
    assert await asyncio.to_thread(server.get, path) == server.file.read_bytes()


async def test_where_the_kernel_cannot_copy_by_itself(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.EINVAL, "not for this file system")

    monkeypatch.setattr(os, "sendfile", refuse)
    assert await asyncio.to_thread(server.get, "/chunked") == server.file.read_bytes()


async def test_a_reader_that_pauses_gets_all_of_it_and_holds_no_thread(server: Server) -> None:
    connection = server.connect()
    await asyncio.to_thread(connection.request, "GET", "/sized")
    await asyncio.sleep(3 * zerocopy._PATIENCE / 1000)
    others = [asyncio.to_thread(server.get, "/sized") for _ in range(8)]
    assert set(await asyncio.gather(*others)) == {server.file.read_bytes()}
    data = await asyncio.to_thread(lambda: connection.getresponse().read())
    assert data == server.file.read_bytes()
    connection.close()


async def test_one_connection_serves_one_request_after_another(server: Server) -> None:
    connection = server.connect()

    def get() -> bytes:
        connection.request("GET", "/chunked")
        return connection.getresponse().read()

    for _ in range(3):
        assert await asyncio.to_thread(get) == server.file.read_bytes()
    connection.close()


async def test_a_reader_that_leaves_ends_its_reply_and_leaves_nothing_open(server: Server) -> None:
    await asyncio.to_thread(server.get, "/sized")
    before = open_files()  # perhaps with what is still being closed
    connections = [server.connect() for _ in range(3)]
    for connection in connections:
        await asyncio.to_thread(connection.request, "GET", "/chunked")
    await asyncio.sleep(3 * zerocopy._PATIENCE / 1000)
    assert server.ended == 1  # they wait for their readers
    for connection in connections:
        connection.close()
    await until(lambda: server.ended == 4)
    await until(lambda: open_files() <= before)


async def test_a_file_that_is_shorter_than_promised_cuts_the_connection(server: Server) -> None:
    with pytest.raises(http.client.IncompleteRead) as cut:
        await asyncio.to_thread(server.get, "/cut")
    assert cut.value.partial == server.file.read_bytes()
