"""The checkpoint folders of a node's jobs: beginning one with files from the head.

A job's folder outlives its attempts. It may lie on a file system that nodes share.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from agents.node import accounts
from agents.node.checkpoints.look import Looker, form_of
from jobs.base.disk import storage_full
from jobs.checkpoints.units import whole_mtime
from jobs.snapshots.manifest import FileEntry, Manifest, extract
from jobs.wire.messages import Resume

_ROUNDING = 1e-3
"""Seconds: times go through floats, and some file systems round them."""


def begin(
    folder: Path,
    manifest: Manifest,
    blob_path: Callable[[str], Path],
    account: accounts.Account | None = None,
) -> None:
    """Make a checkpoint folder with these files; one that is there is left as it is. Extracts beside,
    then renames: the folder is there only when it is whole.

    Raises NotFound for a missing blob, StorageFull.
    """
    if folder.exists():
        return
    beside = _beside(folder)
    try:
        extract(manifest, blob_path, beside)
        accounts.give(beside, account)
        beside.rename(folder)
    except OSError as error:
        # Another node may have been first: they share the file system. Any other failure must be
        # told, or the job would begin without its checkpoint.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise storage_full(f"cannot make {folder}", error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def lacking(folder: Path, manifest: Manifest, copy: Resume) -> Manifest:
    """The files of a copy that a checkpoint folder has to be given: what this node does not have itself, or
    newer. No rank of the job runs. Blocking.

    On the nodes that the copy came from, each has its own share, unless that was lost. On others every node
    gets the shares of all; what is whole and newer than the copy stays.
    """
    if _unfinished(folder).exists():
        return manifest
    looker = Looker(folder)
    looker.look(0.0, quiet=True)
    here, mine = whole_mtime(looker.units) / 1e9, copy["mine"]
    if not copy["moved"]:
        wanted = copy["at"] if mine is None else mine
        return manifest if here < wanted - _ROUNDING else Manifest()
    intact = mine is not None and here >= mine - _ROUNDING
    with accounts.acting_for(folder):
        return Manifest(
            tuple(
                entry
                for entry in manifest.files
                if not _has(folder, entry, None if intact else copy["at"])
            )
        )


def _has(folder: Path, entry: FileEntry, after: float | None) -> bool:
    """Whether a file is there and not cut: of the same size, or written after a moment (unix time)."""
    try:
        found = (folder / entry.path).lstat()
    except OSError:
        return False
    if entry.link is not None:
        return True
    if not stat.S_ISREG(found.st_mode):
        return False
    fits = found.st_size == entry.size if after is None else found.st_mtime > after + _ROUNDING
    return fits and form_of(folder, entry.path, found.st_size)[0] != "torn"


def resume(
    folder: Path,
    manifest: Manifest,
    at: float,
    blob_path: Callable[[str], Path],
    account: accounts.Account | None = None,
) -> None:
    """Put a copy's files into a checkpoint folder, over those of the same names. What else is there stays.
    A note beside says that this is not finished, so that it is done again after a crash.

    Args:
        at: unix time of the copy's newest file, which becomes the time of these.

    Raises NotFound for a missing blob, StorageFull.
    """
    beside, note = _beside(folder), _unfinished(folder)
    try:
        extract(manifest, blob_path, beside)
        for entry in manifest.files:
            if entry.link is None:
                os.utime(beside / entry.path, (at, at))
        note.touch()
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            accounts.give(folder, account)
        accounts.give(beside, account)
        with accounts.acting_for(folder):
            for entry in manifest.files:
                target = folder / entry.path
                _make_room(folder, entry.path)
                (beside / entry.path).rename(target)
        note.unlink()
    except OSError as error:
        raise storage_full(f"cannot lay out the checkpoint in {folder}", error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _make_room(folder: Path, path: str) -> None:
    """What a job has put where a file belongs goes: a link on the way, a folder in its place."""
    here = folder
    for part in path.split("/")[:-1]:
        here = here / part
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            here.unlink()
        here.mkdir(mode=0o700, exist_ok=True)
    target = folder / path
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished")


def _beside(folder: Path) -> Path:
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise storage_full(f"cannot make {folder}", error) from error
