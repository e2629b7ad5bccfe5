"""Scanning a work folder: which files a job takes along, and what they hold.

With git, a snapshot is what git tracks plus what it does not ignore; without, everything but the usual debris
and what `.gitignore` files name. A `.qdignore` in the folder leaves out more. Folders with nothing that
travels come along empty. Sizes are added up before anything is read, so a folder that is too large is refused
at once, with the names of what makes it so.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import BinaryIO

from console.workdir import athome, gitrepo
from console.workdir.walk import Walk
from jobs.base.errors import InvalidInput
from jobs.base.paths import SafePath, check_link, leads_out
from jobs.base.units import format_size, parse_size, show
from jobs.snapshots.ignore import ALWAYS, FILE_NAME, Ignore
from jobs.snapshots.manifest import MAX_FILES, FileEntry, Manifest, empty_beside
from jobs.wire.views import GitView

MAX_BYTES = 500 * 2**20
LIMIT = "QD_WORKDIR_LIMIT"
_SMALLER = (
    "Leave out what the job does not need (.gitignore or .qdignore), choose a smaller folder with "
    f"--workdir, send none with --no-workdir, or allow more: `export {LIMIT}=2GiB`."
)
_NAMED = 5
"""Offenders named in one error."""

_LOOKS = 3
"""Times that a file which changes is read, with a pause of `_PAUSE` seconds."""
_PAUSE = 0.05
_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_POINTER_BYTES = 1024
"""Bytes that such a file has at most."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A work folder, ready to be sent."""

    manifest: Manifest
    sources: Mapping[str, Path]  # hex digest -> a file that holds it
    git: GitView | None
    total_bytes: int
    warnings: tuple[str, ...] = ()
    left: athome.Left | None = None  # what stays at home by git's rules

    @property
    def is_empty(self) -> bool:
        return not self.manifest.files and not self.manifest.folders


@dataclass(slots=True)
class _Found:
    """What lies in the folder, looked at but not read."""

    files: dict[str, int] = field(default_factory=dict)  # path -> bytes
    links: dict[str, str] = field(default_factory=dict)  # path -> target
    nested: list[str] = field(default_factory=list)  # folders that git sees as one entry
    unnamed: list[str] = field(default_factory=list)  # left out: no name for a snapshot
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # by git's rules; a folder ends in "/"
    folders: list[str] = field(default_factory=list)


def scan(
    folder: Path,
    *,
    include: Sequence[str] = (),
    max_bytes: int | None = None,
    max_files: int = MAX_FILES,
) -> Scan:
    """Read a work folder.

    Sockets, pipes, devices and names that are not UTF-8 are left out with a warning. Links are kept as
    they are, with a warning for those that may lead to nothing on a node. Of a file that grows while it is
    read, such as the output of this very command, the beginning is taken. Raises InvalidInput, naming what
    is wrong, for: no folder; more than `max_bytes` or `max_files`; a file that cannot be read or keeps
    changing.

    Args:
        include: patterns of `.gitignore`'s kind for what git ignores and travels all the same; lines
            with `!` in `.qdignore` add to them.
    """
    max_bytes = limit(os.environ) if max_bytes is None else max_bytes
    root = _checked(folder)
    ignore = _read_ignore(root)
    found = _Found()
    # A home folder may hold millions of files: stop when the answer is clear.
    most = 4 * max_files
    listing = None
    if gitrepo.is_inside(root):
        listing = gitrepo.listing(root)
        if listing is None:
            found.warnings.append(
                f"git does not say what belongs to {root} (there is no git program, or git ignores "
                "the folder): all of it is taken, but for what a .gitignore in it names"
            )
    if listing is not None:
        _take_listed(root, listing, ignore, found, most)
    else:
        _take_walked(root, "", ignore, found, most)
    wanted = (*include, *ignore.taken_back)
    if wanted:
        within = list(_included(root, wanted, most))
        if include and not within:
            found.warnings.append(f"nothing here matches what is to be included: {_some(include)}")
        _inspect(root, within, Ignore(), found)
    _drop_behind_links(found)
    _warn(root, found)
    total = _check_limits(root, found.files, max_bytes, max_files - len(found.links))
    entries = [FileEntry(path, 0o644, 0, "", link) for path, link in found.links.items()]
    sources: dict[str, Path] = {}
    for path in found.files:
        entry = _hash(root, path)
        entries.append(entry)
        sources.setdefault(entry.sha256, root / path)
    empty = empty_beside(entries, found.folders)[: max(0, max_files - len(entries))]
    left = athome.weigh(root, found.left_out, found.files.keys())
    git = gitrepo.view(root, listing.untracked) if listing is not None else None
    if git is not None and left.files:
        git["at_home"] = left.to_json()
    return Scan(Manifest.of(entries, empty), sources, git, total, tuple(found.warnings), left)


