"""What git says about a folder, asked of the `git` program, in a few short processes.

Nothing is written (`GIT_OPTIONAL_LOCKS=0`), the repository's monitor and diff programs are not run, and
a caller that itself runs under a git hook does not lead us to its repository.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from jobs.base.errors import InvalidInput
from jobs.wire.views import GitView

MAX_DIFF = 2**20
"""Bytes of `git diff` that are kept."""

_SAFE = ("--no-pager", "-c", "core.fsmonitor=false")


@dataclass(frozen=True, slots=True)
class Listing:
    """Paths relative to the folder: files that belong to it, and folders that are repositories of
    their own (submodules, clones inside). `untracked` counts those that git does not know yet."""

    paths: tuple[str, ...]
    untracked: int


def is_inside(folder: Path) -> bool:
    """Whether git would find a repository here; looks at names only."""
    here = folder.resolve()
    return any((place / ".git").exists() for place in (here, *here.parents))


def listing(folder: Path) -> Listing | None:
    """What git tracks in the folder plus what it does not ignore.

    None when git has nothing to say: there is no program or no repository, or the folder as a whole is
    ignored. Raises InvalidInput when git refuses to answer.
    """
    # -t: a letter in front of each name, "?" for what is untracked
    options = ("-t", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
    result = _git(folder, "ls-files", *options)
    if result is None or b"not a git repository" in result.stderr:  # `.git` may be any folder
        return None
    if result.returncode != 0:
        words = result.stderr.decode(errors="replace").strip().splitlines()
        raise InvalidInput(
            f"git cannot list {folder}: {words[0] if words else 'it failed'}",
            "Repair the repository, or choose another work folder with --workdir.",
        )
    entries = [os.fsdecode(entry) for entry in result.stdout.split(b"\0") if entry]
    if not entries:
        ignored = _git(folder, "check-ignore", "-q", "--", ".")
        if ignored is not None and ignored.returncode == 0:
            return None
    paths = tuple(dict.fromkeys(entry[2:] for entry in entries))
    return Listing(paths, sum(entry.startswith("? ") for entry in entries))


def listing_inside(folder: Path) -> Listing | None:
    """The same of a repository that lies in another. None where it is none, or is broken."""
    if not (folder / ".git").exists():
        return None
    try:
        return listing(folder)
    except InvalidInput:
        return None


def ignored(folder: Path) -> tuple[str, ...]:
    """Paths that git ignores, relative to the folder. A folder of which all is ignored ends in `/`."""
    options = ("-z", "--others", "--ignored", "--exclude-standard", "--directory")
    result = _git(folder, "ls-files", *options)
    if result is None or result.returncode != 0:
        return ()
    return tuple(os.fsdecode(entry) for entry in result.stdout.split(b"\0") if entry)


def ignored_themselves(folder: Path, paths: Collection[str]) -> set[str]:
    """Which of these paths a rule names, rather than all that is in them."""
    if not paths:
        return set()
    given = b"".join(os.fsencode(path) + b"\0" for path in paths)
    result = _git(folder, "check-ignore", "-z", "--stdin", given=given)
    if result is None:
        return set()
    return {os.fsdecode(entry) for entry in result.stdout.split(b"\0") if entry}


def view(folder: Path, untracked: int) -> GitView | None:
    """Commit, branch, and what differs from the commit in this folder (the diff cut at 1 MiB).

    `dirty` also says that there are untracked files. None before the first commit.
    """
    options = ("--porcelain=v2", "--branch", "-z", "--untracked-files=no")
    status = _git(folder, "status", *options, "--ignore-submodules=dirty", "--", ".")
    if status is None or status.returncode != 0:
        return None
    commit = branch = ""
    changed = False
    for entry in status.stdout.decode(errors="replace").split("\0"):
        if entry.startswith("# branch.oid "):
            commit = entry.removeprefix("# branch.oid ")
        elif entry.startswith("# branch.head "):
            branch = entry.removeprefix("# branch.head ")
        elif entry and not entry.startswith("#"):
            changed = True
    if not commit or commit.startswith("("):  # "(initial)"
        return None
    result = GitView(commit=commit, branch=branch, dirty=changed or untracked > 0)
    if changed:
        result["diff"] = _diff(folder)
    return result


def _diff(folder: Path) -> str:
    options = ("--no-color", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty")
    command = ["git", *_SAFE, "diff", *options, "HEAD", "--", "."]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        data = process.stdout.read(MAX_DIFF)
        process.kill()  # of a diff of gigabytes we wanted the start only
    return data.decode(errors="replace")


def _git(
    folder: Path, *arguments: str, given: bytes = b""
) -> subprocess.CompletedProcess[bytes] | None:
    """None when there is no git program. `given` is its standard input."""
    try:
        return subprocess.run(
            ["git", *_SAFE, *arguments],
            cwd=folder,
            env=_environment(),
            input=given,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return None


def _environment() -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return mine | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
