"""Which attempts are over for good: what keeps a late message from starting a forgotten one again.

While an attempt's folder is there, it knows its own epoch. When the folder goes, one line here takes
its place: no attempt of that job with this epoch or an older one is accepted any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agents.node.guard.records import write_file

KEEP = 30 * 86_400.0
"""Seconds after which a line may go: no message is on its way for a month."""


class ClosedJobs:
    """An append-only file of `job epoch time` lines, compacted when it is opened."""

    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self._epochs: dict[str, tuple[int, float]] = {}
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                self._read(line)
        self._epochs = {job: mark for job, mark in self._epochs.items() if now - mark[1] < KEEP}
        lines = "".join(f"{job} {epoch} {at:.0f}\n" for job, (epoch, at) in self._epochs.items())
        write_file(str(path), lines.encode(), durable=True)
        self._size = len(lines.encode())

    def _read(self, line: str) -> None:
        job, _, rest = line.partition(" ")
        try:
            epoch, at = (float(part) for part in rest.split())
        except ValueError:  # the last line of a node that lost power
            return
        if int(epoch) >= self.epoch(job):
            self._epochs[job] = (int(epoch), at)

    def epoch(self, job: str) -> int:
        """Newest epoch of a job that is over; -1 when none is known."""
        return self._epochs.get(job, (-1, 0.0))[0]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Jobs, each with its newest epoch that is over."""
        return ((job, epoch) for job, (epoch, _) in self._epochs.items())

    def close(self, marks: dict[str, int], now: float) -> None:
        """Note jobs and epochs as over, durably once this returns. Raises OSError."""
        news = {job: epoch for job, epoch in marks.items() if epoch > self.epoch(job)}
        if not news:
            return
        lines = "".join(f"{job} {epoch} {now:.0f}\n" for job, epoch in news.items()).encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            # A full disk takes a part of a line. The next one would be read as that line's end.
            os.ftruncate(descriptor, self._size)
            rest = memoryview(lines)
            while rest:
                written = os.pwrite(descriptor, rest, self._size + len(lines) - len(rest))
                rest = rest[written:]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._size += len(lines)
        self._epochs.update((job, (epoch, now)) for job, epoch in news.items())
