"""Programs beside a rank: what they see, what they give back, and when they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from console.client import Client
from jobs.access.roles import Role
from jobs.base.errors import Conflict, NotAllowed, NotFound, QuarterdeckError
from tests.agents.controller.api.test_access import introduced
from tests.agents.controller.conftest import Plane, guards_of, until


class Shell:
    """One program, as a client sees it."""

    def __init__(self, client: Client, job: str, argv: list[str], **options: Any) -> None:
        body = {"argv": argv, **options}
        self.view = client.post(f"/v1/jobs/{job}/shells", body)
        self._client, self._offset = client, 0
        self.code: int | None = None
        self._path = f"/v1/jobs/{job}/shells/{self.view['rank']}/{self.view['id']}"

    def read(self, wait: float = 5.0) -> tuple[bytes, bytes, int | None]:
        """What is there: of both streams, and the exit code."""
        data, headers = self._client.raw(self._path, offset=self._offset, wait=wait)
        self._offset = int(headers["X-Position"])
        out = {1: b"", 2: b""}
        while data:
            length = int.from_bytes(data[1:5])
            out[data[0]] += data[5 : 5 + length]
            data = data[5 + length :]
        return out[1], out[2], int(headers["X-Exit"]) if "X-Exit" in headers else None

    def whole(self) -> tuple[bytes, bytes, int]:
        out, err = b"", b""
        while self.code is None:
            more, wrong, code = self.read()
            out, err = out + more, err + wrong
            self.code = code
        return out, err, self.code

    def until(self, wanted: bytes) -> bytes:
        out = b""
        for _ in range(60):
            more, _, self.code = self.read(1.0)
            out += more
            if wanted in out:
                return out
        raise AssertionError((wanted, out))

    def post(self, kind: str, data: bytes = b"", **query: Any) -> Any:
        pieces = [data] if data else []
        return self._client.upload(f"{self._path}/{kind}", pieces, "application/x", **query)


async def running(plane: Plane, command: str = "sleep 60", **fields: Any) -> str:
    job = await plane.submit(command, **fields)
    await plane.wait(job, "RUNNING")

    async def started() -> bool:
        ranks = (await plane.get(f"/v1/jobs/{job}"))["attempts"][-1]["ranks"]
        return bool(ranks) and all(rank["pid"] for rank in ranks)

    await until(started)
    return job


async def test_a_command_has_what_its_rank_has(plane: Plane) -> None:
    job = await running(plane, env={"COLOUR": "blue"}, procs_per_node=2)
    text = "echo $COLOUR $RANK; pwd; echo wrong >&2; exit 3"
    shell = await asyncio.to_thread(Shell, plane.client, job, ["sh", "-c", text], rank=1)
    out, err, code = await asyncio.to_thread(shell.whole)
    assert code == 3
    assert err == b"wrong\n"
    colour, folder = out.decode().splitlines()
    assert colour == "blue 1"
    assert folder.endswith("/work")


async def test_input_goes_in_and_its_end_too(plane: Plane) -> None:
    job = await running(plane)
    shell = await asyncio.to_thread(Shell, plane.client, job, ["cat"])
    await asyncio.to_thread(shell.post, "write", b"one\n")
    await asyncio.to_thread(shell.post, "write", b"two\n")
    await asyncio.to_thread(shell.post, "end")
    assert await asyncio.to_thread(shell.whole) == (b"one\ntwo\n", b"", 0)


async def test_much_output_is_whole(plane: Plane) -> None:
    job = await running(plane)
    shell = await asyncio.to_thread(Shell, plane.client, job, ["seq", "200000"])
    out, _, _ = await asyncio.to_thread(shell.whole)
    assert out == b"".join(b"%d\n" % number for number in range(1, 200001))


async def test_a_program_that_is_not_there_says_so(plane: Plane) -> None:
    job = await running(plane)
    shell = await asyncio.to_thread(Shell, plane.client, job, ["/no/such/program"])
    _, err, code = await asyncio.to_thread(shell.whole)
    assert (code, b"No such file" in err) == (127, True)
    with pytest.raises(NotFound):
        await asyncio.to_thread(Shell, plane.client, job, ["ls"], rank=9)


async def test_a_shell_that_was_left_is_where_it_was(plane: Plane) -> None:
    job = await running(plane)
    options = {"terminal": True, "attach": True, "rows": 33, "columns": 90}
    first = await asyncio.to_thread(Shell, plane.client, job, ["sh", "-i"], **options)
    assert first.view["new"]
    await asyncio.to_thread(first.post, "write", b"colour=blue; stty size\n")
    assert b"33 90" in await asyncio.to_thread(first.until, b"33 90")
    await plane.restart()  # it is nobody's child
    again = await asyncio.to_thread(Shell, plane.client, job, ["sh", "-i"], **options)
    assert not again.view["new"]
    await asyncio.to_thread(again.post, "size", number=40 << 16 | 100)
    await asyncio.to_thread(again.post, "write", b"echo it-is-$colour; stty size; exit 4\n")
    assert b"33 90" in await asyncio.to_thread(
        again.until, b"it-is-blue"
    )  # what was written before
    assert (await asyncio.to_thread(again.whole))[2] == 4


async def test_it_ends_with_its_rank(plane: Plane) -> None:
    job = await running(plane)
    words = ["sh", "-c", "trap '' HUP TERM; sleep 500"]
    await asyncio.to_thread(Shell, plane.client, job, words, attach=True)
    await plane.post(f"/v1/jobs/{job}/cancel", {"grace": 0})
    await plane.wait(job)
    await until(lambda: not guards_of(plane.root))


async def test_only_its_owner_and_admins_get_beside_a_job(plane: Plane) -> None:
    eve, mira = (introduced(plane, name, Role.OPERATOR) for name in ("eve", "mira"))
    spec = {"command": "sleep 60"}
    job = (await asyncio.to_thread(mira.post, "/v1/jobs", {"spec": spec, "key": "k"}))["id"]
    await plane.wait(job, "RUNNING")
    with pytest.raises(NotAllowed, match="is mira's"):
        await asyncio.to_thread(Shell, eve, job, ["env"])
    shell = await asyncio.to_thread(Shell, mira, job, ["cat"])
    with pytest.raises(NotAllowed):  # nor talks to what she has there
        await asyncio.to_thread(eve.raw, f"/v1/jobs/{job}/shells/0/{shell.view['id']}")
    await asyncio.to_thread(Shell, introduced(plane, "adam", Role.ADMIN), job, ["true"])


async def test_where_nothing_runs_there_is_nothing_to_be_beside(plane: Plane) -> None:
    job = await plane.submit("true")
    await plane.wait(job)
    with pytest.raises(Conflict, match="no rank of it runs"):
        await asyncio.to_thread(Shell, plane.client, job, ["ls"])
    job = await running(plane)
    with pytest.raises(QuarterdeckError, match="cannot name a shell"):
        await asyncio.to_thread(plane.client.raw, f"/v1/jobs/{job}/shells/0/a%20b", wait=0)
