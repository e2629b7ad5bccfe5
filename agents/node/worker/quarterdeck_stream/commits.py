"""What a stream has reached, on the disk: whole or not at all.

    step-12000/model/...            what the script saved after 12,000 records
    step-12000/stream.json          where the stream was then
    step-12000/rejects/000001.jsonl the bad records until then
    release-3/...                   what the script saved, as it was released; release.json says when and why

Each folder is written under a hidden name and renamed. Names are such that the copies on the head
(docs/checkpoints.md) take the newest of each.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .settings import StreamError

STATE = "stream.json"
FACTS = "release.json"
KEPT = 3
"""Steps and releases that stay: the head takes its time to copy one."""
SEGMENT = 1 << 20
"""Bytes from which another file of bad records begins."""

if TYPE_CHECKING:
    from collections.abc import Callable

    Save = Callable[[Path], None]


class Commits:
    """Args:
    folder: the job's checkpoint folder.
    rejects: bytes of bad records that are kept.

    Raises StreamError when another process has it.
    """

    def __init__(self, folder: Path, rejects: int) -> None:
        self._folder, self._rejects = folder, rejects
        # Hidden and .tmp: it is no checkpoint to copy.
        self._lock = os.open(
            str(folder / ".stream.tmp"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StreamError(f"another process has a stream in {folder}") from None
        self.last: Path | None = None
        """The newest step."""

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def restore(self) -> dict[str, Any] | None:
        """The state of the newest step, after clearing away what a kill has left. None: there is no step."""
        state = None
        for number, path in reversed(self._steps()):
            try:
                state = json.loads((path / STATE).read_bytes())
                self.last = path
                break
            except (OSError, ValueError) as error:
                sys.stderr.write(f"quarterdeck_stream: step {number} cannot be read: {error}\n")
        for path in self._folder.glob(".*.tmp"):
            if path.is_dir():
                shutil.rmtree(str(path))
        if state is not None:
            self._prune()
            self._release(state)
        return state

    def commit(self, state: dict[str, Any], save: Save | None, rejects: list[bytes]) -> None:
        """Make a step of what `save` writes, and the release that its state names.

        Args:
            state: with `read`, the step's number, and `release`: None, or what is known of the newest.
            rejects: lines of bad records since the last step.
        """
        name = f"step-{state['read']}"
        temporary = self._empty(name)
        (temporary / "model").mkdir()
        if save is not None:
            save(temporary / "model")
        self._add_rejects(temporary / "rejects", rejects)
        (temporary / STATE).write_text(json.dumps(state, separators=(",", ":")), "ascii")
        self._place(temporary, name)
        self.last = self._folder / name
        self._release(state)
        self._prune()

    def _add_rejects(self, folder: Path, lines: list[bytes]) -> None:
        """Those of the last step, with some more; the oldest are left out where there is no room."""
        folder.mkdir()
        before = self.last / "rejects" if self.last is not None else None
        known = sorted(before.iterdir()) if before is not None and before.is_dir() else []
        sizes = {path: path.stat().st_size for path in known}
        data = b"".join(lines)
        while len(known) > 1 and sum(sizes[path] for path in known) + len(data) > self._rejects:
            known.pop(0)
        for path in known[:-1]:
            _link(path, folder / path.name)
        number = 1
        if known:
            number = int(known[-1].stem)
            if not data or sizes[known[-1]] >= SEGMENT:
                _link(known[-1], folder / known[-1].name)
                number += 1
            else:
                data = known[-1].read_bytes() + data
        if data:
            (folder / f"{number:06d}.jsonl").write_bytes(data)

    def _release(self, state: dict[str, Any]) -> None:
        """Make the release that the newest step is, unless it is there."""
        facts = state["release"]
        if facts is None or facts["read"] != state["read"] or self.last is None:
            return
        name = f"release-{facts['number']}"
        if (self._folder / name).exists():
            return
        temporary = self._empty(name)
        temporary.rmdir()
        shutil.copytree(str(self.last / "model"), str(temporary))
        (temporary / FACTS).write_text(json.dumps(facts, indent=1), "ascii")
        self._place(temporary, name)

    def _empty(self, name: str) -> Path:
        temporary = self._folder / f".{name}.tmp"
        if temporary.exists():
            shutil.rmtree(str(temporary))
        temporary.mkdir()
        return temporary

    def _place(self, temporary: Path, name: str) -> None:
        """Give a folder its name once all of it is on the disk."""
        for root, _, files in os.walk(str(temporary), topdown=False):
            for file in files:
                path = os.path.join(root, file)  # noqa: PTH118
                if not os.path.islink(path):  # noqa: PTH114
                    _sync(path)
                    # A file whose last change was no write is a whole one to who copies it.
                    os.chmod(path, os.stat(path).st_mode & 0o7777)  # noqa: PTH101, PTH116
            _sync(root)
        target = self._folder / name
        if target.exists():  # a step that nobody could read
            shutil.rmtree(str(target))
        temporary.rename(target)
        _sync(str(self._folder))

    def _steps(self) -> list[tuple[int, Path]]:
        return _numbered(self._folder, "step-")

    def _prune(self) -> None:
        steps = [path for _, path in self._steps() if path != self.last]
        old = steps[: max(0, len(steps) - KEPT + 1)]
        old += [path for _, path in _numbered(self._folder, "release-")[:-KEPT]]
        for path in old:
            # Renamed first: half of a step is no step.
            gone = self._folder / f".{path.name}.old.tmp"
            with contextlib.suppress(OSError):
                path.rename(gone)
                shutil.rmtree(str(gone))


def _numbered(folder: Path, start: str) -> list[tuple[int, Path]]:
    found = [
        (int(path.name[len(start) :]), path)
        for path in folder.glob(f"{start}*")
        if path.name[len(start) :].isdigit()
    ]
    return sorted(found)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(str(source), str(target))
    except OSError:  # a file system without them
        shutil.copyfile(str(source), str(target))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
