"""What a submission asks for, read from its bytes.

Somebody else's document takes as long as they like: a million unknown fields, a grid that has to be counted
under thirty constraints. So one that is large, or whose points are counted, is read by a process of its own
(`python -I requests.py KIND`, this file), which has its seconds of CPU and its memory; what comes back is
known to be right, and is as large as it says. Small ones are read on the spot, in milliseconds.

The process loads this file, so it imports what specs need and nothing of the controller.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

if __name__ == "__main__":  # isolated mode knows no folder but the standard library's
    sys.path.insert(0, str(Path(__file__).parents[3]))

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.base import errors
from jobs.base.errors import InvalidInput, QuarterdeckError, Unreachable
from jobs.spec import fields, problems
from jobs.spec.job import JobSpec
from jobs.sweeps.spec import SweepSpec

Kind = Literal["job", "sweep"]

SMALL = 1 << 14
"""Bytes of a body that is read on the spot,"""
FEW = 1000
"""if it has no more values than this."""
MAX_CPU = 5.0
"""Seconds of CPU for reading one submission."""
MAX_MEMORY = 1 << 30
MAX_WAITING = 32
"""Submissions that wait for a process at most."""
_PATIENCE = 60.0
"""Seconds until an answer is given up: on a busy machine, CPU time takes its time."""
MAX_VALUES = 30_000
"""Of a spec, points to try first left out; they have their own limit."""
MAX_POINT_VALUES = 100_000
_POINTS_AT_ONCE = 500
_MAX_DEPTH = 32
_MAX_DIGITS = 400
"""Of a number. Reading one takes its length squared."""


class AtHome(BaseModel):
    """What of a work folder did not travel."""

    model_config = ConfigDict(strict=True)

    files: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    paths: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=200)]


class Git(BaseModel):
    """Where a work folder came from, and how it differs from there."""

    model_config = ConfigDict(strict=True)

    commit: Annotated[str, Field(max_length=200)]
    branch: Annotated[str, Field(max_length=1000)]
    dirty: bool
    diff: Annotated[str, Field(max_length=2 << 20)] | None = None
    at_home: AtHome | None = None


class SubmitRequest(BaseModel):
    """A checked spec, and what the client found around it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    spec: dict[str, Any]
    key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    snapshot: fields.Digest | None = None
    git: Git | None = None
    secrets: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submission that is right in itself."""

    request: SubmitRequest
    spec: JobSpec | SweepSpec


def values_in(body: bytes) -> int:
    """How many values a JSON document has at most."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def parse(body: bytes) -> Any:
    """A JSON document that can be stored, sent and shown as it is.

    Raises InvalidInput: no JSON; NaN or an infinity, which it does not have; half a surrogate or NUL,
    which no database and no argument of a program takes.
    """
    try:
        found = json.loads(body, parse_constant=_no_number, parse_int=_whole, parse_float=_real)
    except (ValueError, RecursionError) as error:
        words = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidInput(f"not JSON: {words[:200]}") from None
    _look_through(found)
    return found