def _take_listed(
    root: Path, listing: gitrepo.Listing, ignore: Ignore, found: _Found, most: int
) -> None:
    """What git names, in repositories inside too."""
    _inspect(root, listing.paths, ignore, found)
    skipped = _by_rules(root, "", found)
    for inner in found.nested:  # which grows meanwhile: there may be others in them
        inside = gitrepo.listing_inside(root / inner)
        if inside is None:
            _take_walked(root, inner, ignore, found, most)
            continue
        _inspect(root, (f"{inner}/{path}" for path in inside.paths), ignore, found)
        skipped |= _by_rules(root, f"{inner}/", found)
    outline = Walk(root, ignore, by_git=False, skipped=skipped)
    for _ in islice(outline.files(), most):
        pass
    found.folders = _named(outline.folders)


def _by_rules(root: Path, base: str, found: _Found) -> set[str]:
    """Note what git ignores below a folder; gives the folders that are ignored themselves."""
    ignored = gitrepo.ignored(root / base)
    found.left_out += [base + path for path in ignored]
    folders = [path for path in ignored if path.endswith("/")]
    themselves = gitrepo.ignored_themselves(root / base, folders)
    return {base + path.rstrip("/") for path in themselves}


def _take_walked(root: Path, below: str, ignore: Ignore, found: _Found, most: int) -> None:
    walk = Walk(root, ignore, by_git=True)
    _inspect(root, islice(walk.files(below), most), ignore, found)
    found.left_out += walk.left_out
    found.folders += _named(walk.folders)


def _named(folders: Iterable[str]) -> list[str]:
    """Those that a snapshot can hold."""
    named = []
    for folder in folders:
        with suppress(ValueError):
            named.append(str(SafePath.parse(folder)))
    return named


def limit(environ: Mapping[str, str]) -> int:
    """Bytes that a work folder may have: QD_WORKDIR_LIMIT (such as 2GiB), or 500 MiB. Raises InvalidInput."""
    text = environ.get(LIMIT)
    if not text:
        return MAX_BYTES
    try:
        return parse_size(text)
    except ValueError as error:
        raise InvalidInput(f"{LIMIT}: {error}") from None


def _included(root: Path, patterns: Sequence[str], most: int) -> Iterator[str]:
    """Files that match one of the patterns, or lie in a folder that does. Only the folders that the
    patterns name are walked, so `data/**` does not look at the rest."""
    rules = Ignore.parse("\n".join(patterns))
    starts = set()
    for pattern in patterns:
        parts = pattern.strip("/").split("/")
        plain = list(takewhile(lambda part: not set(part) & set("*?["), parts))
        tied = "/" in pattern.strip("/") or pattern.startswith("/")
        if ".." not in plain:
            starts.add("/".join(plain) if tied or (root / pattern.strip("/")).exists() else "")
    for start in sorted(starts):
        if (root / start).is_dir() and not (root / start).is_symlink():
            inside = Walk(root, Ignore(), by_git=False).files(start)
        else:
            inside = iter([start] if os.path.lexists(root / start) else [])
        for path in islice(inside, most):
            with suppress(ValueError):
                if rules.leaves_out(SafePath.parse(path)):
                    yield path


