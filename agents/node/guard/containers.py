"""Ranks in containers: how a rank becomes one, and that none outlives its guard.

The rank's process is podman's client. What it runs is a child of conmon's, in the ranks' control group and
in the machine's own process namespace: the guard signals it directly and finds it by the same tag as any
other process, so podman has to do nothing for a rank to end. A parent-death signal reaches the client only.
So each guard of containers has a keeper: a process that waits for the guard's end, however that comes, kills
what is left and has podman forget the containers.

Standard library only: the guard loads this, and its memory is counted.
"""

# pathlib would add a fifth to a guard's memory.
# ruff: noqa: PTH123

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
import zlib

from agents.node.guard import records

TYPE_CHECKING = False  # the real one would load `typing`
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

PODMAN = (
    "podman",
    "--cgroup-manager=cgroupfs",
    "--runtime=crun",
    "--runtime-flag=cgroup-manager=disabled",
)
"""A container stays in the control group that its client is in, which is the ranks'. (podman's own
`--cgroups=disabled` would ask for a process namespace, and across those CUDA shares no memory.)"""
PATIENCE = 30.0
"""Seconds for podman to remove containers that have ended. It takes a tenth of one."""
_BY_VALUE = ("LD_", "XDG_", "CONTAINER", "STORAGE_", "REGISTRY_", "DBUS_", "_")
"""What variables begin with that would change podman itself, and are passed in its arguments instead."""


def name(tag: str, rank: int) -> str:
    """A rank's container, by which podman knows it. Several agents may share one podman."""
    key, _, root = tag.partition("@")
    return f"qd-{key}-{zlib.crc32(root.encode()):08x}-r{rank}"


def command(
    launch: Mapping[str, Any], rank: int, argv: list[str], env: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """podman's arguments and its environment, for a rank's.

    Variables are passed by name, with their values in podman's environment: everybody on a machine may
    read the arguments of a process, and some variables are secret.
    """
    container = launch["container"]
    own = container["env"]
    options, passed = [], dict(own)
    for variable, value in env.items():
        if variable in own or variable.startswith(_BY_VALUE):
            options.append(f"--env={variable}={value}")
        else:
            options.append(f"--env={variable}")
            passed[variable] = value
    options += [f"--unsetenv={variable}" for variable in container["unset"] if variable not in env]
    options += [f"--name={name(launch['tag'], rank)}", f"--pidfile={pid_file(container, rank)}"]
    return [*PODMAN, "run", *container["options"], *options, container["image"], *argv], passed


def pid_file(container: Mapping[str, Any], rank: int) -> str:
    return f"{container['folder']}/rank-{rank}.pid"


def program_of(container: Mapping[str, Any], rank: int) -> int | None:
    """Pid of what the container runs, once it does."""
    with contextlib.suppress(OSError, ValueError), open(pid_file(container, rank)) as file:
        return int(file.read())
    return None


def remove(tag: str, ranks: Iterable[int], env: Mapping[str, str]) -> None:
    """Have podman forget the containers of these ranks, running or not. Blocking; it has its time."""
    argv = [*PODMAN, "rm", "--force", "--ignore", "--time=0", *(name(tag, rank) for rank in ranks)]
    files = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    try:
        pid = os.posix_spawnp(argv[0], argv, env, file_actions=files, setsigmask=())
    except OSError:
        return  # podman was removed meanwhile
    until = time.monotonic() + PATIENCE
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.02)


class Keeper:
    """Cleans up after a guard's containers. Does nothing for ranks without one."""

    __slots__ = ("_end", "pid")

    def __init__(self, launch: Mapping[str, Any], cgroup: str | None) -> None:
        self.pid: int | None = None
        if "container" not in launch:
            return
        guard = os.pidfd_open(os.getpid())
        waiting, self._end = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            _keep(launch, cgroup, guard, waiting)
        os.close(guard)
        os.close(waiting)

    def close(self) -> None:
        """The ranks are gone: clean up now. Blocking."""
        if self.pid is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._end, b"1")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.pid = None


def _keep(launch: Mapping[str, Any], cgroup: str | None, guard: int, waiting: int) -> None:
    """The keeper. Never returns."""
    code = 1
    try:
        os.setsid()
        kept = sorted({guard, waiting})
        for first, behind in zip([2, *kept], [*kept, 65536], strict=True):
            os.closerange(first + 1, behind)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        # A pipe alone would not tell: whoever the guard forks later holds its other end as well.
        select.select([guard, waiting], [], [])
        ranks = [spec["rank"] for spec in launch["ranks"]]
        told = select.select([waiting], [], [], 0)[0] and os.read(waiting, 1)
        if not told:
            kill(launch["tag"], cgroup)  # the guard is dead, and podman's pace is not ours
        remove(launch["tag"], ranks, launch["container"]["env"])
        code = 0
    finally:
        os._exit(code)


def kill(tag: str, cgroup: str | None) -> None:
    """Kill what a guard's ranks have left, until nothing is. Blocking."""
    pause = 0.001
    while records.kill_left_over(tag, cgroup):
        time.sleep(pause)
        pause = min(pause * 2, 0.5)
