"""A cgroup (v2) for the ranks of a guard, and how a rank is born in it.

Standard library only, and little of it: the guard loads this.
"""

# pathlib would add a fifth to a guard's memory.
# ruff: noqa: PTH102, PTH106, PTH123

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct

_SYS_CLONE3 = 435  # of every architecture
_CLONE_INTO_CGROUP = 0x2_0000_0000  # linux/sched.h
_CLONE_ARGS = "=11Q"  # struct clone_args: flags first, the exit signal fifth, the cgroup last
_libc = ctypes.PyDLL(None)  # keeps the interpreter's lock, as a fork must


def own_group() -> str | None:
    """The cgroup that this process is in, as a folder."""
    with contextlib.suppress(OSError):
        with open("/proc/self/mounts") as mounts:
            mount = next((line.split()[1] for line in mounts if line.split()[2] == "cgroup2"), None)
        with open("/proc/self/cgroup") as groups:
            own = next((line[3:].strip() for line in groups if line.startswith("0::")), None)
        if mount and own:
            return f"{mount}{own.rstrip('/')}"
    return None


def make(name: str, parent: str | None = None) -> str | None:
    """A cgroup of our own, where we may make one: killing it misses nothing.

    Args:
        parent: the folder to make it in; the group of this process when left out, where the kernel
            keeps no limit, since it allows none below a group that has processes itself.
    """
    with contextlib.suppress(OSError):
        parent = parent or own_group()
        if parent:
            path = f"{parent}/{name}"
            os.mkdir(path)
            if os.access(f"{path}/cgroup.kill", os.W_OK):
                return path
            os.rmdir(path)
    return None


def fork_into(cgroup: str | None) -> int:
    """As os.fork, and the child is in the cgroup, if it could be put there. For a program of one thread
    whose child soon execs: Python's hooks for forks are not run. Raises OSError."""
    if cgroup is None:
        return os.fork()
    pid = _clone(cgroup)
    if pid < 0:  # a kernel before 5.7, or a container that forbids it
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(OSError), open(f"{cgroup}/cgroup.procs", "w") as file:
                file.write("0")
    return pid


def _clone(cgroup: str) -> int:
    """Born there, a process costs nothing more; to move one in costs 10 ms, since the kernel waits
    until no processor can be looking at it."""
    try:
        folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        arguments = struct.pack(
            _CLONE_ARGS, _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, folder
        )
        return int(_libc.syscall(_SYS_CLONE3, arguments, len(arguments)))
    finally:
        os.close(folder)