def _checked(folder: Path) -> Path:
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise InvalidInput(f"work folder {folder}: {why}", "Name it with --workdir.") from None
    if not stat.S_ISDIR(mode):
        raise InvalidInput(f"work folder {folder} is not a folder", "Name it with --workdir.")
    return folder.resolve()


def _read_ignore(root: Path) -> Ignore:
    try:
        return Ignore.parse((root / FILE_NAME).read_text())
    except FileNotFoundError:
        return Ignore()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {root / FILE_NAME}: {error}") from None


def _inspect(root: Path, paths: Iterable[str], ignore: Ignore, found: _Found) -> None:
    """Sort paths into files, links and the rest by lstat. What is gone meanwhile is left out."""
    for path in paths:
        try:
            safe = SafePath.parse(path)
        except ValueError as error:
            found.unnamed.append(str(error))
            continue
        path = str(safe)  # git writes "inner/" for a repository inside
        if ignore.leaves_out(safe) or not ALWAYS.isdisjoint(safe.parts):
            continue
        try:
            status = (root / path).lstat()
            if stat.S_ISREG(status.st_mode):
                found.files[path] = status.st_size
            elif stat.S_ISLNK(status.st_mode):
                target = str((root / path).readlink())
                check_link(target)
                found.links[path] = target
            elif stat.S_ISDIR(status.st_mode):
                found.nested.append(path)
            else:
                found.warnings.append(f"{show(path)} is not a file; it is left out")
        except ValueError as error:
            found.unnamed.append(f"{show(path)}: {error}")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise InvalidInput(f"cannot inspect {root / path}: {error.strerror}") from None


def _drop_behind_links(found: _Found) -> None:
    """git still lists the files of a folder that a link has replaced; the link itself says it all."""
    links = found.links.keys()
    for path in list(found.files) if links else ():
        if not links.isdisjoint(SafePath.parse(path).parents):
            del found.files[path]


def _warn(root: Path, found: _Found) -> None:
    """What will not be on the nodes as it is here: a line for each kind, the first few named."""
    if found.unnamed:
        found.warnings.append(f"left out, since no snapshot can hold it: {_some(found.unnamed)}")
    away = [
        f"{path} -> {target}"
        for path, target in found.links.items()
        if leads_out(SafePath.parse(path), target)
    ]
    if away:
        found.warnings.append(
            f"links that lead out of the folder travel as they are, and work only on nodes that have "
            f"what they lead to: {_some(away)}"
        )
    dangling = [
        f"{path} -> {target}"
        for path, target in found.links.items()
        if not leads_out(SafePath.parse(path), target) and not (root / path).exists()
    ]
    if dangling:
        found.warnings.append(f"links that lead to nothing: {_some(dangling)}")
    behind = [
        f"{path} -> {target}"
        for path, target in found.links.items()
        if not leads_out(SafePath.parse(path), target)
        and (root / path).exists()
        and not _travels(root, root / path, found)
    ]
    if behind:
        found.warnings.append(f"links to what stays at home: {_some(behind)}")
    bare = [path for path in found.nested if _is_empty(root / path)]
    if bare:
        found.warnings.append(
            f"submodules that are not checked out travel empty: {_some(bare)}; `git submodule update "
            "--init` fetches them"
        )
    pointers = [path for path, size in found.files.items() if _is_pointer(root / path, size)]
    if pointers:
        found.warnings.append(
            f"Git LFS pointers travel in the place of their files: {_some(pointers)}; `git lfs pull` "
            "fetches them"
        )


def _is_empty(folder: Path) -> bool:
    """Whether a folder that git lists, a submodule or a clone inside, has no file at all."""
    try:
        return not any(folder.iterdir())
    except OSError:
        return False


def _is_pointer(path: Path, size: int) -> bool:
    """Whether a file is what Git LFS keeps in place of a large one (its specification's first line)."""
    if not len(_POINTER) < size <= _POINTER_BYTES:
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def _travels(root: Path, link: Path, found: _Found) -> bool:
    try:
        inner = str(link.resolve().relative_to(root))
    except (OSError, ValueError):
        return False
    if inner == "." or inner in found.files:
        return True
    return any(path.startswith(f"{inner}/") for path in (*found.files, *found.links))


