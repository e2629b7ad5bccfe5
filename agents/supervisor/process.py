"""Processes by a name that outlives them: pid and start time, and the session they lead.

A pid alone names whoever has it now. A pid with its start time (and the machine's boot) names one
process for good, so a supervisor that comes back can tell what is still the program it once started.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.node.guard.records import boot_id, start_time


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, alive or not.

    `started` is in clock ticks since boot, as the kernel counts it in /proc/PID/stat.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now, or None."""
        started = start_time(pid)
        return None if started is None else cls(pid, started, boot_id())

    @classmethod
    def from_json(cls, value: Any) -> Identity | None:
        try:
            return cls(int(value["pid"]), int(value["started"]), str(value["boot"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return self.boot == boot_id() and start_time(self.pid) == self.started

    def open(self) -> int | None:
        """A pidfd, which becomes readable when the process ends; None when it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive:  # asked after opening: from here on the descriptor cannot mean another
            return descriptor
        os.close(descriptor)
        return None


def terminate(process: Identity) -> None:
    """SIGTERM, if it still runs."""
    descriptor = process.open()
    if descriptor is not None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        os.close(descriptor)


def stop(process: Identity, grace: float, first: signal.Signals = signal.SIGTERM) -> None:
    """`first`, and SIGKILL when it has not ended after `grace` seconds. Returns when it is gone."""
    descriptor = process.open()
    if descriptor is None:
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, first)
            if not wait(descriptor, grace):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                wait(descriptor, 10)
    finally:
        os.close(descriptor)


def wait(descriptor: int, seconds: float) -> bool:
    """Whether the process behind a pidfd ended within so many seconds."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1000))


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the process table."""

    pid: int
    session: int
    started: int
    args: tuple[str, ...]


def table() -> Iterator[Entry]:
    """The live processes of this user, this one excepted."""
    own, uid = os.getpid(), os.getuid()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == own:
            continue
        with suppress(OSError):
            if folder.stat().st_uid != uid:
                continue
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] in (b"Z", b"X"):
                continue
            args = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            text = tuple(arg.decode(errors="replace") for arg in args)
            yield Entry(int(folder.name), int(fields[3]), int(fields[19]), text)


def members(leader: Identity | None, folder: Path | None) -> list[Entry]:
    """What belongs to a program that we started: everything in the session that it leads or led,
    and everything started with an option that names a place below `folder`.

    Ray's workers rename themselves, so their command line says nothing, but they stay in the session.
    Guards leave it (setsid) and so never belong: Ray may go, they stay.
    """
    entries = list(table())
    named = {e.pid: e for e in entries if folder is not None and _names(e.args, str(folder))}
    sessions = {pid for pid, entry in named.items() if entry.session == pid}
    # The kernel gives a pid anew only when no session has its number. So when another process leads
    # this session now, every member of ours is gone.
    current = leader is not None and leader.boot == boot_id()
    if leader is not None and current and start_time(leader.pid) in (None, leader.started):
        sessions.add(leader.pid)
    return [e for e in entries if e.session in sessions or e.pid in named]


def _names(args: tuple[str, ...], folder: str) -> bool:
    """Whether an option like `--temp-dir=FOLDER` or `--log_dir=FOLDER/...` is among the arguments.
    A bare path is not one: a person's `tail FOLDER/log` is not ours to end."""
    for arg in args:
        option, equals, value = arg.partition("=")
        if (
            equals
            and option.startswith("--")
            and (value + "/").startswith(folder.rstrip("/") + "/")
        ):
            return True
    return False


def sweep(leader: Identity | None, folder: Path | None, seconds: float = 10.0) -> list[Entry]:
    """SIGKILL the members until none is left; returns those that would not go in `seconds`."""
    deadline = time.monotonic() + seconds
    while left := members(leader, folder):
        for entry in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(entry.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []
