"""Cached Python environments, one per requirements file and interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.node import accounts
from agents.node.staging.caches import Item
from agents.node.staging.environment import user_environment
from agents.node.staging.pipsaid import reason
from jobs.base.errors import InvalidInput, StorageFull

TAIL_LINES = 15
_LOCK_POLL = 0.5  # seconds between looks at a build that another process does


class EnvCache:
    """Environments below `root`, as `<hash>/` with `<hash>.log` and `<hash>.lock` beside it.

    An environment is usable when it holds the file `ready`, which is made last. The builder's
    processes inherit the lock, so a build that outlives its agent is waited for, not joined.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, requirements: str, base: str, account: accounts.Account | None = None) -> Path:
        """Where the environment for these requirements on this interpreter lies.

        Args:
            account: whose it is, where ranks run as users. What installs packages runs code of theirs, so
                each user has their own, and nobody runs another's.
        """
        text = f"{Path(base).resolve()}\0{requirements}"
        if account is not None:
            text += f"\0{account.uid}"
        return self._root / hashlib.sha256(text.encode()).hexdigest()[:32]

    async def ensure(
        self,
        requirements: str,
        base: str,
        environ: Mapping[str, str],
        progress: Callable[[str], None],
        account: accounts.Account | None = None,
    ) -> Path:
        """The interpreter of the environment, built now if it is not there.

        Args:
            requirements: text of a requirements file, as pip reads it.
            base: interpreter to build it with.
            environ: environment of the builder's processes.
            progress: told what is being done, in words.
            account: who builds it, and whose it is; None: this process's own.

        Raises InvalidInput with the end of the builder's output. Cancelling ends the builder.
        """
        folder = self.folder(requirements, base, account)
        python = folder / "bin" / "python"
        if _take(folder):
            return python
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with _locked(folder.with_suffix(".lock"), progress) as lock:
            if _take(folder):
                return python
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            log = folder.with_suffix(".log")
            log.write_bytes(b"")
            wanted = folder.with_suffix(".txt")
            wanted.write_text(requirements)
            if account is not None:
                environ = user_environment(environ, account.environment())
                wanted.chmod(0o600)  # an index's address in it may hold a password
                os.chown(wanted, account.uid, account.gid)
                folder.mkdir(mode=0o700)
                os.chown(folder, account.uid, account.gid)
            pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
            progress("making a Python environment")
            await _run([base, "-m", "venv", str(folder)], environ, log, lock, account)
            progress("installing its requirements")
            await _run([str(python), *pip, "-r", str(wanted)], environ, log, lock, account)
            await asyncio.to_thread(_finish, folder)
        return python

    def items(self) -> list[Item]:
        """See `caches.Cache`. One that is not ready is being built, or will be anew when it is wanted."""
        found = []
        for ready in self._root.glob("*/ready"):
            with contextlib.suppress(OSError), accounts.acting_for(ready.parent):
                size = ready.read_text() or _size(ready.parent)  # older ones did not say
                found.append(Item(ready.parent, int(size), ready.stat().st_mtime))
        return found

    def remove(self, item: Item, trash: Path) -> None:
        """See `caches.Cache`."""
        item.path.rename(trash / uuid.uuid4().hex)
        for end in (".log", ".txt"):
            item.path.with_suffix(end).unlink(missing_ok=True)

    @staticmethod
    def of(python: str) -> Path:
        """The folder of the environment that an interpreter belongs to."""
        return Path(python).parent.parent


def _take(folder: Path) -> bool:
    """Whether an environment is ready; notes that it was used."""
    try:
        with accounts.acting_for(folder):
            os.utime(folder / "ready")
    except FileNotFoundError:
        return False
    return True


def _finish(folder: Path) -> None:
    """Mark an environment as usable. Blocking."""
    with accounts.acting_for(folder):
        (folder / "ready").write_text(str(_size(folder)))


def _size(folder: Path) -> int:
    """Bytes that a folder takes on disk."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


@contextlib.asynccontextmanager
async def _locked(path: Path, progress: Callable[[str], None]) -> AsyncIterator[int]:
    """Hold the lock of an environment; its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for the same environment, which is being built")
                await asyncio.sleep(_LOCK_POLL)
        yield descriptor
    finally:
        os.close(descriptor)


async def _run(
    command: Sequence[str],
    environ: Mapping[str, str],
    log: Path,
    lock: int,
    account: accounts.Account | None,
) -> None:
    """Run one step of a build, its output to `log`. Raises InvalidInput when it fails."""
    identity: dict[str, Any] = {}
    if account is not None:
        identity = {
            "user": account.uid,
            "group": account.gid,
            "extra_groups": account.groups,
            "umask": 0o022,
            "cwd": "/",
        }
    with log.open("ab") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environ,
                pass_fds=[lock],
                start_new_session=True,
                **identity,
            )
        except OSError as error:
            raise InvalidInput(f"cannot start {command[0]}: {error.strerror}") from error
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if code:
        if os.strerror(errno.ENOSPC) in _tail(log):
            raise StorageFull(
                f"the requirements could not be installed: {os.strerror(errno.ENOSPC)}",
                "Free some disk space on the node.",
            )
        said = await asyncio.to_thread(log.read_text, errors="replace")
        raise InvalidInput(
            f"the requirements could not be installed: {reason(said)} (pip's output: {log})",
            "Correct the requirements file, or give an interpreter with --python.",
        )


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