def _some(what: Sequence[str]) -> str:
    more = len(what) - _NAMED
    return ", ".join(what[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _check_limits(root: Path, files: Mapping[str, int], max_bytes: int, max_files: int) -> int:
    total = sum(files.values())
    if total > max_bytes:
        largest = ", ".join(f"{name} {format_size(size)}" for name, size in heaviest(files))
        raise InvalidInput(
            f"work folder {root} has {format_size(total)}; allowed: {format_size(max_bytes)}. "
            f"Largest: {largest}",
            _SMALLER,
            total=total,
            limit=max_bytes,
        )
    if len(files) > max_files:
        counts = heaviest(dict.fromkeys(files, 1))
        fullest = ", ".join(f"{name} {count} files" for name, count in counts if count > 1)
        raise InvalidInput(
            f"work folder {root} has {len(files)} files or more; allowed: {max_files}. "
            f"Most are in: {fullest}",
            _SMALLER,
            total=len(files),
            limit=max_files,
        )
    return total


def heaviest(weights: Mapping[str, int], count: int = _NAMED) -> list[tuple[str, int]]:
    """The `count` heaviest entries of a tree given as path -> weight, heaviest first.

    A folder (its name ends in `/`) weighs what is in it. Folders that hold nearly all are looked into
    rather than named: when all is in `data/`, it says which parts of `data/` are large.
    """
    prefix, groups = "", _by_first_name(weights)
    while True:
        ranked = sorted(groups.items(), key=lambda group: -sum(group[1].values()))
        sizes = [sum(inner.values()) for _, inner in ranked]
        if not ranked or not ranked[0][0].endswith("/") or sizes[0] < 0.9 * sum(sizes):
            break
        prefix, groups = prefix + ranked[0][0], _by_first_name(ranked[0][1])
    named = zip(ranked, sizes, strict=True)
    return [(prefix + name, size) for (name, _), size in named][:count]


def _by_first_name(weights: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Split a tree at its root: `a/b` goes to the group `a/` as `b`, a file `c` to `c` as ``."""
    groups: dict[str, dict[str, int]] = {}
    for path, weight in weights.items():
        first, slash, rest = path.partition("/")
        groups.setdefault(first + slash, {})[rest] = weight
    return groups


def _hash(root: Path, path: str) -> FileEntry:
    """Read one file; again when it changed meanwhile (an editor was just saving it)."""
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        if (entry := _hash_once(root, path, grown=look == _LOOKS - 1)) is not None:
            return entry
    raise InvalidInput(
        f"{root / path} changed or disappeared while it was read",
        "Submit when nothing writes to the folder, or leave the file out with .gitignore or .qdignore.",
    )


def _hash_once(root: Path, path: str, *, grown: bool) -> FileEntry | None:
    """None when what was read is not one state of a regular file.

    Args:
        grown: whether the beginning of one that has only grown meanwhile will do, as a log does. Of one that
            was just saved, the first part may be there.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(root / path, flags), "rb") as file:  # noqa: PTH123 - needs these flags
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return None
            digest = _digest(file, before.st_size)
            after = os.fstat(file.fileno())
            if grown and after.st_size > before.st_size:
                digest = digest if digest == _digest(file, before.st_size) else None
            elif (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                digest = None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise InvalidInput(
            f"cannot read {root / path}: {error.strerror}",
            "Make it readable, or leave it out with .gitignore or .qdignore.",
        ) from None
    if digest is None:
        return None
    mode = 0o755 if after.st_mode & stat.S_IXUSR else 0o644
    return FileEntry(path, mode, before.st_size, digest)


def _digest(file: BinaryIO, size: int) -> str | None:
    """Of the first `size` bytes; None when there are not so many."""
    file.seek(0)
    sha256 = hashlib.sha256()
    while size and (data := file.read(min(size, 1 << 18))):
        sha256.update(data)
        size -= len(data)
    return None if size else sha256.hexdigest()
