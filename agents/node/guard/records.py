"""What guard and agent leave for one another in an attempt's folder, and how: names, whole writes, and
how to tell a process from another one that got its pid.

Standard library only, and little of it: the guard loads this too, and its memory is counted.
"""

# pathlib would add a fifth to a guard's memory.
# ruff: noqa: PTH105, PTH108, PTH115, PTH120, PTH123, PTH208

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import stat
import struct
import time

TYPE_CHECKING = False  # so would typing
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PLAN, LAUNCH, SECRETS, LEASE = "plan.json", "launch.json", "secrets.json", "lease"
STOP, REFUSED, LOCK, STARTED = "stop.json", "refused.json", "guard.lock", "started"
HANDLE, STATE, EXIT, STOP_FLAG, LOG = "handle.json", "state.json", "exit.json", "stop", "guard.log"


_MAX_RECORD = 8 << 20
"""Bytes of a record: a thousand ranks take a fifth of a megabyte, the largest environment less."""
_FLOCK = "hhqqi"  # struct flock on 64-bit Linux: type, whence, start, length, pid


def write_file(path: str, data: bytes, *, durable: bool, mode: int = 0o600) -> None:
    """Put `data` at `path` in one step: readers see the old content or the new one.

    `durable` also survives a power cut once this returns. Raises OSError.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell of
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(os.path.dirname(path) or ".")


def sync_file(path: str) -> None:
    """Make a file that is there durable, and its name. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(os.path.dirname(path) or ".")


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: str) -> dict[str, Any] | None:
    """The object in a file, or None when it is not there or not whole. A rank may have put anything in
    its place: a link, a pipe, a gigabyte."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            content = file.read(_MAX_RECORD + 1)
        value = json.loads(content) if len(content) <= _MAX_RECORD else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def stop_request(path: str) -> dict[str, Any] | None:
    """What the agent asks in `stop.json`; None when it is not there, or is no such thing."""
    found = read_json(path)
    if found is None or not isinstance(found.get("reason"), str):
        return None
    numbers = (found.get("grace"), found.get("at"))
    return found if all(type(item) in (int, float) for item in numbers) else None


def boot_clock() -> float:
    """Seconds on the clock that leases are counted on: never set, and it counts sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with the pid it names a process for good.
    None when there is none, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def tagged(tag: str) -> Iterator[int]:
    """Pids of live processes started with QD_GUARD=`tag` in their environment, this one excepted."""
    needle = b"\0QD_GUARD=" + tag.encode() + b"\0"
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if (
                needle in b"\0" + _environ(pid)
                and pid != os.getpid()
                and start_time(pid) is not None
            ):
                yield pid


def _environ(pid: int) -> bytes:
    """A process's environment. In the middle of an exec it is empty for a moment, and a process that
    is not found then is one that nobody kills. Raises OSError."""
    settled = False
    for _ in range(500):  # on a busy machine that moment is as long as others take turns
        with open(f"/proc/{pid}/environ", "rb") as file:
            if content := file.read():
                return content
        if settled:
            break  # started with no environment at all
        os.readlink(f"/proc/{pid}/exe")  # the kernel's own threads have none, and no environment
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            settled = bool(file.read(1))  # the arguments too come only with the new program
        if not settled:
            time.sleep(0.001)
    return b""


def kill_left_over(tag: str, cgroup: str | None) -> int:
    """SIGKILL to every process that belongs to a guard; how many were found. Call it until it is 0:
    what is forked meanwhile is found the next time."""
    found = 0
    if cgroup:
        with contextlib.suppress(OSError):
            with open(f"{cgroup}/cgroup.procs") as file:
                found = len(file.read().split())
            if found:
                with open(f"{cgroup}/cgroup.kill", "w") as file:
                    file.write("1")
    for pid in tagged(tag):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            found += 1
    return found


def lock_holder(path: str) -> int | None:
    """Pid of the process that holds the guard's lock, without touching it; None when nobody does."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with open(path, "rb") as file:
            answer = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))
    except OSError:
        return None
    return None if answer[0] == fcntl.F_UNLCK else int(answer[4])
