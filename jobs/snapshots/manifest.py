"""Snapshots: a work folder as a manifest and content-addressed blobs.

A manifest lists files by path, mode, size and sha256, and folders with nothing in them. Its canonical JSON is
itself a blob, and the digest of those bytes names the snapshot, so equal folders have equal names. A manifest
from outside is checked whole: no path in it can lead out of the folder it is extracted to, and no file lies
behind a link. Links themselves are kept as they are, wherever they lead. How blobs travel is in
`jobs/snapshots/pack.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.base.disk import refused
from jobs.base.errors import Conflict, InvalidInput, NotFound, QuarterdeckError, StorageFull
from jobs.base.paths import SafePath, check_link
from jobs.base.units import format_size, show
from jobs.snapshots.pack import HEX_DIGEST, MAX_BLOB

MAX_FILES = 50_000
"""Files of a work folder or a checkpoint."""
MAX_ENTRIES = 250_000
"""Files of any manifest: a version of a data set may have more than a work folder."""
MAX_MANIFEST = 64 * 2**20
"""Bytes. 250,000 files with paths of a hundred bytes fit."""
_VERSION, _WITH_FOLDERS = 1, 2
"""The second is that of manifests with empty folders, which an older node cannot unpack, and says so."""
_MODES = (0o644, 0o755)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file. A link has `link` (its target) and no content: mode 0o644, size 0, sha256 ''."""

    path: str
    mode: int  # 0o644 or 0o755
    size: int  # bytes
    sha256: str  # hex
    link: str | None = None

    def to_json(self) -> dict[str, Any]:
        if self.link is not None:
            return {"link": self.link, "path": self.path}
        return {"mode": self.mode, "path": self.path, "sha256": self.sha256, "size": self.size}


@dataclass(frozen=True)
class Manifest:
    """The files of a folder, sorted by path, and folders with nothing in them. Other folders exist only as
    parts of paths, as in git."""

    files: tuple[FileEntry, ...] = ()
    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[FileEntry], folders: Iterable[str] = ()) -> Manifest:
        """A manifest of these files and empty folders, sorted and checked. Raises InvalidInput."""
        files = tuple(sorted(entries, key=lambda entry: _order(entry.path)))
        empty = tuple(sorted(folders, key=_order))
        _check(files, empty)
        return cls(files, empty)

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read what `to_bytes` wrote, from anyone. Raises InvalidInput for anything else: other JSON
        forms of the same content are refused too, since they would have another digest."""
        if len(data) > MAX_MANIFEST:
            raise InvalidInput(f"the manifest is larger than {format_size(MAX_MANIFEST)}")
        try:
            document = json.loads(data)
            if document["version"] not in (_VERSION, _WITH_FOLDERS):
                raise InvalidInput(
                    f"the manifest has version {show(document['version'])}; known here: {_VERSION} and "
                    f"{_WITH_FOLDERS}",
                    "Upgrade the older side, so that both are of one version.",
                )
            folders = document.get("folders", [])
            if not isinstance(folders, list) or not all(isinstance(path, str) for path in folders):
                raise TypeError("folders")
            manifest = cls.of([_entry(item) for item in document["files"]], folders)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidInput("this is not a snapshot manifest") from None
        if manifest.to_bytes() != data:
            raise InvalidInput("the manifest is not in canonical form")
        return manifest

    def to_bytes(self) -> bytes:
        """Canonical JSON: keys sorted, no spaces, UTF-8."""
        document: dict[str, Any] = {"files": [entry.to_json() for entry in self.files]}
        document |= (
            {"folders": self.folders, "version": _WITH_FOLDERS}
            if self.folders
            else {"version": _VERSION}
        )
        return json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    @cached_property
    def digest(self) -> str:
        """The snapshot's name: `sha256:` and the hex digest of `to_bytes()`."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()

    @cached_property
    def blobs(self) -> frozenset[str]:
        """Hex digests of the files' contents, without the manifest's own."""
        return frozenset(entry.sha256 for entry in self.files if entry.link is None)

    @cached_property
    def total_bytes(self) -> int:
        """What extracting it takes on disk, in bytes."""
        return sum(entry.size for entry in self.files)


def empty_beside(files: Iterable[FileEntry], folders: Iterable[str]) -> list[str]:
    """Which of these folders have nothing in them: no file, and none of the other folders."""
    names = [SafePath.parse(entry.path) for entry in files]
    inner = {parent for path in names for parent in path.parents} | {str(path) for path in names}
    known = set(folders)
    inner |= {parent for folder in known for parent in SafePath.parse(folder).parents}
    return sorted(known - inner, key=_order)


