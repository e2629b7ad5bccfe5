"""Windows of the inference log, brought from the replicas' nodes: those lines that are of one version and of
one stretch of time, up to a bound.

A replica's log is a folder of segments, each named by the time of its first line (`quarterdeck_serve`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from sqlmodel import Session

from agents.controller.core.ran import Ran, ran
from agents.controller.core.transfers import receive
from agents.controller.nodes.links import Links
from agents.controller.stores.database import Database
from jobs.base.errors import InvalidInput, NotFound, QuarterdeckError
from jobs.base.names import RunRef
from jobs.wire import messages as wire

FOLDER = "inference-log"
MOST_LINES, MOST_BYTES = 20_000, 24 << 20
"""Of a window. Beyond that every other line goes, and again of what is left: a sample evenly spread."""
_HEAD = re.compile(rb'\{"id":"((?:[^"\\]|\\.)*)","at":([0-9.e+]+),"v":"((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class Window:
    """Lines as they were logged. `seen` are all that belong to it, `missing` says what was not read."""

    lines: list[bytes] = field(default_factory=list)
    seen: int = 0
    size: int = 0
    missing: list[str] = field(default_factory=list)
    _stride: int = 1

    def add(self, line: bytes) -> None:
        self.seen += 1
        if self.seen % self._stride:
            return
        self.lines.append(line)
        self.size += len(line)
        if len(self.lines) > MOST_LINES or self.size > MOST_BYTES:
            self.lines = self.lines[1::2]
            self.size = sum(map(len, self.lines))
            self._stride *= 2

    @property
    def data(self) -> bytes:
        return b"".join(self.lines)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log, as far as it is read here."""

    id: bytes
    at: float
    version: bytes
    text: bytes


async def window(
    database: Database,
    links: Links,
    cluster: str,
    jobs: Sequence[int],
    version: str,
    since: float,
    until: float,
) -> Window:
    """What these jobs have logged of a version from `since` to before `until`, unix times. A node that
    does not answer is named in `missing`."""
    found, wanted = Window(), _escaped(version)
    async with contextlib.aclosing(
        lines(database, links, cluster, jobs, since, until, found.missing)
    ) as every:
        async for line in every:
            if line.version == wanted:
                found.add(line.text)
    return found


async def lines(
    database: Database,
    links: Links,
    cluster: str,
    jobs: Sequence[int],
    since: float,
    until: float,
    missing: list[str],
) -> AsyncGenerator[Line, None]:
    """Lines of a stretch of time, replica by replica. `missing` is told what could not be read."""
    for job in jobs:
        for attempt in await database.read(functools.partial(_attempts, job=job)):
            for node in dict.fromkeys(attempt.nodes):
                try:
                    _, agent = links.agent(node)
                    async for line in _of_node(agent, attempt.key(cluster), since, until):
                        yield line
                except NotFound:
                    continue  # nothing is kept of it any more
                except QuarterdeckError as error:
                    missing.append(f"{node}: {error.message}")


def _attempts(session: Session, job: int) -> list[Ran]:
    """All attempts of a job that have begun."""
    newest = ran(session, RunRef(job))
    numbers = range(1, newest.number + 1) if newest is not None else ()
    found = [ran(session, RunRef(job, number)) for number in numbers]
    return [attempt for attempt in found if attempt is not None]


async def _of_node(
    agent: wire.AgentClient, key: str, since: float, until: float
) -> AsyncGenerator[Line, None]:
    listing = await agent.list_files(key, "work", [f"{FOLDER}/*.jsonl"], True)
    files = sorted(file["path"] for file in listing["files"] if "link" not in file)
    for place, path in enumerate(files):
        begins = _begins(path)
        follows = _begins(files[place + 1]) if place + 1 < len(files) else None
        if begins >= until or (follows is not None and follows < since - 60):
            continue  # a minute: two writers, one after the other, are not of one clock's mind
        rest = b""
        with contextlib.suppress(NotFound, InvalidInput):  # it has just been rotated away
            read = functools.partial(agent.read_file, key, "work", path)
            async with contextlib.aclosing(receive(read)) as chunks:
                async for chunk in chunks:
                    *whole, rest = (rest + chunk).split(b"\n")
                    for text in whole:
                        head = _HEAD.match(text)
                        if head is not None and since <= float(head[2]) < until:
                            yield Line(head[1], float(head[2]), head[3], text + b"\n")


def _begins(path: str) -> float:
    digits = path.rpartition("/")[2].partition("-")[0]
    return int(digits) / 1000 if digits.isdigit() else 0.0


def _escaped(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()
