"""Artifacts of MLflow's clients: files below `mlartifacts` in the attempt's work folder.

There they are what any file is that a job writes: `qd files` lists them, `outputs:` can name them. Ranks may
change the folder at any moment, so each step is taken relative to the one before, and no link is followed.

Paths are below the work folder, and begin with a folder of ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from agents.node.tracking.errors import Refused, invalid, missing
from jobs.base.paths import SafePath

FOLDER = "mlartifacts"
"""Of the job's own run; those of other runs have folders of their own beside it."""
MAX_LISTED = 10_000
MAX_DEPTH = 32
RESERVE = 64 << 20
"""Bytes that are left on a disk."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = 1 << 20


def parts_of(path: str) -> tuple[str, ...]:
    """A path below the folder; empty for the folder itself. Raises Refused."""
    if not path.strip("/"):
        return ()
    try:
        parts = SafePath.parse(path).parts
    except ValueError as error:
        raise invalid(f"Invalid path: {error}") from None
    if len(parts) > MAX_DEPTH or not all(part.isprintable() for part in parts):
        raise invalid("Invalid path: it is too deep, or has characters that cannot be printed")
    return parts


class Artifacts:
    """Methods raise Refused, and OSError when the disk takes nothing. They may run at the same time."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def put(self, path: str, size: int, source: IO[bytes]) -> None:
        """Store the next `size` bytes of `source`, whole or not at all."""
        parts = parts_of(path)
        if not parts:
            raise invalid("Invalid path: it names no file")
        with self._folder(parts[:-1], make=True) as folder:
            disk = os.fstatvfs(folder)
            if size > disk.f_bavail * disk.f_frsize - RESERVE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            temporary = f".{uuid.uuid4().hex}.tmp"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(temporary, flags, 0o644, dir_fd=folder)
            try:
                try:
                    while size:
                        data = source.read(min(size, _READ))
                        if not data:
                            raise invalid("The file was cut off on its way")
                        size -= len(data)
                        view = memoryview(data)
                        while view:
                            view = view[os.write(file, view) :]
                    os.fsync(file)
                finally:
                    os.close(file)
                os.rename(temporary, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                if isinstance(error, IsADirectoryError | NotADirectoryError):
                    raise invalid(f"Invalid path: {path[:200]} is a folder") from None
                raise
            os.fsync(folder)

    def open(self, path: str) -> IO[bytes]:
        parts = parts_of(path)
        with self._folder(parts[:-1]) as folder:
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                file = os.open(parts[-1] if parts else ".", flags, dir_fd=folder)
            except OSError:
                raise missing(f"No such artifact: '{path[:200]}'") from None
            if not stat.S_ISREG(os.fstat(file).st_mode):
                os.close(file)
                raise missing(f"No such artifact: '{path[:200]}' is no file")
            return os.fdopen(file, "rb")

    def list(self, path: str) -> list[dict[str, Any]]:
        """What is in a folder, with names relative to it; empty for what is none."""
        found: list[dict[str, Any]] = []
        try:
            with self._folder(parts_of(path)) as folder, os.scandir(folder) as entries:
                for entry in entries:
                    is_dir = entry.is_dir(follow_symlinks=False)
                    if entry.name.endswith(".tmp") or not (
                        is_dir or entry.is_file(follow_symlinks=False)
                    ):
                        continue
                    item: dict[str, Any] = {"path": entry.name, "is_dir": is_dir}
                    if not is_dir:
                        item["file_size"] = entry.stat(follow_symlinks=False).st_size
                    found.append(item)
                    if len(found) >= MAX_LISTED:
                        break
        except Refused as error:
            if error.status != 404:
                raise
        return sorted(found, key=lambda item: str(item["path"]))

    def delete(self, path: str) -> None:
        parts = parts_of(path)
        if not parts:
            raise invalid("Invalid path: it names no file")
        with self._folder(parts[:-1]) as folder:
            try:
                os.unlink(parts[-1], dir_fd=folder)
            except FileNotFoundError:
                raise missing(f"No such artifact: '{path[:200]}'") from None
            except OSError:
                raise invalid(f"'{path[:200]}' is a folder; files are deleted alone") from None

    @contextlib.contextmanager
    def _folder(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder."""
        folder = os.open(self._work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=folder)
                try:
                    inner = os.open(part, _FOLDER, dir_fd=folder)
                except FileNotFoundError:
                    raise missing("No such artifact") from None
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    if not make:
                        raise missing(
                            "No such artifact: it goes through a file or a link"
                        ) from None
                    raise invalid("Invalid path: it goes through a file or a link") from None
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)
