"""Whose rights ranks have on a node, and how a root agent touches what is theirs.

Where ranks run as the users who submitted them (`QD_RANKS_AS`), an attempt's folder stays the agent's,
with all records of guard and agent in it. What its ranks write goes into folders of it that are the
user's: `work`, and `own` for the rest. Users can put anything there, links to others' files too. So
whatever the agent reads or writes in such a folder, it does with the rights of the folder's owner
(`acting_for`): the kernel then refuses what it would refuse the user.

Whose a folder is, its owner says, and never a file in it: only root can change that.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import pwd
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.base.errors import Conflict

OWN = "own"
"""The folder in an attempt's for what its ranks write outside their work folder; absent where they run
as the agent's own account."""
PASSAGE = 0o711
"""Mode of a root agent's folders on the way to what is the users': to go through, not to look around."""
_NAMED_FOR = 30.0
"""Seconds for which an account is remembered: looking it up reads a file, or asks a server."""
_SETGROUPS = {"x86_64": 116}.get(platform.machine(), 159)  # 159: of all newer architectures
_libc = ctypes.CDLL(None, use_errno=True)


class NoAccount(Conflict):
    """This node cannot run ranks as that user; another one might."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this node. `groups` are those of the group database, the primary one among them."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    def to_json(self) -> dict[str, Any]:
        """What `guard/rights.py` needs."""
        return {"uid": self.uid, "gid": self.gid, "groups": list(self.groups)}

    def environment(self) -> dict[str, str]:
        """The variables that a login sets. The home is left out where there is none."""
        env = {"USER": self.name, "LOGNAME": self.name, "SHELL": self.shell or "/bin/sh"}
        return {**env, "HOME": self.home} if Path(self.home).is_dir() else env


def find(name: str) -> Account | None:
    """The account that ranks are to run as; None when that is the agent's own. Blocking: it may ask a
    server. Raises NoAccount."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise NoAccount(
            f"there is no account '{name}' on this node, and ranks run as the user who submitted them",
            "Create it there, with the groups that it has elsewhere.",
        ) from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise NoAccount(
            f"this node's agent does not run as root, so it cannot run ranks as {name}",
            "Run the node's service as root, or set QD_RANKS_AS=node on the head.",
        )
    return _account(entry)


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(
        entry.pw_name,
        entry.pw_uid,
        entry.pw_gid,
        tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        entry.pw_dir,
        entry.pw_shell,
    )


@functools.lru_cache(maxsize=1024)
def _of_uid(uid: int, gid: int, _turn: int) -> Account:
    """An account that was deleted meanwhile still owns its files: with no groups then."""
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        return Account(f"uid{uid}", uid, gid, (gid,), "/nonexistent", "")


def owner(path: Path) -> Account | None:
    """Whose a file or folder is; None when it is the agent's own, or not there, or the agent is not root
    and has no other user's rights to take."""
    if os.geteuid() != 0:
        return None
    try:
        found = path.lstat()
    except OSError:
        return None
    if found.st_uid == 0:
        return None
    return _of_uid(found.st_uid, found.st_gid, int(time.monotonic() // _NAMED_FOR))


def facing(folder: Path) -> Path:
    """The folder of an attempt in which its ranks and we leave files for each other."""
    own = folder / OWN
    return own if own.is_dir() and not own.is_symlink() else folder


def of_attempt(folder: Path) -> Account | None:
    """Whom the ranks of an attempt run as; None: the agent's own account."""
    return owner(folder / OWN)


@contextlib.contextmanager
def acting_for(path: Path) -> Iterator[None]:
    """Access files with the rights of a folder's owner, as an NFS server does: what they cannot read or
    write, this block cannot. For blocks without `await` or `yield`, since it is this thread that has the
    rights.
    """
    account = owner(path)
    if account is None:
        yield
        return
    before = os.getgroups()
    try:
        _set_groups(account.groups)
        _libc.setfsgid(account.gid)
        _libc.setfsuid(account.uid)
        # Neither call tells of a failure: each gives the value before, so a second call shows.
        if _libc.setfsuid(-1) != account.uid or _libc.setfsgid(-1) != account.gid:
            raise PermissionError(f"this process cannot act for {account.name}")
        yield
    finally:
        _libc.setfsuid(os.geteuid())
        _libc.setfsgid(os.getegid())
        _set_groups(before)


def _set_groups(groups: list[int] | tuple[int, ...]) -> None:
    """Of this thread alone; `os.setgroups` would change them for all threads. Raises OSError."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    if _libc.syscall(_SETGROUPS, ctypes.c_size_t(len(groups)), array):
        raise OSError(ctypes.get_errno(), "setgroups")


def hand_over(folder: Path, account: Account, *others: Path) -> None:
    """Give an attempt's folder its part that is the user's, before anything of theirs has run in it. What
    lies in the folder itself stays the agent's: the user can pass through it, and read nothing.

    Args:
        others: folders that the user has to get to as well.

    Raises NoAccount when the user could not get there, OSError.
    """
    _open_passages(folder.parents[1])
    for wanted in (folder.parent, *others):
        if (above := _barrier(wanted, account)) is not None:
            raise NoAccount(
                f"{account.name} cannot get to {wanted}: {above} lets nobody else through",
                f"chmod o+x {above}, or move the node's state (QD_NODE_STATE).",
            )
    own = folder / OWN
    own.mkdir(mode=0o700, exist_ok=True)
    os.chown(own, account.uid, account.gid)
    os.chown(folder, -1, account.gid)
    folder.chmod(0o710)


def _barrier(folder: Path, account: Account) -> Path | None:
    """The folder above which a user cannot pass, if there is one."""
    for each in (*reversed(folder.parents), folder):
        found = each.stat()
        bit = (
            0o100
            if found.st_uid == account.uid
            else 0o010
            if found.st_gid in account.groups
            else 0o001
        )
        if not found.st_mode & bit:
            return each
    return None


def give(folder: Path, account: Account | None) -> None:
    """Make a folder and all in it a user's. Nobody else may have been able to write there. Blocking.
    Raises OSError."""
    if account is None:
        return
    for _, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, account.uid, account.gid, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, account.uid, account.gid)


def _open_passages(root: Path) -> None:
    """Let users through the agent's folder to what is theirs, and to nothing else. Raises OSError."""
    for name in PASSED:
        (root / name).mkdir(mode=PASSAGE, exist_ok=True)
    for path in root.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.name in PASSED:
                path.chmod(PASSAGE)
            elif not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)
    root.chmod(PASSAGE)


PASSED = ("attempts", "checkpoints", "data", "envs", "kept")
"""Folders of the agent's that lead to what ranks read and write."""
