"""Metrics that a script did not log through the helper: found in what it prints and writes.

A source finds points; what it finds is appended to the rank's metrics file, so that all metrics take the one
way of `quarterdeck.log`. How far a source has read is written down before each append, with a number that the
append carries: an agent that comes back sees whether it happened, so no point is there twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agents.node import accounts
from agents.node.attempts import Attempt, Streams
from agents.node.guard import records
from agents.node.logtail import read_at
from agents.node.results import eventfiles, tree, writers
from agents.node.results.kept import launched_at
from jobs.base.errors import InvalidInput, NotFound
from jobs.metrics.patterns import Place, Reader

log = logging.getLogger(__name__)

State = dict[str, Any]

EVERY = 1.0
"""Seconds between two looks at what a running attempt writes."""
BUDGET = 512 << 10
"""Bytes that are read of an event file in one go: some 130 ms when they are scalars alone."""
LOG_BUDGET = 128 << 10
"""Bytes of a log in one go: with the seven patterns of `nanogpt` on each line, some 130 ms."""
MAX_FILES = 200
"""Event files of one attempt that are followed."""
SCAN_SHARE = 50
"""A look through a work folder is followed by that many times its duration without one."""
SCANNED = 20_000
"""Files of a work folder among which event files are looked for."""
FINISH = 30.0
"""Seconds that an attempt's end waits for what its sources have not read yet; the rest is left out."""


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    step: int
    at: float  # unix time
    value: float | None
    child: int | None = None  # rank of the process that logged it, if it is not the feed's own

    def to_json(self) -> dict[str, Any]:
        item = {"n": self.name[:200], "s": self.step, "v": self.value, "t": round(self.at, 6)}
        if self.value is not None and not math.isfinite(self.value):
            item["v"] = None
            if not math.isnan(self.value):
                item["x"] = "Infinity" if self.value > 0 else "-Infinity"
        return item if self.child is None else {**item, "c": self.child}


class Source(Protocol):
    """Where points come from. Called from one thread at a time."""

    def read(self, state: State, *, final: bool) -> tuple[list[Point], State, bool]:
        """What there is since `state` ({} at first), the state from there, and whether there is more.

        Args:
            final: nothing will be written any more.
        """
        ...


class LogPatterns:
    """Patterns on the lines of a rank's log (`jobs.metrics.patterns`)."""

    def __init__(self, streams: Streams, sets: Iterable[dict[str, str]]) -> None:
        self._streams = streams
        self._readers = [Reader(patterns) for patterns in sets]

    def read(self, state: State, *, final: bool) -> tuple[list[Point], State, bool]:
        offset = int(state.get("offset", 0))
        places = [Place.from_json(data) for data in state.get("places", [{}] * len(self._readers))]
        size = self._streams.index.size
        if size <= offset:
            return [], state, False
        data = self._streams.read_log(offset, min(LOG_BUDGET, size - offset), final=final)
        end = data.rfind(b"\n") + 1
        if not end and (final or len(data) >= LOG_BUDGET):
            end = len(data)  # no line is longer, or none comes any more
        if not end:
            return [], state, False
        times = self._streams.index.between(offset, offset + end)
        points: list[Point] = []
        at, moment = offset, 0
        for line in data[:end].split(b"\n"):
            while moment + 1 < len(times) and times[moment + 1][0] <= at:
                moment += 1
            seen = times[moment][1] if times else time.time()
            text = line.decode("utf-8", "replace")
            for reader, place in zip(self._readers, places, strict=True):
                for found in reader.read(text, place):
                    points.append(Point(found.name, found.step, seen, found.value))
            at += len(line) + 1
        after = {"offset": offset + end, "places": [place.to_json() for place in places]}
        return points, after, offset + end < size


