"""A head that is reached by SSH: asyncssh's own server in a thread, which can be told to misbehave."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh


class _Server(asyncssh.SSHServer):
    def __init__(self, head: SshHead) -> None:
        self._head = head

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self._head.connections.append(conn)

    def auth_completed(self) -> None:
        self._head.logins += 1

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        known = self._head.user_key.convert_to_public() == key
        self._head.tries += 1
        return known and self._head.lets_in

    def unix_connection_requested(self, dest_path: str) -> Any:
        return self._head.forwards

    def connection_requested(self, *_: object) -> bool:
        return True


class SshHead:
    """Start it in a `with`. `home` is made a home whose SSH config and keys lead to it.

    Attributes:
        lets_in: whether the user's key is taken.
        forwards: whether sockets are forwarded; programs may be run either way, if `runs`.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lets_in = self.forwards = self.runs = True
        self.environ: dict[str, str] = {}
        self.commands: list[str] = []
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.tries = self.logins = 0
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sshd")
        self.port = 0

    def __enter__(self) -> SshHead:
        self._thread.start()
        self.listen()
        ssh = self.home / ".ssh"
        ssh.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.user_key.write_private_key(ssh / "id_ed25519")
        (ssh / "config").write_text(
            f"Host head\n  HostName 127.0.0.1\n  Port {self.port}\n  User mira\n  ConnectTimeout 2\n"
        )
        self.know()
        return self

    def know(self, key: asyncssh.SSHKey | None = None) -> None:
        """Write the head's key, or another one, into known_hosts."""
        public = (key or self.host_key).export_public_key().decode()
        (self.home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def listen(self) -> None:
        async def begin() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                "127.0.0.1",
                self.port,
                server_factory=lambda: _Server(self),
                server_host_keys=[self.host_key],
                process_factory=self._process,
                encoding=None,
                reuse_address=True,
            )

        self._acceptor = self.call(begin())
        self.port = self._acceptor.get_port()

    def cut(self) -> None:
        """Break all connections, as a network does; new ones are taken."""

        async def abort() -> None:
            for connection in self.connections:
                connection.abort()
            self.connections.clear()

        self.call(abort())

    def close(self) -> None:
        """Take no new connections."""

        async def close() -> None:
            self._acceptor.close()
            await self._acceptor.wait_closed()

        self.call(close())

    def __exit__(self, *_: object) -> None:
        self.cut()
        self.close()
        self.call(asyncio.sleep(0.05))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _process(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        self.commands.append(command)
        if not self.runs:
            process.exit(1)
            return
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home / "there"), **self.environ}
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_shell(command, stdin=pipe, stdout=pipe, env=environ)
        assert child.stdin is not None
        assert child.stdout is not None
        given = asyncio.create_task(self._give(process.stdin, child.stdin))
        with suppress(OSError, asyncssh.Error):
            while data := await child.stdout.read(1 << 16):
                process.stdout.write(data)
                await process.stdout.drain()
        given.cancel()
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        process.exit(0)

    @staticmethod
    async def _give(source: asyncssh.SSHReader[bytes], sink: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncssh.Error):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()


def end_carriers(runtime: Path) -> None:
    """End the carriers of a runtime folder, and wait until they have."""
    for lock in runtime.glob("ssh-*.lock"):
        with lock.open("r+") as file:
            text = file.read().strip()
            deadline = time.monotonic() + 10
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    assert time.monotonic() < deadline, "a carrier does not end"
                    with suppress(ProcessLookupError, ValueError):
                        os.kill(int(text), signal.SIGTERM)
                    time.sleep(0.02)


@contextmanager
def carriers_end(runtime: Path) -> Iterator[None]:
    try:
        yield
    finally:
        end_carriers(runtime)