def _look_through(document: Any) -> None:
    """Raises InvalidInput for text that is none, and for a document that is nested too deeply."""
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise InvalidInput(f"nested more than {_MAX_DEPTH} deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                for name in item:
                    _check_text(name)
                below += item.values()
            elif isinstance(item, list):
                below += item
        level = below


def _check_text(text: str) -> None:
    if "\0" in text:
        raise InvalidInput("a text has a NUL character; allowed: text without")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("a text has a lone surrogate; allowed: Unicode") from None


def _no_number(text: str) -> Any:
    raise InvalidInput(f"{text} is not a number in JSON; allowed: null")


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise InvalidInput(f"a number of {len(text)} digits; allowed: {_MAX_DIGITS}")
    return int(text)


def _real(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise InvalidInput(f"{text[:40]} is too large for a number")
    return number


def read(kind: Kind, body: bytes) -> Submitted:
    """A submission, checked in itself; it takes as long as it takes. Raises InvalidInput."""
    return _checked(kind, parse(body))


def _checked(kind: Kind, document: Any) -> Submitted:
    try:
        request = SubmitRequest.model_validate(document)
    except ValidationError as error:
        raise problems.in_data(problems.find(error, SubmitRequest), "") from None
    spec = JobSpec.from_json(request.spec) if kind == "job" else SweepSpec.from_json(request.spec)
    return Submitted(request, spec)


def _quickly(kind: Kind, body: bytes) -> Submitted | None:
    """A submission that takes milliseconds to read, whatever it says; None for any other."""
    few = (
        FEW if kind == "job" else FEW // 4
    )  # each point of a sweep is compared with its constraints
    if len(body) > SMALL or values_in(body) > few:
        return None
    document = parse(body)
    spec = document.get("spec") if isinstance(document, dict) else None
    sampler = spec.get("sampler") if kind == "sweep" and isinstance(spec, dict) else None
    if sampler == "grid" or (isinstance(sampler, dict) and "grid" in sampler):
        return None  # its points are counted, those that break a constraint left out
    return _checked(kind, document)


class Reader:
    """Reads submissions, a few at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="read-request")
        self._waiting = 0

    async def read(self, kind: Kind, body: bytes) -> Submitted:
        """A submission, checked in itself.

        Raises:
            InvalidInput: what is wrong with it.
            Unreachable: too many are being read at this moment.
        """
        if (found := _quickly(kind, body)) is not None:
            return found
        if self._waiting >= MAX_WAITING:
            raise Unreachable(f"{MAX_WAITING} submissions are being read", "Try again in a moment.")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _read_apart, kind, body)
        finally:
            self._waiting -= 1


reader = Reader()


def _read_apart(kind: Kind, body: bytes) -> Submitted:
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, kind],
            input=body,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=_PATIENCE,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        raise InvalidInput(
            f"the {kind} takes too much time or memory to read",
            "Use fewer or simpler entries.",
        ) from None
    # A line at a time: others have their turn between two of them.
    first, *more = done.stdout.splitlines()
    answer = json.loads(first)
    if "error" in answer:
        raise errors.from_json(answer)
    if more:
        answer["spec"]["enqueue"] = [point for line in more for point in json.loads(line)]
    # Known to be right: what takes long, to count points and to word what is wrong, is done.
    cells = answer.pop("cells", None)
    request = SubmitRequest.model_validate(answer)
    if kind == "job":
        return Submitted(request, JobSpec.model_validate(request.spec))
    return Submitted(request, SweepSpec.counted(request.spec, cells))


def _answer(kind: Kind, body: bytes) -> list[Any]:
    """What the process says, in lines: an error, or the submission and then its points."""
    try:
        found = read(kind, body)
        answer = found.request.model_dump(exclude_unset=True)
        points = answer["spec"].pop("enqueue", None) or []
        if isinstance(found.spec, SweepSpec):
            answer["cells"] = found.spec.cells
        _check_size(answer, MAX_VALUES, f"the {kind}")
        _check_size(points, MAX_POINT_VALUES, "enqueue")
    except QuarterdeckError as error:
        return [error.to_json()]
    starts = range(0, len(points), _POINTS_AT_ONCE)
    return [answer, *(points[start : start + _POINTS_AT_ONCE] for start in starts)]


def _check_size(document: Any, limit: int, what: str) -> None:
    count, todo = 0, [document]
    while todo:
        item = todo.pop()
        count += 1
        if isinstance(item, dict | list):
            todo += item.values() if isinstance(item, dict) else item
    if count > limit:
        raise InvalidInput(f"{what} has {count} values; allowed: at most {limit}")


def _serve(kind: Kind) -> None:
    """Be the process that reads one submission: from standard input to standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(MAX_CPU), int(MAX_CPU) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    with contextlib.suppress(OSError):
        os.nice(5)
    for line in _answer(kind, sys.stdin.buffer.read()):
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    _serve("job" if sys.argv[1] == "job" else "sweep")
