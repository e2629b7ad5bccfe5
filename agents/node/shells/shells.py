"""Starting holders, and talking to them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.node import accounts
from agents.node.guard import records
from agents.node.shells import holder, tools
from jobs.base.errors import Conflict, InvalidInput, NotFound, Unreachable
from jobs.wire.messages import ShellReply, ShellRequest

WAIT = 5.0
"""Seconds that one call waits for output at most."""
_START = 10.0
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,80}")
_KINDS = {
    "read": holder.READ,
    "write": holder.WRITE,
    "end": holder.END,
    "size": holder.SIZE,
    "signal": holder.SIGNAL,
}


async def begin(folder: Path, pid: int, request: ShellRequest) -> bool:
    """Start a program beside a rank; False when one of that name is there already.

    Args:
        folder: the attempt's.
        pid: the rank's.

    Raises Conflict when it cannot be started.
    """
    name = _socket(request["name"])
    if await _alive(folder, name):
        return False
    try:
        environment = await asyncio.to_thread(_environment, pid)
        owner = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - the kernel answers at once
        contained = _namespace(pid) != _namespace("self")
    except OSError as error:
        raise Conflict(f"the rank cannot be looked at: {error.strerror}") from None
    account = accounts.of_attempt(folder)
    if owner != (os.geteuid() if account is None else account.uid):
        raise Conflict(
            "the rank runs as another user than it was started as: nobody can join it",
            "`qd stacks` shows where it is.",
        )
    tool, argv = request.get("tool", ""), request["argv"]
    if tool:
        argv = await tools.command(tool, argv, pid)
    handle = records.read_json(str(folder / records.HANDLE)) or {}
    spec: dict[str, Any] = {
        "folder": str(folder),
        "work": str(folder / "work"),
        "socket": name,
        "pid": pid,
        "inside": contained and not tool,  # our own programs are not in the image
        "cgroup": handle.get("cgroup"),
        "argv": argv,
        "env": {**environment, **request["env"]},
        "terminal": request["terminal"],
        "rows": request["rows"],
        "columns": request["columns"],
        "keep": request["keep"],
        "as": None if account is None else account.to_json(),
    }
    # -S: the environment's .pth files are none of its business, and cost 20 ms.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", holder.__file__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(_START):
            told, _ = await process.communicate(json.dumps(spec).encode())
    except TimeoutError:
        process.kill()
        raise Conflict(f"the program did not start within {_START:g} s") from None
    if told != b"ok\n":
        raise Conflict(f"the program cannot be started: {told.decode().strip() or 'no answer'}")
    return True


async def talk(
    folder: Path, name: str, kind: str, number: int, data: bytes, wait: float
) -> ShellReply:
    """One request to a holder. Raises NotFound when it has ended."""
    if kind not in _KINDS:
        raise InvalidInput(f"a shell knows no '{kind}'", f"One of {', '.join(_KINDS)}.")
    try:
        async with asyncio.timeout(min(wait, WAIT) + 10):
            reader, writer = await _connect(folder, _socket(name))
            try:
                head = holder.REQUEST.pack(_KINDS[kind], number, len(data), min(wait, WAIT))
                writer.write(head + data)
                await writer.drain()
                answer = await reader.readexactly(holder.REPLY.size)
                position, ended, code, length = holder.REPLY.unpack(answer)
                payload = await reader.readexactly(length)
            finally:
                writer.close()
    except (FileNotFoundError, ConnectionError, asyncio.IncompleteReadError):
        raise NotFound("that program has ended") from None
    except TimeoutError:
        raise Unreachable("the program's holder gives no answer") from None
    return ShellReply(position=position, ended=ended, code=code, data=payload)


async def _alive(folder: Path, name: str) -> bool:
    try:
        _, writer = await _connect(folder, name)
    except OSError:
        return False
    writer.close()
    return True


async def _connect(folder: Path, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The folder's descriptor keeps the path within what a socket's name may have."""
    held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{held}/{name}", limit=1 << 20)
    finally:
        os.close(held)


def _socket(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"'{name}' cannot name a shell")
    return f"shell-{name}.sock"


def _namespace(pid: int | str) -> str:
    """What files a process sees: a container's are others. Raises OSError."""
    return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115 - the kernel answers at once


def _environment(pid: int) -> Mapping[str, str]:
    """The rank's, as it was started: with its secrets, and the tag by which its end finds this."""
    data = Path(f"/proc/{pid}/environ").read_bytes()
    pairs = (os.fsdecode(item).partition("=") for item in data.split(b"\0") if b"=" in item)
    return {name: value for name, _, value in pairs}
