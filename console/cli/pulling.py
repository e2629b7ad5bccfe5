"""Copying files of a job to here: resumed where a copy was cut, and compared by digest."""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.cli.format import size
from console.cli.output import narrate
from console.cli.patience import Patience
from console.client import Client
from jobs.base.disk import cannot_write
from jobs.base.errors import Conflict, InvalidInput, Unreachable
from jobs.base.paths import SafePath, leads_out

if TYPE_CHECKING:
    from jobs.wire.views import FileView

BLOCK = 64 << 20
"""Bytes that are compared at a time."""
_READ = 1 << 20
_EVERY = 0.1
"""Seconds between two states of the progress bar."""
_TRIES = 3
"""Times that a file is copied which changes meanwhile."""
_TIMEOUT = 60.0
"""Seconds of silence allowed: a node may be busy, and is asked again by the control plane."""


def chunks_of(client: Client, job: str, file: FileView, offset: int) -> Iterator[bytes]:
    """The bytes of a file as it was when it was listed, from `offset` on.

    Args:
        job: the path of the job in the API.

    Raises as `Client.copy`.
    """
    left = file["size"] - offset
    if left <= 0:
        return
    path, query = _source(job, file)
    pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=16)
    over = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not over.is_set():
            try:
                return pieces.put(item, timeout=0.2)
            except queue.Full:
                continue
        raise _Left

    def fetch() -> None:
        try:
            client.with_timeout(_TIMEOUT).copy(path, put, offset=offset, limit=left, **query)
            put(None)
        except _Left:
            return
        except BaseException as error:  # raised again where it is waited for
            try:
                put(error)
            except _Left:
                return

    fetcher = threading.Thread(target=fetch, name="pull", daemon=True)
    fetcher.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        over.set()


class _Left(Exception):
    """Nobody waits for what is fetched any more."""


def _source(job: str, file: FileView) -> tuple[str, dict[str, Any]]:
    if file["sha256"] is not None:
        return f"/v1/blobs/{file['sha256']}", {}
    return f"{job}/files/{file['place']}/data", {"node": file["node"], "file": file["path"]}


