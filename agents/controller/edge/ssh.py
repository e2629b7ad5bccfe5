"""A host by the system's own `ssh`: with configuration, known hosts and keys of the cluster's account."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from pathlib import Path

from jobs.base.errors import Conflict, Unreachable
from jobs.edge.fleet import Host
from jobs.edge.remote import parsed

CONFIG = "QD_EDGE_SSH_CONFIG"
"""A file of ssh's configuration in place of the account's own."""
OPTIONS = (
    "-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=5", "-oServerAliveCountMax=3",
    "-oStrictHostKeyChecking=yes", "-oForwardAgent=no", "-oForwardX11=no", "-oClearAllForwardings=yes",
    "-oLogLevel=ERROR", "-T",
)  # fmt: skip
"""It asks nobody, trusts known hosts alone, and notices within 15 s that a link is gone."""
LONGEST = 1 << 20
"""Bytes of what a script writes that are kept: the last ones."""


class Silent(Unreachable):
    """It did not end in time."""


class Refused(Conflict):
    """The host answered, and a script failed there."""


def words(host: Host, script: str) -> list[str]:
    """The command line."""
    config = os.environ.get(CONFIG)
    return [
        "ssh",
        *OPTIONS,
        *(["-F", config] if config else []),
        *(["-p", str(host.port)] if host.port else []),
        *(["-l", host.user] if host.user else []),
        "--",
        host.host.strip("[]"),
        f"exec sh -c {shlex.quote(script)}",
    ]


async def run(
    host: Host, script: str, *, text: str = "", file: tuple[Path, int] | None = None, within: float
) -> list[str]:
    """Run a script there; the lines that it wrote.

    Args:
        text: for its stdin; else `file`, from an offset on.
        within: seconds.

    Raises:
        Unreachable: the link was lost, before the end or at once; or the time is over.
        Refused: the script failed.
    """
    code, lines = await ended(host, script, text=text, file=file, within=within)
    if code:
        said = " ".join(lines[-3:])[:300]
        raise Refused(f"{said or 'a script failed'} (exit code {code})")
    return lines


async def ended(
    host: Host, script: str, *, text: str = "", file: tuple[Path, int] | None = None, within: float
) -> tuple[int, list[str]]:
    """The same with its exit code. Raises Unreachable."""
    with contextlib.ExitStack() as stack:
        stdin: int = asyncio.subprocess.PIPE
        if file is not None:
            opened = stack.enter_context(file[0].open("rb"))
            stdin = opened.fileno()
            os.lseek(stdin, file[1], os.SEEK_SET)
        try:
            process = await asyncio.create_subprocess_exec(
                *words(host, script),
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise Unreachable(f"ssh does not start: {error}") from None
        try:
            async with asyncio.timeout(within):
                out, err, _ = await asyncio.gather(
                    _last(process.stdout), _last(process.stderr), _say(process.stdin, text)
                )
                await process.wait()
        except TimeoutError:
            raise Silent(f"no answer within {within:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    found = parsed(out.decode(errors="replace"))
    if found is None:
        said = err.decode(errors="replace").strip().splitlines()
        raise Unreachable(said[-1][:300] if said else f"the link was lost ({process.returncode})")
    code, lines = found
    return code, lines or err.decode(errors="replace").strip().splitlines()


async def _last(stream: asyncio.StreamReader | None) -> bytes:
    """The end of what it writes, however much that is."""
    kept = b""
    while stream is not None and (chunk := await stream.read(1 << 16)):
        kept = (kept + chunk)[-LONGEST:]
    return kept


async def _say(stream: asyncio.StreamWriter | None, text: str) -> None:
    if stream is None:
        return
    with contextlib.suppress(ConnectionError):  # it has ended: its exit code says why
        stream.write(text.encode())
        await stream.drain()
    stream.close()
