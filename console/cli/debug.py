"""`qd debug`: what is known of a job in one file, for whoever is to find out what happened to it."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from console import guest
from console.cli.ids import Target, run_path, target
from console.cli.options import JobId, Json
from console.cli.output import emit, narrate, say
from console.client import Client
from jobs import __version__
from jobs.base.errors import Conflict, QuarterdeckError
from jobs.base.numbers import dumps
from jobs.base.places import places
from jobs.base.words import counted

_LINES = 2000
"""Of each rank's log, and of the controller's: the newest."""
_TIMEOUT = 60.0
"""Seconds: the stacks of many ranks are read on many nodes."""
_WORDS = "TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(?:API|ACCESS|PRIVATE)[_-]?KEY"
_SECRET_NAME = rf"[A-Za-z0-9_.-]*(?:{_WORDS})[A-Za-z0-9_.-]*"
_ASSIGNED = re.compile(
    rf"""(?ix)(?P<before>\b{_SECRET_NAME}\\?["']?\s*[=:]\s*|--{_SECRET_NAME}["',]*\s+)
    (?!-?[0-9.][0-9.eE+-]*(?:[\s,}}\]]|$))  # numbers: tokens per second, and the like
    (?P<value>"[^"]*"|'[^']*'|[^\s,"'}}\]]+)"""
)
_IN_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s/:@\"']*:)(?P<value>[^\s/@\"']+)(?=@)")
_REMOVED = "[removed]"


def debug(
    job: JobId,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write it, - for stdout; by default qd-debug-ID.tar.gz.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Collect a job's diagnostics in one archive.

    Its record, events, stacks, metrics, the end of its logs, the nodes, and what the controller logged
    about it. Values that look like secrets are removed; still, read the file before you send it.
    """
    client = Client.from_environment(timeout=_TIMEOUT)
    wanted = target(job)
    detail = client.get(run_path(job))
    name = Target(detail["id"])
    # A guest's folder goes with the session, so theirs comes on stdout.
    file = output or Path("-" if guest.folder() else f"qd-debug-{name.job}.tar.gz")
    bundle = Bundle(f"qd-debug-{name.job}")
    for path, text in _pages(client, name, detail, wanted.attempt):
        bundle.add(path, text)
    bundle.add("README.txt", _readme(name.job, bundle))
    if str(file) == "-":
        sys.stdout.buffer.write(bundle.content())
        sys.stdout.buffer.flush()
    else:
        try:
            with open(guest.inside(file), "xb", opener=_private) as out:
                out.write(bundle.content())
        except FileExistsError:
            raise Conflict(f"{file} exists", "Name another file with -o.") from None
    if as_json and str(file) != "-":
        emit({"file": str(file), "files": sorted(bundle.files), "removed": bundle.removed})
        return
    narrate(
        f"{counted(len(bundle.files), 'file')}; {counted(bundle.removed, 'value')} removed that looked "
        "like a secret. Look through it before you send it."
    )
    if str(file) != "-":
        say(str(file))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Bundle:
    """Text files of one archive, without what looks like a secret."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.files: dict[str, str] = {}
        self.removed = 0

    def add(self, path: str, text: str) -> None:
        for pattern in (_ASSIGNED, _IN_URL):
            text, count = pattern.subn(_blank, text)
            self.removed += count
        self.files[path] = text

    def content(self) -> bytes:
        """The archive, gzipped."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for path, text in sorted(self.files.items()):
                data = text.encode(errors="surrogateescape")
                info = tarfile.TarInfo(f"{self._folder}/{path}")
                info.size, info.mtime = len(data), int(time.time())
                tar.addfile(info, io.BytesIO(data))
        return packed.getvalue()


def _blank(found: re.Match[str]) -> str:
    quote = found["value"][0] if found["value"][0] in "\"'" else ""
    return f"{found['before']}{quote}{_REMOVED}{quote}"


def _pages(
    client: Client, job: Target, detail: dict[str, Any], attempt: int | None
) -> Iterator[tuple[str, str]]:
    """Files and their text. What cannot be had is a file with the reason: half of it is better than none."""
    if detail.get("git"):
        detail = {**detail, "git": {**detail["git"], "diff": "(left out)"}}
    yield "job.json", _json(detail)
    path = f"/v1/jobs/{job.job}"
    yield from _tried("explain.json", partial(_document, client, f"{path}/explain"))
    yield from _tried("events.jsonl", lambda: _lines(client, "/v1/events", job=job.job, limit=1000))
    if detail["state"] == "RUNNING":
        yield from _tried("stacks.json", partial(_document, client, f"{path}/stacks"))
    for name in ("status", "nodes", "doctor"):
        yield from _tried(f"cluster/{name}.json", partial(_document, client, f"/v1/{name}"))
    number = attempt or (detail["attempts"][-1]["number"] if detail["attempts"] else None)
    if number is not None:
        query = {"attempt": number, "tail": _LINES}
        yield from _tried("log.jsonl", lambda: _lines(client, f"{path}/logs", **query))
    if client.remote is None and guest.folder() is None:
        for log in sorted(places().daemon_logs.glob("*.log")):
            yield from _tried(f"daemon/{log.name}", partial(_about, log, job.job))


def _tried(path: str, read: Callable[[], str]) -> Iterator[tuple[str, str]]:
    try:
        yield path, read()
    except (QuarterdeckError, OSError) as error:
        yield f"{path}.failed", f"{error}\n"


def _document(client: Client, path: str) -> str:
    return _json(client.get(path))


def _json(document: Any) -> str:
    return json.dumps(document, indent=1) + "\n"


def _lines(client: Client, path: str, **query: Any) -> str:
    with client.stream(path, **query) as stream:
        return "".join(dumps(document) + "\n" for document in stream)


def _about(log: Path, job: str) -> str:
    """The lines of a log of ours that name the job, and the last fifty."""
    lines = log.read_text(errors="replace").splitlines()
    named = re.compile(rf"(?<![\w]){job}(?![\w])")
    kept = {number for number, line in enumerate(lines) if named.search(line)}
    kept |= set(range(max(0, len(lines) - 50), len(lines)))
    return "".join(f"{number + 1}: {lines[number]}\n" for number in sorted(kept)[-_LINES:])


def _readme(job: str, bundle: Bundle) -> str:
    files = "\n".join(f"  {path}" for path in sorted(bundle.files))
    return (
        f"What qd {__version__} knew of {job} at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}.\n"
        f"Client: Python {platform.python_version()}, {platform.platform()}.\n"
        f"{bundle.removed} values that look like secrets were replaced by {_REMOVED}; the diff of the "
        f"code was left out.\n\n{files}\n"
    )
