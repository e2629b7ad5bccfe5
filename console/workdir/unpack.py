"""A work folder from a tar archive on standard input: `tar c . | ssh head submit job.yaml --workdir -`.

Who sends it may be a guest, so nothing in it may reach out of the folder, and nothing it holds is run:
links are made last, when no file is written any more, and `.git` stays behind, for its config names
programs that git would start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import IO, BinaryIO

from jobs.base.errors import InvalidInput
from jobs.base.paths import SafePath, check_link
from jobs.base.units import format_size
from jobs.snapshots.manifest import MAX_FILES

_REFUSED_NAMES = frozenset((".git",))


def unpack(stream: BinaryIO, folder: Path, limit: int) -> list[str]:
    """Unpack an archive, compressed or not, into an empty folder; gives warnings for what is left out.

    Args:
        limit: bytes that its files may have together.

    Raises:
        InvalidInput: it is no archive, is cut, too large, or holds a path that leads out.
    """
    warnings: list[str] = []
    links: dict[SafePath, str] = {}
    left, entries = limit, 0
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                path = _path(member.name)
                entries += 1
                if path is None or _REFUSED_NAMES & set(path.parts):
                    continue
                if entries > MAX_FILES:
                    raise InvalidInput(f"the archive has more than {MAX_FILES} entries")
                links.pop(path, None)
                if member.isdir():
                    folder.joinpath(*path.parts).mkdir(parents=True, exist_ok=True)
                elif member.isreg():
                    left -= member.size
                    if left < 0:
                        raise InvalidInput(
                            f"the archive holds more than {format_size(limit)}",
                            "Leave out what the job does not need: `tar c --exclude=data .`.",
                        )
                    content = archive.extractfile(member)
                    assert content is not None
                    _write(folder, path, content, executable=bool(member.mode & 0o100))
                elif member.islnk():
                    left -= _copy(folder, member, path, left)
                elif member.issym():
                    links[path] = member.linkname
                else:
                    warnings.append(f"{path} is no file, folder or link, and stays behind")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InvalidInput(
            f"standard input is not a complete tar archive: {error}",
            "Send one: `tar c . | ssh ... submit job.yaml --workdir -`.",
        ) from None
    for path, target in links.items():
        _link(folder, path, target)
    return warnings


def _path(name: str) -> SafePath | None:
    """Where a member goes; None for the folder itself. Raises InvalidInput."""
    if name in (".", "./", ""):
        return None
    try:
        return SafePath.parse(name)
    except ValueError as error:
        raise InvalidInput(f"in the archive: {error}") from None


def _write(folder: Path, path: SafePath, content: IO[bytes], *, executable: bool) -> None:
    place = folder.joinpath(*path.parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        place.unlink()  # a later member of that name is what counts
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags, 0o700 if executable else 0o600), "wb") as file:
        shutil.copyfileobj(content, file)


def _copy(folder: Path, member: tarfile.TarInfo, path: SafePath, left: int) -> int:
    """A hard link is a copy here; gives its size. Raises InvalidInput when it does not fit."""
    source = _path(member.linkname)
    if source is None or source == path:
        return 0
    held = folder.joinpath(*source.parts)
    size = held.stat().st_size
    if size > left:
        raise InvalidInput("the archive holds more than a work folder may, hard links counted")
    with held.open("rb") as file:
        _write(folder, path, file, executable=bool(held.stat().st_mode & 0o100))
    return size


def _link(folder: Path, path: SafePath, target: str) -> None:
    """A link as it is, below real folders alone."""
    try:
        check_link(target)
    except ValueError as error:
        raise InvalidInput(f"in the archive: {path}: {error}") from None
    above = folder
    for part in path.parts[:-1]:
        above = above / part
        if above.is_symlink():
            raise InvalidInput(f"in the archive: {path} goes through a link")
        above.mkdir(exist_ok=True)
    place = above / path.parts[-1]
    if not place.exists() and not place.is_symlink():
        place.symlink_to(target)
