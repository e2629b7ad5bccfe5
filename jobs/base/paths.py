"""The one type for relative paths that come from outside: from a file, an API call, a snapshot.

`SafePath` is the check by name, which holds anywhere. `safe_join` adds the check on disk: links below
the root may not lead out of it. `open_below` is for a root in which somebody else (a rank) may change
links while we look: it checks and opens in one step.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from jobs.base.errors import InvalidInput, NotFound
from jobs.base.units import show

MAX_NAME = 255
"""Bytes of one component (NAME_MAX of the file systems in use)."""
MAX_PATH = 4095
"""Bytes of a whole path (PATH_MAX without its NUL)."""
_MAX_LINKS = 40
"""Links followed for one path before it counts as a loop, as the kernel does."""


@dataclass(frozen=True, slots=True, order=True)
class SafePath:
    """A relative path that cannot climb: at least one component, none empty, `.` or `..`."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> SafePath:
        """Read a relative path. `./a//b/` is accepted and means `a/b`.

        Raises ValueError for an empty or absolute path, `..`, NUL, a backslash (a separator elsewhere,
        so a trap here), text that is not UTF-8, and components or paths too long for a file system.
        """
        if "\0" in text:
            raise ValueError(f"found {show(text)}; allowed: a path without NUL bytes")
        if "\\" in text:
            raise ValueError(f"found {show(text)}; allowed: a path with / and without backslashes")
        if text.startswith("/"):
            raise ValueError(f"found {show(text)}; allowed: a relative path")
        parts = tuple(part for part in text.split("/") if part not in ("", "."))
        if not parts:
            raise ValueError(
                f"found {show(text)}; allowed: a path below the folder, such as out/model"
            )
        if ".." in parts:
            raise ValueError(f"found {show(text)}; allowed: a path without '..'")
        try:
            sizes = [len(part.encode()) for part in parts]
        except UnicodeEncodeError:
            raise ValueError(f"found {show(text)}; allowed: a path in UTF-8") from None
        if max(sizes) > MAX_NAME or sum(sizes) + len(sizes) - 1 > MAX_PATH:
            raise ValueError(
                f"found {show(text)}; allowed: at most {MAX_NAME} bytes a name, {MAX_PATH} in all"
            )
        return cls(parts)

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def parents(self) -> list[str]:
        """The folders above it, outermost first, without the root: `a/b/c` has `a` and `a/b`."""
        return ["/".join(self.parts[:count]) for count in range(1, len(self.parts))]


def check_link(target: str) -> None:
    """Refuse a target that no symbolic link can hold on every node. Raises ValueError.

    Where it leads is the link's business: a snapshot keeps `data -> /mnt/data` as it is. Nothing of ours
    may follow a link in a folder that others have filled (`safe_join` and `open_below` do not).
    """
    if not target or "\0" in target:
        raise ValueError(f"link to {show(target)}; allowed: a path")
    try:
        size = len(target.encode())
    except UnicodeEncodeError:
        raise ValueError(f"link to {show(target)}; allowed: a path in UTF-8") from None
    if size > MAX_PATH:
        raise ValueError(f"link to {show(target)}; allowed: at most {MAX_PATH} bytes")


def leads_out(path: SafePath, target: str) -> bool:
    """Whether a link at `path` leads out of the root by its name: absolute, or with more `..` than
    there are folders above it."""
    if target.startswith("/"):
        return True
    depth = len(path.parts) - 1
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return True
    return False


def safe_join(root: Path, rel: str) -> Path:
    """`root / rel`, when that stays below `root` by name and through every link on the way.

    The path need not exist. The answer is true for the moment of the call: where others may change
    the folder meanwhile, use `open_below`. Raises InvalidInput.
    """
    try:
        safe = SafePath.parse(rel)
    except ValueError as error:
        raise InvalidInput(f"unsafe path: {error}") from None
    _resolve(root, list(safe.parts), rel)
    return root.joinpath(*safe.parts)


def _resolve(root: Path, todo: list[str], rel: str) -> None:
    """Walk `todo` below `root` one component at a time, as the kernel does, and raise on a way out."""
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            if not done:
                raise InvalidInput(f"unsafe path: {show(rel)} leads out of its folder")
            done.pop()
            continue
        here = root.joinpath(*done, part)
        try:
            target = str(here.readlink())  # fails with EINVAL for what is not a link
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                raise InvalidInput(f"cannot look at {show(rel)}: {error.strerror}") from None
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise InvalidInput(f"unsafe path: {show(rel)} goes through a loop of links")
        if target.startswith("/"):
            raise InvalidInput(f"unsafe path: {show(rel)} goes through an absolute link")
        todo[:0] = [step for step in target.split("/") if step not in ("", ".")]


def open_below(root: Path, rel: str) -> int:
    """Open a regular file below `root` for reading and return its descriptor, which the caller closes.

    No link is followed, and each component is opened relative to the one before it, so nothing that
    is swapped meanwhile can lead elsewhere. Raises InvalidInput for an unsafe path, a link or what is
    not a regular file, and NotFound when it is not there.
    """
    try:
        safe = SafePath.parse(rel)
    except ValueError as error:
        raise InvalidInput(f"unsafe path: {error}") from None
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in safe.parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: opening a FIFO that nobody writes to would otherwise wait for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(safe.parts[-1], flags, dir_fd=folder)
    except FileNotFoundError:
        raise NotFound(f"no file {show(rel)}") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise InvalidInput(f"unsafe path: {show(rel)} goes through a link or a file") from None
        raise InvalidInput(f"cannot open {show(rel)}: {error.strerror}") from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InvalidInput(f"{show(rel)} is not a regular file")
    return file
