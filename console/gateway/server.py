"""The gateway itself: who connects, who they are, and a session for each of their channels."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from console.gateway import keys, ports, session
from console.gateway.forks import Forks
from console.gateway.gates import TRIES, Gates, Limits
from console.gateway.journal import Journal
from console.gateway.passage import Passage
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, QuarterdeckError
from jobs.base.places import Places
from jobs.wire.introductions import Introduction

log = logging.getLogger("console.gateway")

LOOK = 2.0
"""Seconds between two looks at whether somebody's key was taken away."""
KEEPALIVE = 15.0
"""Seconds of silence after which a client is asked whether it is there; four without answer end it."""


@dataclass(frozen=True)
class Settings:
    """Attributes:
    where: the folders of the control plane.
    address: to listen on; empty: on all.
    keys: file or folder of public keys.
    """

    where: Places
    address: str
    port: int
    keys: Path
    limits: Limits = field(default_factory=Limits)

    @property
    def state(self) -> Path:
        return self.where.state / "gateway"


class Gateway:
    """Args:
    clock: seconds, monotonic.
    now: unix time.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.gates = Gates(settings.limits)
        self.forks = Forks()
        self.people: dict[Door, None] = {}
        self._now = now
        self._number = 0
        self._sessions: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises QuarterdeckError, or OSError when the address cannot be had."""
        state, runtime = self.settings.state, self.settings.where.runtime
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Conflict(
                "a gateway of this cluster is running already", "One serves everybody."
            ) from None
        for left in (runtime / "gateway", state / "work"):  # of a gateway that was killed
            shutil.rmtree(left, ignore_errors=True)
        self.journal = Journal(state / "audit.log", self._now)
        self.host_key = host_key(state / "host_key")
        found = keys.read(self.settings.keys)
        for problem in found.problems:
            log.warning("%s", problem)
        self._stamp = keys.stamp(self.settings.keys)
        await self.forks.ready()
        self._acceptor = await asyncssh.listen(
            self.settings.address,
            self.settings.port,
            server_factory=lambda: Door(self),
            server_host_keys=[self.host_key],
            process_factory=self.begin,
            encoding=None,
            line_editor=False,
            config=None,
            server_version="Quarterdeck",
            login_timeout=self.settings.limits.login,
            keepalive_interval=KEEPALIVE,
            keepalive_count_max=4,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            reuse_address=True,
        )
        self._watching = asyncio.create_task(self._watch())
        self.journal.note("start", address=self.settings.address, port=self.port)

    @property
    def port(self) -> int:
        return int(self._acceptor.get_port())

    async def stop(self) -> None:
        """Let nobody in, and end all sessions."""
        self._watching.cancel()
        self._acceptor.close()
        for door in list(self.people):
            door.hang_up("the gateway is stopped")
        for task in list(self._sessions):
            task.cancel()
        await asyncio.gather(self._watching, *self._sessions, return_exceptions=True)
        self.forks.close()
        self.journal.note("stop")
        self.journal.close()
        os.close(self._lock)

    async def _watch(self) -> None:
        """Hang up on people whose key was removed, or has another role now."""
        while True:
            await asyncio.sleep(LOOK)
            stamp = keys.stamp(self.settings.keys)
            if stamp == self._stamp:
                continue
            self._stamp = stamp
            try:
                lines = keys.read(self.settings.keys).lines
            except QuarterdeckError as error:  # no file is no key
                log.warning("%s", error.message)
                lines = frozenset()
            for door in list(self.people):
                if door.line not in lines:
                    self.journal.note("revoked", user=door.who.user, key=door.line)
                    door.hang_up("this key is not known any more")

    def begin(self, process: session.Process) -> None:
        task = asyncio.create_task(self._serve(process))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    async def _serve(self, process: session.Process) -> None:
        """One channel, from its request to its exit code."""
        door = process.get_extra_info("connection").get_owner()
        assert isinstance(door, Door)
        code = 1
        try:
            code = await self._admitted(process, door)
        except QuarterdeckError as error:
            _say(process, error)
            code = error.exit_code
        except OSError as error:
            log.error("a session could not be served: %s", error)
            _say(
                process,
                QuarterdeckError(f"the gateway cannot serve this: {error.strerror or error}"),
            )
        finally:
            with contextlib.suppress(OSError):  # the channel may be closed
                process.exit(code)

    async def _admitted(self, process: session.Process, door: Door) -> int:
        if refused := self.gates.begin(door.line):
            self.journal.note("full", user=door.who.user, key=door.line, why=refused)
            raise NotAllowed(refused, "Close one of them, or ask an admin for more.")
        self._number += 1
        number = self._number
        facts = {
            "session": number,
            "user": door.who.user,
            "role": str(door.who.role),
            "key": door.line,
            "address": door.address,
        }
        command = process.command
        try:
            self.journal.note(
                _kind(process), **facts, command=command or "",
                terminal=process.term_type is not None,
            )  # fmt: skip
            code = await self._run(process, door.who, number)
            self.journal.note("end", **facts, code=code)
            return code
        except QuarterdeckError as error:
            self.journal.note("end", **facts, code=error.exit_code, why=error.message)
            raise
        except BaseException as error:  # cut off, or out of processes: a journal names each end
            self.journal.note("end", **facts, code=1, why=type(error).__name__)
            raise
        finally:
            self.gates.end(door.line)

    async def _run(self, process: session.Process, who: Introduction, number: int) -> int:
        if process.subsystem:
            raise NotAllowed(
                f"there is no {process.subsystem} here", "Commands and the console are available."
            )
        try:
            words = session.words_of(process.command)
        except ValueError as error:
            raise InvalidInput(f"the command line cannot be read: {error}") from None
        rooms = session.Rooms.of(self.settings.where, who, number)
        passage = Passage(rooms.socket, self.settings.where.gateway_socket, who)
        return await session.run(process, words, rooms, passage, self.forks)


