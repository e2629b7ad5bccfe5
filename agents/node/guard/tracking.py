"""Where the ranks' MLflow clients find us: a port of the guard's, and the tracker behind it.

The guard listens on the loopback interface from before the first rank; the tracker
(`agents/node/tracking/server.py`) is started by the first connection, so a job that never speaks to it
costs a socket. It may die at any moment: what it acknowledged is in files, connections wait in the
socket's queue, and the next look starts another one.

Part of the guard: standard library only, and no module that the guard does not hold anyway.
"""

# pathlib would add a fifth to a guard's memory.
# ruff: noqa: PTH100

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys

from agents.node.guard import cgroups, rights

TYPE_CHECKING = False  # the real one would load `typing`
if TYPE_CHECKING:
    from typing import Any

PROGRAM = os.path.abspath(__file__ + "/../../tracking/server.py")
QUEUE = 128
"""Connections that wait while there is no tracker."""
PAUSE = 1.0
"""Seconds between two starts of a tracker."""
PASSWORD = "QD_TRACKING_PASSWORD"  # noqa: S105 - the name of a variable
LOG = "tracking.log"
_PR_SET_PDEATHSIG = 1


class Tracking:
    """The listener and the tracker of one attempt on this node. Runs in the attempt's folder."""

    __slots__ = ("_cgroup", "_launch", "_listener", "_next", "_password", "_pid", "_port")

    def __init__(self, launch: dict[str, Any], cgroup: str | None) -> None:
        self._launch, self._cgroup = launch, cgroup
        self._listener: socket.socket | None = None
        self._pid: int | None = None
        self._next = 0.0
        if not launch.get("tracking") or "MLFLOW_TRACKING_URI" in launch["env"]:
            return  # a job's secrets can name a server, too
        with contextlib.suppress(OSError):  # the ranks can do without
            self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._listener.bind(("127.0.0.1", 0))
            self._listener.listen(QUEUE)
            self._port = self._listener.getsockname()[1]
            self._password = os.urandom(24).hex()

    def environment(self, rank: int) -> dict[str, str]:
        """What makes a rank's MLflow client come here. User name and password, since a token would
        lose against those of a user's own."""
        if self._listener is None:
            return {}
        return {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self._port}",
            "MLFLOW_TRACKING_USERNAME": f"rank-{rank}",
            "MLFLOW_TRACKING_PASSWORD": self._password,
            # There is no page behind the address that it would print.
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }

    def awaited(self, now: float) -> list[int]:
        """What becomes readable when a tracker is wanted and may be started.

        Args:
            now: seconds on a clock that never jumps.
        """
        wanted = self._listener is not None and self._pid is None and now >= self._next
        return [self._listener.fileno()] if self._listener is not None and wanted else []

    def start(self, now: float) -> None:
        """Have a tracker."""
        self._next = now + PAUSE
        guard = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
        try:
            pid = cgroups.fork_into(self._cgroup)
            if pid == 0:
                self._become_tracker(guard)
            self._pid = pid
        except OSError:  # the next look tries again
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})

    def ended(self, pid: int) -> None:
        """A child of the guard's is gone."""
        if pid == self._pid:
            self._pid = None

    def close(self) -> None:
        """The ranks are gone, and with them all that it is there for."""
        if self._pid is not None:
            with contextlib.suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = None

    def _become_tracker(self, guard: int) -> None:
        try:
            assert self._listener is not None
            log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            null = os.open("/dev/null", os.O_RDONLY)
            os.set_inheritable(self._listener.fileno(), True)
            for source, target in ((null, 0), (log, 1), (log, 2), (self._listener.fileno(), 3)):
                os.dup2(source, target, inheritable=True)
            os.closerange(4, 65536)
            os.setsid()
            os.chdir(self._launch.get("own", "."))
            rights.become(self._launch.get("as"))
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != guard:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # the ranks go first, and may log as they do
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            facts = {
                "key": self._launch["key"],
                "work": self._launch["work"],
                "ranks": [spec["rank"] for spec in self._launch["ranks"]],
            }
            # By the tag what an orphaned attempt has left is found and killed.
            env = {"QD_GUARD": self._launch["tag"], PASSWORD: self._password, "LANG": "C.UTF-8"}
            argv = [sys.executable, "-I", "-S", PROGRAM, json.dumps(facts)]
            os.execve(sys.executable, argv, env)  # noqa: S606
        finally:
            os._exit(127)
