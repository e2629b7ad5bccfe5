"""`python -m console.remote.carrier`: the process that holds the SSH connection to one head.

Clients connect to its socket in the runtime folder, so a second command on the same head neither imports
an SSH library nor logs in. It ends when nobody has used it for a while, or when its socket is taken away.
It listens before it does anything that takes time, and the one who started it waits just for that.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from console.remote.target import Target
from jobs.base.errors import QuarterdeckError

if TYPE_CHECKING:
    import asyncio

    from console.remote.channels import Near

IDLE = 600.0
"""Seconds without a client after which it ends."""

LOOK = 5.0
"""Seconds between two looks at whether its socket is still its own."""


def main() -> int:
    """Listen, let go of the starter, and serve. Ends at once, with 0, where another one serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="path of its files, without their endings")
    parser.add_argument("target", help="a Target, as JSON")
    parser.add_argument("--idle", type=float, default=IDLE)
    options = parser.parse_args()
    base = Path(options.name)
    os.umask(0o077)
    # Relative names from here on: a socket's path may be short only.
    os.chdir(base.parent)
    held = os.open(f"{base.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    listening = _listen(base.name)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.truncate(held, 0)
    os.write(held, f"{os.getpid()}\n".encode())
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    _serve(listening, base.name, Target(**json.loads(options.target)), options.idle)
    return 0


def _listen(name: str) -> socket.socket:
    """A socket that takes the place of what a carrier left that was killed."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    part = f"{name}.{os.getpid()}"
    listening.bind(part)
    listening.listen(64)
    os.rename(part, f"{name}.sock")  # noqa: PTH104 - relative to the folder, as the rest
    return listening


def _serve(listening: socket.socket, name: str, target: Target, idle: float) -> None:
    import asyncio

    asyncio.run(_Carrier(listening, f"{name}.sock", target, idle).run())


class _Carrier:
    def __init__(self, listening: socket.socket, path: str, target: Target, idle: float) -> None:
        from console.remote.session import Session

        self._listening = listening
        self._path = path
        self._inode = os.stat(path).st_ino  # noqa: PTH116
        self._session = Session(target)
        self._idle = idle
        self._clients: set[Near] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until a signal, or until nobody wants it any more."""
        import asyncio

        from console.remote.channels import Near

        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(name, over.set)
        server = await loop.create_unix_server(
            lambda: Near(self._arrived, self._left), sock=self._listening
        )
        self._used = loop.time()
        while not over.is_set() and self._wanted(loop.time()):
            try:
                async with asyncio.timeout(min(LOOK, self._idle)):
                    await over.wait()
            except TimeoutError:
                continue
        if self._ours():
            os.unlink(self._path)  # noqa: PTH108
        # Who connected in this very moment hears the end, and starts the next one.
        server.close()
        for near in list(self._clients):
            near.transport.abort()
        self._session.close()
        await asyncio.sleep(0.05)  # for what has to be told to the head

    def _ours(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode  # noqa: PTH116
        except OSError:
            return False

    def _wanted(self, now: float) -> bool:
        return self._ours() and (bool(self._clients) or now - self._used < self._idle)

    def _arrived(self, near: Near) -> None:
        import asyncio

        self._clients.add(near)
        # Not ended when the client leaves meanwhile: a channel that is half open has to be closed.
        task = asyncio.create_task(self._introduce(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _left(self, near: Near) -> None:
        import asyncio

        self._clients.discard(near)
        self._used = asyncio.get_running_loop().time()

    async def _introduce(self, near: Near) -> None:
        """Connect a client to the head, or tell it why not."""
        try:
            far, told = await self._session.open()
        except QuarterdeckError as error:
            near.refuse(error)
        except Exception as error:
            near.refuse(QuarterdeckError(f"the SSH carrier met a fault: {error!r}"))
            raise
        else:
            near.begin(far, told)


if __name__ == "__main__":
    sys.exit(main())
