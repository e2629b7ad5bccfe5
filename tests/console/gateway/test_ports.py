"""Ports of jobs through the gateway, with OpenSSH's own client."""

from __future__ import annotations

import asyncio
import sys

import asyncssh
import pytest

from tests.agents.controller.api.test_forwarding import SERVER, free
from tests.agents.controller.conftest import until
from tests.console.gateway.conftest import Served

REQUEST = b"GET /it-answers HTTP/1.0\r\n\r\n"


async def test_a_port_of_ones_own_job_is_forwarded_and_no_other(served: Served) -> None:
    port = free()
    (served.plane.root / "server.py").write_text(SERVER)
    line = f"{sys.executable} {served.plane.root / 'server.py'} 127.0.0.1 {port}"
    assert (await served.ssh("mira", f"submit -- {line}")).code == 0
    await served.plane.wait("j1", "RUNNING")

    async def answered() -> bool:
        said = await served.ssh("mira", options=("-W", f"j1:{port}"), stdin=REQUEST)
        return said.out.endswith(b"/it-answers" * 20000)

    await until(answered)
    said = await served.ssh("mira", options=("-W", f"[j1:7]:{port}"), stdin=REQUEST)
    assert said.out == b""  # there is no such rank
    served.add("eve", "operator")
    said = await served.ssh("eve", options=("-W", f"j1:{port}"), stdin=REQUEST)
    assert said.out == b""
    said = await served.ssh("mira", options=("-W", f"localhost:{port}"))
    assert b"administratively prohibited" in said.err
    forwards = [note for note in served.journal if note["what"] == "forward"]
    assert {note["user"] for note in forwards} == {"mira", "eve"}
    async with asyncssh.connect(
        "127.0.0.1", served.port, known_hosts=None, config=None, agent_path=None,
        client_keys=[str(served.held / "mira")],
    ) as connection:  # fmt: skip
        pairs = [await connection.open_connection("j1", port) for _ in range(3)]
        for _, writer in pairs:
            writer.write(REQUEST)
        bodies = await asyncio.gather(*(reader.read() for reader, _ in pairs))
        assert all(body.endswith(b"/it-answers") for body in bodies)
        with pytest.raises(asyncssh.ChannelOpenError, match="is not a job"):
            await connection.open_connection("localhost", port)
    await until(lambda: not served.programs)
