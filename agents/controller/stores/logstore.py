"""Rank logs as the controller keeps them: append-only files that outlive the node they came from.

`logs/j1/1/r0.log` is byte for byte what the rank wrote. Its size is the cursor: the agent is asked
for bytes from there on, so a chunk that comes twice, or a crash between two chunks, changes nothing.
`r0.times` beside it says when which byte was first seen: pairs of (offset u64, unix time f64).
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from jobs.base.disk import refused, storage_full

T = TypeVar("T")

_ENTRY = struct.Struct("<Qd")
_READ = 256 * 1024
MAX_LINE = 1 << 20
"""A longer line is given in pieces of this many bytes."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `offset` is that of its first byte, `end` that of the next line's."""

    attempt: int
    rank: int
    offset: int
    end: int
    at: float
    data: bytes


class LogStore:
    """All methods block; `run` and `run_reader` call one on the store's own threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="logs")
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="log-readers")

    async def run(self, fn: Callable[..., T], *args: Any) -> T:
        """Run blocking log I/O off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, fn, *args)

    async def run_reader(self, fn: Callable[..., T], *args: Any) -> T:
        """The same for what people ask for, which may take long: what comes in never waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, fn, *args)

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self._readers.shutdown(wait=True, cancel_futures=True)

    def path(self, job: int, attempt: int, rank: int) -> Path:
        return self._root / f"j{job}" / str(attempt) / f"r{rank}.log"

    def size(self, job: int, attempt: int, rank: int) -> int:
        """Bytes held, 0 for a log that does not exist yet."""
        try:
            return self.path(job, attempt, rank).stat().st_size
        except FileNotFoundError:
            return 0

    def sizes(self, job: int) -> dict[tuple[int, int], int]:
        """(attempt, rank) -> bytes, for all that the job has."""
        found = {}
        for path in (self._root / f"j{job}").glob("*/r*.log"):
            found[int(path.parent.name), int(path.stem[1:])] = path.stat().st_size
        return found

    def newest(self, job: int) -> int:
        """The highest number of an attempt of which there is a log; 0 without one."""
        return _highest(self._root / f"j{job}", "")

    def newest_job(self) -> int:
        """The highest number of a job of which there is a log; 0 without one."""
        return _highest(self._root, "j")

    def ranks(self, job: int, attempt: int) -> list[int]:
        """Ranks with a log, in order."""
        folder = self._root / f"j{job}" / str(attempt)
        return sorted(int(path.stem[1:]) for path in folder.glob("r*.log"))

    def append(
        self,
        job: int,
        attempt: int,
        rank: int,
        offset: int,
        data: bytes,
        times: Sequence[tuple[int, float]],
    ) -> int:
        """Add a chunk whose first byte belongs at `offset`; returns the size afterwards.

        Bytes that are held already are skipped; a chunk that would leave a gap is ignored.

        Raises:
            StorageFull: the disk is full. What did fit is kept and counts.
        """
        try:
            return self._append(self.path(job, attempt, rank), offset, data, times)
        except OSError as error:
            if refused(error):
                hint = "Free some disk space; the node keeps the rest until then."
                raise storage_full("logs cannot be written", error, hint) from error
            raise

    def _append(
        self, path: Path, offset: int, data: bytes, times: Sequence[tuple[int, float]]
    ) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            if not offset <= size < offset + len(data):
                return size
            rest = memoryview(data)[size - offset :]
            _write_all(handle, rest)
            self._append_times(path, times, size)
            return size + len(rest)
        finally:
            os.close(handle)

    def _append_times(self, path: Path, times: Sequence[tuple[int, float]], since: int) -> None:
        index = path.with_suffix(".times")
        last = -1
        with index.open("a+b") as file:
            whole = file.seek(0, os.SEEK_END) // _ENTRY.size * _ENTRY.size
            if file.tell() != whole:  # a torn entry from a crash
                file.truncate(whole)
            if whole:
                file.seek(whole - _ENTRY.size)
                last = _ENTRY.unpack(file.read(_ENTRY.size))[0]
            # The chunk's first entry may tell of bytes that came before it: it holds from `since` on.
            # Of several that do, the last is the one that tells of bytes that are new.
            entries = {max(offset, since): at for offset, at in times}
            for offset, at in entries.items():
                if offset > last:
                    file.write(_ENTRY.pack(offset, at))
                    last = offset

    def sync(self, job: int, attempt: int, rank: int) -> None:
        """Make all of a log durable; the node may forget its copy after that. Raises StorageFull."""
        for path in (
            self.path(job, attempt, rank),
            self.path(job, attempt, rank).with_suffix(".times"),
        ):
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                os.fsync(handle)
            except OSError as error:
                raise storage_full("logs cannot be made durable", error) from error
            finally:
                os.close(handle)

    def read(self, job: int, attempt: int, rank: int, offset: int, limit: int) -> bytes:
        """Raw bytes, at most `limit`, from `offset`; empty at the end."""
        try:
            with self.open(job, attempt, rank) as file:
                return os.pread(file.fileno(), limit, offset)
        except FileNotFoundError:
            return b""

    def open(self, job: int, attempt: int, rank: int) -> BinaryIO:
        """A log to read from. Raises FileNotFoundError for one that does not exist yet."""
        return self.path(job, attempt, rank).open("rb", buffering=0)

    def offset_at(self, job: int, attempt: int, rank: int, since: float) -> int:
        """Where the bytes begin that were first seen at `since` (unix time) or later."""
        index = _TimeIndex(self.path(job, attempt, rank).with_suffix(".times"))
        return index.offset_at(since, self.size(job, attempt, rank))

    def tail_offset(self, job: int, attempt: int, rank: int, lines: int) -> int:
        """The offset at which the last `lines` lines begin."""
        path = self.path(job, attempt, rank)
        position = self.size(job, attempt, rank)
        if lines <= 0 or position == 0:
            return position
        found = -1  # the newline that ends the last line begins no further one
        with path.open("rb") as file:
            file.seek(position - 1)
            if file.read(1) != b"\n":
                found = 0
            while position > 0:
                start = max(0, position - _READ)
                file.seek(start)
                block = file.read(position - start)
                at = len(block)
                while (at := block.rfind(b"\n", 0, at)) >= 0:
                    found += 1
                    if found == lines:
                        return start + at + 1
                position = start
        return 0

    def lines(
        self, job: int, attempt: int, rank: int, offset: int, *, final: bool
    ) -> Iterator[Line]:
        """Lines from `offset` to what is held now, without their newline.

        Args:
            final: the rank has ended, so a last piece without a newline is a line too.
        """
        times = _TimeIndex(self.path(job, attempt, rank).with_suffix(".times"))
        buffer, position = b"", offset
        while True:
            block = self.read(job, attempt, rank, position + len(buffer), _READ)
            if not block:
                break
            buffer += block
            start = 0
            while True:
                end = buffer.find(b"\n", start)
                if end < 0 and len(buffer) - start <= MAX_LINE:
                    break
                if end < 0 or end - start > MAX_LINE:
                    end = start + MAX_LINE
                    piece, following = buffer[start:end], end
                else:
                    piece, following = buffer[start:end], end + 1
                at = position + start
                yield Line(attempt, rank, at, position + following, times.at(at), piece)
                start = following
            buffer, position = buffer[start:], position + start
        if final and buffer:
            end = position + len(buffer)
            yield Line(attempt, rank, position, end, times.at(position), buffer)


class _TimeIndex:
    """Binary search over the pairs of a `.times` file, as it was when opened."""

    def __init__(self, path: Path) -> None:
        try:
            self._data = memoryview(path.read_bytes())
        except FileNotFoundError:
            self._data = memoryview(b"")
        self._count = len(self._data) // _ENTRY.size
        self._hint = 0

    def _entry(self, number: int) -> tuple[int, float]:
        offset, at = _ENTRY.unpack_from(self._data, number * _ENTRY.size)
        return offset, at

    def at(self, offset: int) -> float:
        """When the byte at `offset` was first seen; 0.0 when nothing is known."""
        if not self._count:
            return 0.0
        hint = self._hint  # reading goes forward: the answer is mostly where the last one was
        if self._entry(hint)[0] <= offset and (
            hint + 1 == self._count or self._entry(hint + 1)[0] > offset
        ):
            return self._entry(hint)[1]
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self._entry(middle)[0] <= offset:
                low = middle + 1
            else:
                high = middle
        self._hint = max(low - 1, 0)
        return self._entry(self._hint)[1]

    def offset_at(self, since: float, size: int) -> int:
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self._entry(middle)[1] < since:
                low = middle + 1
            else:
                high = middle
        return self._entry(low)[0] if low < self._count else size


def _highest(folder: Path, prefix: str) -> int:
    """The highest of the numbers that are names in a folder, after `prefix`."""
    try:
        names = [entry.name.removeprefix(prefix) for entry in os.scandir(folder)]
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]
