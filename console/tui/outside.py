"""Programs and files outside the console: pager, editor, a log as a file, `qd submit` as a process."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import closing
from itertools import count
from pathlib import Path

from console.tui.source import Source
from jobs.base import python

CHUNK = 1 << 20
LARGEST = 1 << 30
"""Bytes of a log that are copied for the pager or to a file; what is left out is said."""


def pager(environ: Mapping[str, str]) -> list[str]:
    """The command that shows a file: `$PAGER`, or less from the end, or more."""
    if words := shlex.split(environ.get("PAGER", "")):
        return words
    return ["less", "+G"] if shutil.which("less") else ["more"]


def editor(environ: Mapping[str, str]) -> list[str]:
    """The command that edits a file: `$VISUAL`, `$EDITOR`, or vi."""
    return shlex.split(environ.get("VISUAL") or environ.get("EDITOR") or "vi")


def here() -> Path:
    """The folder where the console was started; writing there fails in words if it was removed since."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path()


def write_log(source: Source, job: str, attempt: int, rank: int | None, path: Path) -> int:
    """Copy a rank's log as it is, or all ranks' lines merged by time, to a file. Returns its size."""
    written = 0
    with path.open("wb") as file:
        if rank is not None:
            while written < LARGEST:
                data, _ = source.read_log(job, attempt, rank, written, CHUNK)
                if not data:
                    break
                written += file.write(data)
        else:
            with closing(source.whole_log(job, attempt, None)) as lines:
                for one in lines:
                    written += file.write(f"{one['at']} r{one['rank']} {one['line']}\n".encode())
                    if written >= LARGEST:
                        break
        if written >= LARGEST:
            file.write(b"\n[cut here: the log is longer]\n")
    return written


def new_file(folder: Path, name: str, suffix: str) -> Path:
    """An empty file that nobody else writes to: `name` with `suffix`, or with a number when there is such
    a file already. Raises OSError."""
    (path,) = new_files(folder, name, suffix)
    return path


def new_files(folder: Path, name: str, *suffixes: str) -> list[Path]:
    """The same of several that have one name."""
    for number in count(1):
        base = name if number == 1 else f"{name}-{number}"
        made: list[Path] = []
        try:
            for suffix in suffixes:
                path = folder / f"{base}{suffix}"
                path.touch(exist_ok=False)
                made.append(path)
        except FileExistsError:
            for path in made:
                path.unlink()
        else:
            return made
    raise AssertionError("there is always a larger number")


def submit(file: Path, *, dry_run: bool) -> tuple[int, str, str]:
    """Run `qd submit` on a file: exit code, what it printed, and what it had to say.

    A process of its own, because checking a spec imports what the console does without.
    """
    options = ["--dry-run"] if dry_run else []
    try:
        done = subprocess.run(
            python.module("console.cli.main", "submit", str(file), "--json", *options),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )
    except subprocess.TimeoutExpired:
        return 124, "", "qd submit did not end within 60 s"
    return done.returncode, done.stdout, done.stderr