class Door(asyncssh.SSHServer):
    """One connection: lets in who has a key, and counts."""

    who: Introduction
    line: str

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._tries = 0
        self._waiting = False  # it counts as one that has not logged in
        self.address = ""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self.address = str((conn.get_extra_info("peername") or ("",))[0])
        if refused := self._gateway.gates.arrive(self.address, self._gateway.clock()):
            log.warning("%s is not let in: %s", self.address, refused)
            conn.abort()
            return
        self._waiting = True

    def begin_auth(self, username: str) -> bool:
        """Keys are read for each login, so one that was removed is refused at once."""
        try:
            found = keys.read(self._gateway.settings.keys)
        except QuarterdeckError as error:
            log.error("nobody can log in: %s", error.message)
            found = keys.Keys(None, frozenset(), ())
        self._connection.set_authorized_keys(
            found.authorized if found.authorized is not None else asyncssh.SSHAuthorizedKeys()
        )
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Asked for keys that are in no file."""
        return self._another_try()

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._another_try()

    def _another_try(self) -> bool:
        self._tries += 1
        if self._tries >= TRIES:
            self._connection.disconnect(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures"
            )
        return False

    def auth_completed(self) -> None:
        try:
            self.who, self.line = keys.who(self._connection)
        except ValueError:
            self._connection.abort()
            return
        self._arrived()
        self._gateway.people[self] = None
        note = {"user": self.who.user, "role": str(self.who.role), "key": self.line}
        self._gateway.journal.note("login", **note, address=self.address)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting and self._tries:
            gateway = self._gateway
            gateway.gates.failed(self.address, gateway.clock())
            with contextlib.suppress(OSError):
                gateway.journal.note("refused", address=self.address, keys=self._tries)
        self._arrived()
        self._gateway.people.pop(self, None)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Callable[[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]], None]:
        """A port of a job, as the person of the key."""
        try:
            text = ports.command(dest_host, dest_port)
        except NotAllowed as error:
            facts = {"user": self.who.user, "key": self.line, "address": self.address}
            self._gateway.journal.note("refused", **facts, port=f"{dest_host[:100]}:{dest_port}")
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, f"{error.message}. {error.hint}"
            ) from None
        return lambda reader, writer: self._gateway.begin(ports.Connection(text, reader, writer))

    def _arrived(self) -> None:
        if self._waiting:
            self._waiting = False
            self._gateway.gates.leave(self.address)

    def hang_up(self, why: str) -> None:
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, why)


def host_key(path: Path) -> asyncssh.SSHKey:
    """The gateway's own key, made once. Raises InvalidInput when others may read it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise InvalidInput(
                f"others may read {path}, the gateway's host key", f"`chmod 600 {path}`."
            ) from None
        return asyncssh.read_private_key(path)
    made = asyncssh.generate_private_key("ssh-ed25519", comment="quarterdeck gateway")
    with os.fdopen(descriptor, "wb") as file:
        file.write(made.export_private_key())
        file.flush()
        os.fsync(file.fileno())
    return made


def _kind(process: session.Process) -> str:
    """What a journal calls a session."""
    if isinstance(process, ports.Connection):
        return "forward"
    return "command" if process.command else "console"


def _say(process: session.Process, error: QuarterdeckError) -> None:
    end = b"\r\n" if process.term_type is not None else b"\n"
    lines = [f"qd: {error.message}", *error.hint.splitlines()]
    with contextlib.suppress(OSError):
        process.stderr.write(b"".join(line.encode() + end for line in lines))


async def serve(settings: Settings, listening: Callable[[Gateway], None]) -> None:
    """Run until SIGTERM or SIGINT. `listening` is called once it lets people in."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    gateway = Gateway(settings)
    await gateway.start()
    try:
        listening(gateway)
        await over.wait()
    finally:
        await gateway.stop()