def _order(path: str) -> bytes:
    return path.encode(errors="replace")


def _entry(item: dict[str, Any]) -> FileEntry:
    if not isinstance(item["path"], str):
        raise TypeError("path")
    if "link" in item:
        return FileEntry(item["path"], 0o644, 0, "", item["link"])
    return FileEntry(item["path"], item["mode"], item["size"], item["sha256"])


def _check(files: tuple[FileEntry, ...], empty: tuple[str, ...]) -> None:
    """All that must hold before a manifest is believed. Raises InvalidInput naming the first fault."""
    if len(files) + len(empty) > MAX_ENTRIES:
        raise InvalidInput(
            f"the snapshot has {len(files) + len(empty)} files; allowed: {MAX_ENTRIES}"
        )
    leaves: set[str] = set()
    folders: set[str] = set()
    listed = [*((entry.path, entry) for entry in files), *((path, None) for path in empty)]
    for name, entry in listed:
        try:
            path = SafePath.parse(name)
            if str(path) != name:
                raise ValueError(f"allowed: the plain form {show(str(path))}")
            if entry is not None:
                _check_entry(entry)
        except ValueError as error:
            raise InvalidInput(f"snapshot file {show(name)}: {error}") from None
        if name in leaves:
            raise InvalidInput(f"snapshot file {show(name)} is listed twice")
        leaves.add(name)
        folders.update(path.parents)
    both = leaves & folders
    if both:  # also what keeps files from being written through a link
        raise InvalidInput(f"snapshot file {show(min(both))} is also a folder in it")


def _check_entry(entry: FileEntry) -> None:
    if entry.link is not None:
        if not isinstance(entry.link, str):
            raise ValueError("its link target is not text")
        check_link(entry.link)
        return
    if type(entry.mode) is not int or entry.mode not in _MODES:
        raise ValueError(f"mode {show(entry.mode)}; allowed: 0o644 and 0o755")
    if type(entry.size) is not int or not 0 <= entry.size <= MAX_BLOB:
        raise ValueError(f"size {show(entry.size)}; allowed: 0 to {format_size(MAX_BLOB)}")
    if not isinstance(entry.sha256, str) or not HEX_DIGEST.fullmatch(entry.sha256):
        raise ValueError("its sha256 is not 64 hex digits")


def extract(manifest: Manifest, blob_path: Callable[[str], Path], target: Path) -> None:
    """Write the snapshot's files below `target`, which is made when it is not there.

    Files are copied, never hard-linked: a job may write to its work folder, and the blob must not
    change. Links come last, so no file is written through one. `blob_path` maps a hex digest to the
    file that holds it; contents were verified when the blob was stored, only sizes are checked here.

    Raises NotFound for a missing blob, Conflict when a path exists already, StorageFull without room.
    """
    made: set[Path] = set()
    try:
        target.mkdir(parents=True, exist_ok=True)
        for folder in manifest.folders:
            (target / folder).mkdir(parents=True, exist_ok=True)
        for entry in sorted(manifest.files, key=lambda entry: entry.link is not None):
            path = target / entry.path
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            if entry.link is not None:
                path.symlink_to(entry.link)
            else:
                _copy(entry, blob_path(entry.sha256), path)
    except FileExistsError as error:
        raise Conflict(
            f"cannot extract the snapshot: {error.filename} exists already",
            "Extract into an empty folder.",
        ) from None
    except OSError as error:
        raise _extract_error(error, target) from None


def _copy(entry: FileEntry, blob: Path, path: Path) -> None:
    try:
        source = blob.open("rb")
    except FileNotFoundError:
        raise NotFound(
            f"blob {entry.sha256} ({show(entry.path)}) is not here", digest=entry.sha256
        ) from None
    with source, path.open("xb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        if copy.tell() != entry.size:
            raise InvalidInput(
                f"blob {entry.sha256} has {copy.tell()} bytes, {show(entry.path)} needs {entry.size}"
            )
    path.chmod(entry.mode)  # whatever the umask says: a script that was executable stays so


def _extract_error(error: OSError, target: Path) -> QuarterdeckError:
    what = f"cannot extract the snapshot to {target}: {error.strerror}"
    if refused(error):
        return StorageFull(what, "Free space on the node, or move its state to a larger disk.")
    return InvalidInput(what)
