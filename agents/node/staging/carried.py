"""What an attempt's work folder has of an earlier attempt's: all that was written there (`resume: workdir`).

The folder is what was submitted, then what was written over it. A mark between the two tells them apart
later, so that a third attempt gets what the first one wrote as well.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from agents.node.results import tree
from agents.node.results.kept import CARRIED
from jobs.base.paths import open_below


def mark(folder: Path) -> None:
    """Note in an attempt's folder that from now on its files are carried ones. A file system's clock has
    ticks of some milliseconds, and what is written next has to be later."""
    path = folder / CARRIED
    path.write_bytes(b"")
    then = path.stat().st_ctime_ns
    probe = folder / f"{CARRIED}.probe"
    while True:
        probe.write_bytes(b"")
        now = probe.stat().st_ctime_ns
        probe.unlink()
        if now > then:
            return


def lay_over(source: Path, since: int | None, target: Path) -> int:
    """Copy what was written below one folder since a moment (`tree.written_since`) over another; how many
    files that were. What is in their way there is removed. Blocking. Raises OSError."""
    new, count = tree.written_since(since), 0
    for path, found in tree.walk(source):
        if not new(found):
            continue
        place = _free(target, path)
        if stat.S_ISLNK(found.st_mode):
            place.symlink_to((source / path).readlink())
        else:
            with open(open_below(source, path), "rb") as old, place.open("xb") as copy:  # noqa: PTH123
                shutil.copyfileobj(old, copy, 1 << 20)
            place.chmod(0o755 if found.st_mode & 0o100 else 0o644)
            os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))
        count += 1
    return count


def _free(target: Path, path: str) -> Path:
    """Where a file goes, with folders above it and nothing in its place. A link is in the way, wherever it
    leads: nothing is written through one."""
    place = target
    for part in Path(path).parts[:-1]:
        place /= part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            place.unlink()
        place.mkdir(exist_ok=True)
    place /= Path(path).name
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    return place