class Puller:
    """Copies files below a folder.

    Args:
        job: the path of the job in the API.
        quiet: no progress bar.
        moved: is passed the bytes that are here, and the file that is being copied.
        tell: is passed what a person should know, such as that the connection was lost.
    """

    def __init__(
        self,
        client: Client,
        job: str,
        target: Path,
        *,
        quiet: bool,
        moved: Callable[[int, str], None] = lambda done, name: None,
        tell: Callable[[str], None] = narrate,
    ) -> None:
        self._client, self._job, self._target = client, job, target
        self._bar = sys.stderr.isatty() and not quiet
        self._told_moved, self._tell = moved, tell
        self._drawn = 0.0
        self._done = self._total = 0

    def pull(self, files: list[FileView]) -> list[dict[str, Any]]:
        """Copy them all, links last; what was written of each, for `--json`.

        Raises InvalidInput for a path that would lead out of the folder, Conflict for a file that keeps
        changing, Unreachable when the control plane stays away, StorageFull of the disk here.
        """
        self._total = sum(file["size"] for file in files)
        done = []
        for file in sorted(files, key=lambda file: "link" in file):
            path = self._place(file)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if "link" in file:
                    _link(path, file)
                else:
                    self._copy(file, path)
            except OSError as error:
                raise cannot_write(path, error) from error
            done.append({"path": str(path), "size": file["size"], "node": file["node"]})
        if self._bar and self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        return done

    def _place(self, file: FileView) -> Path:
        """Where a file goes. Its path comes from the other side: it may not lead out."""
        try:
            parts = SafePath.parse(file["path"]).parts
        except ValueError as error:
            raise InvalidInput(f"the path of a file: {error}") from None
        if file["place"] == "checkpoint":
            parts = ("checkpoint", *parts)
        path = self._target.joinpath(*parts)
        here = self._target
        for part in parts[:-1]:
            here = here / part
            if here.is_symlink():
                raise InvalidInput(f"{here} is a link: remove it, or pull to another folder")
        return path

    def _copy(self, file: FileView, path: Path) -> None:
        start = self._done
        for attempt in range(_TRIES):
            self._done = start
            if self._try(file, path, fresh=attempt > 0):
                return
        raise Conflict(
            f"{file['path']} changed while it was being copied",
            "Pull it again when the job no longer writes to it.",
        )

    def _try(self, file: FileView, path: Path, *, fresh: bool) -> bool:
        """Copy a file; False when it turned out to be another one than was listed."""
        part = path.with_name(f"{path.name[:200]}.part")
        held = path if path.is_file() and not path.is_symlink() and not fresh else part
        if held is path and path.stat().st_size != file["size"]:
            held = part
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(held, flags, 0o666), "r+b") as target:
            if fresh or os.fstat(target.fileno()).st_size > file["size"]:
                target.truncate(0)
            if not self._fill(file, target):
                target.truncate(0)
                if held is path:  # it was here, but is another one
                    path.unlink()
                return False
            target.flush()
            os.fsync(target.fileno())
        held.chmod(0o755 if file["mode"] & 0o100 else 0o644)
        if held is part:
            part.replace(path)
        return True

    def _fill(self, file: FileView, target: Any) -> bool:
        """Bring what is missing, and compare all of it; False when something differs."""
        patience = Patience(self._client, tell=self._tell)
        check = _Check(self._client, self._job, file)
        while data := target.read(_READ):
            check.feed(data)
            self._moved(len(data), file)
        while True:
            try:
                for chunk in chunks_of(self._client, self._job, file, target.tell()):
                    patience.worked()
                    target.write(chunk)
                    check.feed(chunk)
                    self._moved(len(chunk), file)
                same = check.same()
                patience.worked()
                return same
            except Unreachable as error:
                patience.failed(error)

    def _moved(self, count: int, file: FileView) -> None:
        self._done += count
        self._told_moved(self._done, file["path"])
        now = self._client.clock()
        if not self._bar or now - self._drawn < _EVERY:
            return
        self._drawn = now
        share = self._done / max(self._total, 1)
        bar = ("█" * round(20 * share)).ljust(20, "░")
        name = file["path"][-40:]
        text = f"{bar} {size(self._done)} of {size(self._total)}  {name}"
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


class _Check:
    """Compares what has come with what is there: by the digest of the whole where that is known, else
    block by block with those that the node gives."""

    def __init__(self, client: Client, job: str, file: FileView) -> None:
        self._client, self._job, self._file = client, job, file
        self._hash = hashlib.sha256()
        self._size = self._open = 0  # bytes in all, and in the block that is not full
        self._blocks: list[tuple[int, int, str]] = []  # offset, bytes, digest: not compared yet

    def feed(self, data: bytes) -> None:
        while data:
            room = len(data) if self._file["sha256"] is not None else BLOCK - self._open
            piece, data = data[:room], data[room:]
            self._hash.update(piece)
            self._size += len(piece)
            self._open += len(piece)
            if self._file["sha256"] is None and self._open == BLOCK:
                self._end_block()

    def _end_block(self) -> None:
        self._blocks.append((self._size - self._open, self._open, self._hash.hexdigest()))
        self._hash, self._open = hashlib.sha256(), 0

    def same(self) -> bool:
        """Whether all of it is what is there. Raises Unreachable, and may be asked again."""
        file = self._file
        if self._size != file["size"]:
            return False
        if file["sha256"] is not None:
            return self._hash.hexdigest() == file["sha256"]
        if self._open:
            self._end_block()
        while self._blocks:
            offset, length, digest = self._blocks[0]
            answer = self._client.with_timeout(_TIMEOUT).get(
                f"{self._job}/files/{file['place']}/digest",
                node=file["node"],
                file=file["path"],
                offset=offset,
                limit=length,
            )
            if answer["sha256"] != digest:
                return False
            self._blocks.pop(0)
        return True


def _link(path: Path, file: FileView) -> None:
    """A link as it is, unless it leads out of the folder."""
    target = file.get("link") or ""
    if not target or leads_out(SafePath.parse(file["path"]), target):
        return
    if path.is_symlink():
        path.unlink()
    if not path.exists():
        path.symlink_to(target)
