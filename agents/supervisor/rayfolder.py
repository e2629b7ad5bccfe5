"""Ray's folder below /tmp: made for us alone, kept from those who clean /tmp, and looked after.

Ray's sockets need a short path, so it cannot live in the state folder. Without its session's folders no
worker can be started any more, and an agent that dies then would never come back.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from jobs.base.errors import NotAllowed

EVERY = 5.0
"""Seconds between two looks: a handful of calls of `stat`."""
PATIENCE = 120.0
"""Seconds for Ray to make its session, which takes about three on an idle machine."""


def owner(path: Path) -> int | None:
    """The user whose folder this is; -1 for what is no folder, None where there is nothing."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_uid if stat.S_ISDIR(status.st_mode) else -1


def check(path: Path) -> None:
    """Raises NotAllowed when somebody else has made it, or something that is no folder is there."""
    found = owner(path)
    if found in (None, os.getuid()):
        return
    what = "is no folder" if found == -1 else f"belongs to the user {found}"
    raise NotAllowed(
        f"Ray's folder {path} {what}, so Ray cannot be started there",
        "Have it removed by whoever made it, or by root; or use another state folder (QD_HOME).",
    )


def remove(path: Path) -> list[str]:
    """Remove it if it is ours; a sentence when something remains."""
    found = owner(path)
    if found is None:
        return []
    if found != os.getuid():
        return [f"left {path} alone, which is not ours"]
    shutil.rmtree(path, ignore_errors=True)
    return [f"cannot remove all of {path}"] if path.exists() else []


class RayFolder:
    """Args:
    outer: the folder that is ours alone.
    inner: the one below it in which Ray makes its sessions.
    """

    def __init__(self, outer: Path, inner: Path) -> None:
        self.outer, self._inner = outer, inner
        self._lock: int | None = None
        self._needed: list[Path] = []
        self._since = 0.0
        self.due = 0.0

    def started(self, now: float) -> None:
        """Ray was started, or adopted."""
        self._needed, self._since, self.due = [], now, now + EVERY
        self.hold()

    def hold(self) -> None:
        """Keep systemd-tmpfiles from aging what is in it: it leaves alone what somebody has locked."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock = os.open(self.outer, flags)
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def gone(self, now: float) -> bool:
        """Look, if it is time to; whether Ray lacks what it needs to go on."""
        if now < self.due:
            return False
        self.due = now + EVERY
        if self._needed:
            return not all(path.exists() for path in self._needed)
        self._needed = self._look()
        return not self._needed and now - self._since > PATIENCE

    def _look(self) -> list[Path]:
        """What belongs to the newest session, once it is whole."""
        sessions = sorted(p for p in self._inner.glob("session_2*") if not p.is_symlink())
        for session in sessions[-1:]:
            sockets = [p for p in session.glob("sockets/*") if p.is_socket()]
            if (session / "logs").is_dir() and sockets:
                return [session / "logs", *sockets]
        return []