class EventFiles:
    """Scalars in TensorBoard's event files below a work folder.

    The first folder with such a file is the run's own: what is in it goes by its tags. Below it the folder is
    part of the name, as TensorBoard has it; of another folder, its last part is (`validation/loss`). Where
    several ranks write files (`writers`), each has a folder of its own.

    Args:
        since: see `tree.written_since`: files that came with the job are not its own.
        rank: whose metrics file the points go to.
        processes: those that may write the files.
    """

    def __init__(
        self,
        work: Path,
        since: int | None,
        *,
        rank: int = 0,
        processes: writers.Processes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._since, self._clock = work, since, clock
        self._rank, self._processes = rank, processes
        self._next = 0.0

    def read(self, state: State, *, final: bool) -> tuple[list[Point], State, bool]:
        with accounts.acting_for(self._work):
            return self._read(state, final=final)

    def _read(self, state: State, *, final: bool) -> tuple[list[Point], State, bool]:
        files: dict[str, int] = dict(state.get("files", {}))
        roots: dict[str, str] = dict(state.get("roots", {}))
        if state.get("root") is not None:  # an older version's
            roots[str(self._rank)] = state["root"]
        by = {path: writers.Writer(*items) for path, items in state.get("by", {}).items()}
        began = self._clock()
        if final or began >= self._next:
            for path in sorted(self._found(), key=lambda path: path.rpartition("/")[2]):
                if path not in files and len(files) < MAX_FILES:
                    files[path] = 0
                    rank = self._processes.rank_of(path) if self._processes else None
                    by[path] = writers.Writer(rank, [])
            self._next = self._clock() + max(2.0, SCAN_SHARE * (self._clock() - began))
        points: list[Point] = []
        more = False
        for path, offset in files.items():
            if offset < 0:  # it is none
                continue
            try:
                found, files[path] = self._grown(path, offset)
            except (OSError, NotFound, InvalidInput):
                continue
            more = more or files[path] - offset > BUDGET // 2
            writer = by.setdefault(path, writers.Writer(None, []))
            if found and writer.rank is None:
                tags = [scalar.tag for scalar in found]
                writer = by[path] = writers.first_read(path, tags, found[0].at, by, self._rank)
            rank = self._rank if writer.rank is None else writer.rank
            folder = path.rpartition("/")[0]
            if files[path] > 0:
                roots.setdefault(str(rank), folder)
            if not found:
                continue
            writer.until = found[-1].at
            prefix = _prefix(roots[str(rank)], folder)
            child = None if rank == self._rank else rank
            points += [
                Point(prefix + scalar.tag, scalar.step, scalar.at, scalar.value, child)
                for scalar in found
            ]
        told = {path: writer.to_json() for path, writer in by.items()}
        return points, {"files": files, "roots": roots, "by": told}, more

    def _found(self) -> Iterator[str]:
        new = tree.written_since(self._since)
        for count, (path, status) in enumerate(tree.walk(self._work)):
            if count >= SCANNED:
                return
            if is_event_file(path) and new(status):
                yield path

    def _grown(self, path: str, offset: int) -> tuple[list[eventfiles.Scalar], int]:
        """What came to a file, and where to go on; -1 for one that is no event file."""
        data = tree.read(self._work, path, offset, BUDGET)
        for _ in range(2):
            try:
                found, length, skip = eventfiles.scalars(data)
            except eventfiles.NotEvents:
                return [], -1
            if length or skip or len(data) < BUDGET:
                return found, offset + length + skip
            data = tree.read(self._work, path, offset, eventfiles.MAX_MESSAGE + BUDGET)
        return [], offset


def is_event_file(path: str) -> bool:
    return ".tfevents." in path.rpartition("/")[2]


def _prefix(root: str, folder: str) -> str:
    if folder == root:
        return ""
    inner = folder.removeprefix(f"{root}/") if root else folder
    return f"{inner if inner != folder or not root else folder.rpartition('/')[2]}/"


class Feed:
    """Brings what the sources of one rank find to its metrics file."""

    def __init__(self, folder: Path, rank: int, sources: dict[str, Source]) -> None:
        self._sources = sources
        self._note = folder / f"sources-{rank}.json"
        self._metrics = accounts.facing(folder) / f"metrics-{rank}.jsonl"
        self._lock = threading.Lock()
        self._number, self._states = self._known()

    def poll(self, *, final: bool = False) -> bool:
        """Look once; whether there is more. Blocking. Raises OSError when the disk takes nothing: the next
        time begins where this one did."""
        with self._lock:
            points: list[Point] = []
            states, more = dict(self._states), False
            for name, source in self._sources.items():
                found, states[name], again = source.read(self._states.get(name, {}), final=final)
                points += found
                more = more or again
            if points or states != self._states:
                self._commit(points, states)
            return more

    def _commit(self, points: list[Point], states: dict[str, State]) -> None:
        number = self._number + 1
        size = 0
        with contextlib.suppress(FileNotFoundError):
            size = self._metrics.lstat().st_size
        before = self._states if points else states
        note = {"number": number, "at": size, "before": before, "after": states}
        records.write_file(str(self._note), json.dumps(note).encode(), durable=False)
        if points:
            with accounts.acting_for(self._metrics.parent):
                _append(self._metrics, points, number)
        self._number, self._states = number, states

    def _known(self) -> tuple[int, dict[str, State]]:
        """The number of the last append, and how far the sources were read for it."""
        note = records.read_json(str(self._note))
        if note is None:
            return 0, {}
        number = int(note["number"])
        if note["before"] == note["after"]:
            return number, note["after"]
        appended = b""
        with contextlib.suppress(FileNotFoundError):
            size = self._metrics.lstat().st_size - note["at"]
            with accounts.acting_for(self._metrics.parent):
                appended = read_at(self._metrics, note["at"], max(size, 0))
        done = f'"q":{number}}}'.encode() in appended
        return number, note["after" if done else "before"]


def _append(path: Path, points: list[Point], number: int) -> None:
    """In one write, which the kernel keeps whole beside those of the rank. Raises OSError."""
    items = [point.to_json() for point in points]
    items[0]["q"] = number
    data = "".join(json.dumps(item, separators=(",", ":")) + "\n" for item in items).encode()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":  # a line that a full disk cut
            data = b"\n" + data
        if os.write(file, data) < len(data):
            raise OSError("the disk took only a part of it")
    finally:
        os.close(file)


class Feeds:
    """The feeds of all attempts of a node. Its methods block, and may run in several threads."""

    def __init__(self) -> None:
        self._feeds: dict[str, list[Feed]] = {}
        self._lock = threading.Lock()

    def of(self, attempt: Attempt) -> list[Feed]:
        """An attempt's feeds: one for each local rank that has sources."""
        with self._lock:
            known = self._feeds.get(attempt.key)
            if known is None or (not known and attempt.streams):
                known = self._feeds[attempt.key] = self._made(attempt)
            return known

    @staticmethod
    def _made(attempt: Attempt) -> list[Feed]:
        plan = attempt.plan
        if plan is None or plan["kind"] == "service":
            return []
        feeds = []
        for number, (rank, streams) in enumerate(sorted(attempt.streams.items())):
            sources: dict[str, Source] = {}
            if sets := plan.get("metrics"):
                sources["log"] = LogPatterns(streams, sets)
            if number == 0:
                sources["events"] = EventFiles(
                    attempt.work,
                    launched_at(attempt.folder),
                    rank=rank,
                    processes=writers.Processes(
                        f"{plan['job']}.{plan['attempt']}", contained=bool(plan.get("image"))
                    ),
                )
            if sources:
                feeds.append(Feed(attempt.folder, rank, sources))
        return feeds

    def poll(self, attempt: Attempt) -> None:
        """Look at what a running attempt has written since the last time."""
        for feed in self.of(attempt):
            try:
                feed.poll()
            except OSError as error:
                log.warning("metrics of %s: %s", attempt.key, error)

    def finish(self, attempt: Attempt) -> None:
        """Bring all that an attempt which is over has left."""
        until = time.monotonic() + FINISH
        for feed in self.of(attempt):
            try:
                while feed.poll(final=True):
                    if time.monotonic() > until:
                        log.warning("metrics of %s: not all of its log was read", attempt.key)
                        break
            except OSError as error:
                log.warning("metrics of %s: %s", attempt.key, error)
        self.drop(attempt.key)

    def drop(self, key: str) -> None:
        with self._lock:
            self._feeds.pop(key, None)

    def wanted(self, attempt: Attempt, budget: int) -> bool:
        """Whether there may be something to `finish`. Looks at `budget` files at most."""
        plan = attempt.plan
        if plan is None or plan["kind"] == "service" or not attempt.standing.ranks:
            return False
        if plan.get("metrics"):
            return True
        with accounts.acting_for(attempt.work):
            for count, (path, _) in enumerate(tree.walk(attempt.work)):
                if count >= budget or is_event_file(path):
                    return True
        return False
