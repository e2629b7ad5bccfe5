"""A backup of a control plane that may be running: registry, blobs, logs, and a manifest.

It is made in a folder beside its final name and renamed when it is whole. Blobs are taken before the
registry, and once more after it: whatever the registry refers to was in the store at one of the two times,
since pruning leaves alone what is new. Logs come last, so they hold at least what the registry counts on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine, make_url
from sqlmodel import Session

from agents.controller.stores import auditheads, dumps, manifest, trust
from agents.controller.stores.blobplace import blobs_elsewhere
from agents.controller.stores.manifest import FileEntry, Manifest, Say
from jobs import __version__
from jobs.base.disk import refused, storage_full
from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.base.times import rfc3339
from jobs.base.words import counted
from jobs.snapshots.pack import HEX_DIGEST
from jobs.wire.backupviews import AuditHead

FOLDER = "backups"
_MAKING = ".making"
_CHUNK = 1 << 20
_SECRET_FILES = (trust.KEY, "ray-token")


def default_place(state: Path, now: float) -> Path:
    """Where a backup goes when nobody says where; `now` is unix time."""
    stamp = rfc3339(now).replace("-", "").replace(":", "").replace(".", "")
    return state / FOLDER / stamp


def make(state: Path, url: str, dest: Path, *, secrets: bool, now: float, say: Say) -> Manifest:
    """Make a backup. Blocking, takes as long as copying does.

    Args:
        url: of the registry, as for `Database.open`.
        secrets: whether to take along the values of jobs' secrets and the cluster's own keys.
        now: unix time.
        say: gets a line about what is done.

    Raises:
        Conflict: `dest` exists, or PostgreSQL's own tools cannot do it.
        InvalidInput: `dest` cannot be made.
        NotFound: there is no registry.
        StorageFull: no room; what was made so far is removed.
    """
    if os.path.lexists(dest):
        raise Conflict(f"{dest} already exists", "Name a folder that does not exist yet.")
    try:
        with _making(dest) as folder:
            return _Maker(state, folder, say).make(url, secrets, now)
    except OSError as error:
        if refused(error):
            raise storage_full(
                f"{dest} cannot be written", error, "Free some disk space."
            ) from error
        raise InvalidInput(f"{dest} cannot be created: {error}") from error


@contextlib.contextmanager
def _making(dest: Path) -> Iterator[Path]:
    """A folder beside `dest` that gets its name in the end; removed when something fails. What a process
    that was killed has left is removed by the next one."""
    if dest.parent.name == FOLDER:
        dest.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in dest.parent.glob(f".*{_MAKING}"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left)
    folder = dest.with_name(f".{dest.name}{_MAKING}")
    folder.mkdir(mode=0o700)
    with _locked(folder):
        try:
            yield folder
            os.sync()
            if os.path.lexists(dest):
                raise FileExistsError(errno.EEXIST, "somebody has made it meanwhile", str(dest))
            folder.rename(dest)
            sync_folder(dest.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises OSError when another process holds it. The kernel releases it when the holder dies."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Maker:
    """Makes one backup in `folder`."""

    def __init__(self, state: Path, folder: Path, say: Say) -> None:
        self._state, self._folder, self._say = state, folder, say
        self._files: dict[str, FileEntry] = {}

    def make(self, url: str, secrets: bool, now: float) -> Manifest:
        if elsewhere := blobs_elsewhere(self._state):
            self._say(f"the blobs are in {elsewhere}, and stay there")
        self._blobs()
        self._single(auditheads.FILE)  # before the registry, which has to know all that they name
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            self._say("copying the registry")
            name = manifest.REGISTRY
            copy_sqlite(Path(parsed.database or ""), self._folder / name)
            cluster, schema, head = look(self._folder / name)
        else:
            self._say("dumping the registry with pg_dump")
            name = manifest.DUMP
            cluster, schema, head = dumps.dump(parsed, self._folder / name)
        self._files[name] = manifest.entry_of(self._folder / name)
        self._blobs()
        self._single(trust.FILE)
        if secrets:
            for file in _SECRET_FILES:
                self._single(file)
            self._tree("secrets", lambda path: path.suffix == ".json")
        # The times of a log are written after its bytes: taken first, they name none that are missing.
        self._tree("logs", lambda path: path.suffix == ".times")
        self._tree("logs", lambda path: path.suffix == ".log")
        self._say(f"copied {counted(len(self._files), 'file')}")
        found: Manifest = {
            "version": manifest.VERSION,
            "cluster": cluster,
            "quarterdeck": __version__,
            "schema": schema,
            "database": backend,
            "made_at": rfc3339(now),
            "secrets": secrets,
            "audit": head,
            "files": self._files,
        }
        if elsewhere:
            found["blobs"] = elsewhere
        with open(self._folder / manifest.FILE, "x", opener=_private) as sink:
            json.dump(found, sink, indent=1)
        return found

    def _single(self, name: str) -> None:
        if (self._state / name).is_file():
            self._copy(name)

    def _tree(self, room: str, wanted: Callable[[Path], bool]) -> None:
        for path in sorted((self._state / room).rglob("*")):
            if wanted(path) and path.is_file() and not path.is_symlink():
                self._copy(path.relative_to(self._state).as_posix())

    def _copy(self, name: str) -> None:
        """The bytes that a file has now; what is appended meanwhile is left out. One that has just been
        removed is left out, too."""
        target = self._folder / name
        try:
            source = (self._state / name).open("rb", buffering=0)
        except FileNotFoundError:
            return
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        hasher = sha256()
        with source, open(target, "xb", opener=_private) as file:
            left = size = os.fstat(source.fileno()).st_size
            while left and (chunk := source.read(min(left, _CHUNK))):
                hasher.update(chunk)
                file.write(chunk)
                left -= len(chunk)
        self._files[name] = {"sha256": hasher.hexdigest(), "size": size - left}

    def _blobs(self) -> None:
        """Those that are not in the backup yet. They never change and are named by their digest, so a
        link is as good as a copy."""
        root = self._state / "blobs" / "sha256"
        taken = 0
        for path in sorted(root.glob("??/*")):
            name = path.relative_to(self._state).as_posix()
            if name in self._files or not HEX_DIGEST.fullmatch(path.name) or path.is_symlink():
                continue
            target = self._folder / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                link_or_copy(path, target)
            except FileNotFoundError:  # pruned at this moment: nothing refers to it
                continue
            self._files[name] = {"sha256": path.name, "size": target.stat().st_size}
            taken += 1
            if taken % 1_000 == 0:
                self._say(f"took {taken} blobs")


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)
        target.chmod(0o600)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy, whoever writes to it meanwhile. Raises NotFound, Conflict."""
    if not source.is_file():
        raise NotFound(f"there is no registry at {source}", "Nothing was ever recorded here.")
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=60)) as live,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
            found = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise OSError(errno.ENOSPC, str(error)) from error
        raise Conflict(f"the registry cannot be copied: {error}") from error
    except sqlite3.DatabaseError as error:
        raise Conflict(f"the registry is damaged: {error}") from error
    if found != ("ok",):
        raise Conflict(f"the registry is damaged: {found[0]}")
    target.chmod(0o600)


@contextlib.contextmanager
def reading(file: Path) -> Iterator[Session]:
    """A session on an SQLite file that nobody writes to; nothing is made beside it."""
    where = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(where, uri=True))
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


def look(file: Path) -> tuple[str, str, AuditHead | None]:
    """The cluster's id, the schema's revision and the newest row of the audit log."""
    with reading(file) as session:
        return manifest.of_registry(session)
