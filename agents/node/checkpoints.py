"""The checkpoint folders of a node's jobs: what is in one, and beginning one with another's files.

A job's folder outlives its attempts. It may lie on a file system that nodes share.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from jobs.errors import InvalidInput
from jobs.paths import open_below
from jobs.snapshot import MAX_FILES, Manifest, extract
from jobs.wire import CheckpointFile


def listed(folder: Path) -> list[CheckpointFile]:
    """The regular files of a checkpoint folder, by path. Links are left out, and what
    `quarterdeck.atomic_write` has not finished.

    Raises InvalidInput when there are more than any manifest can hold.
    """
    found: list[CheckpointFile] = []
    for base, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(".tmp"):
                continue
            path = Path(base, name)
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    mode = 0o755 if status.st_mode & 0o100 else 0o644
                    rel = path.relative_to(folder).as_posix()
                    found.append(CheckpointFile(path=rel, mode=mode, size=status.st_size))
        if len(found) > MAX_FILES:
            raise InvalidInput(f"the checkpoint folder has more than {MAX_FILES} files")
    return sorted(found, key=lambda file: file["path"])


def read(folder: Path, path: str, offset: int, limit: int) -> bytes:
    """Bytes of one of its files. Raises NotFound, InvalidInput for an unsafe path."""
    descriptor = open_below(folder, path)
    try:
        return os.pread(descriptor, limit, offset)
    finally:
        os.close(descriptor)


def begin(folder: Path, manifest: Manifest, blob_path: Callable[[str], Path]) -> None:
    """Make a checkpoint folder with these files; one that is there is left as it is. Extracts beside,
    then renames: the folder is there only when it is whole.

    Raises NotFound for a missing blob, StorageFull.
    """
    if folder.exists():
        return
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        extract(manifest, blob_path, beside)
        with contextlib.suppress(OSError):  # another node was first: they share the file system
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
