"""Checkpoints of the audit chain, in a file beside the database: `audit-heads.jsonl`.

The chain shows what was changed or taken out of its middle. That its newest rows are gone shows only by
what was said of them elsewhere: each line here is the number and the hash of what was the newest row, signed
by the control plane's own key. A copy of the file on another machine is worth as much as the file.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from jobs.base.disk import storage_full
from jobs.models.sshsig import BadSignature, public_key, sign, verify

FILE = "audit-heads.jsonl"
NAMESPACE = "quarterdeck-audit"
_KEPT, _MOST = 1_000, 5_000
"""Lines that stay when the file has grown to the larger number."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest row of the chain at one time (unix time); `signature` is armoured SSHSIG."""

    id: int
    hash: str
    at: float
    signature: str = ""

    @property
    def message(self) -> bytes:
        """What is signed."""
        return f"{self.id} {self.hash} {self.at!r}\n".encode()


class AuditHeads:
    """Appends and reads. Blocking; safe from several threads.

    Args:
        key: signs every line.
    """

    def __init__(self, folder: Path, key: Ed25519PrivateKey) -> None:
        self._path = folder / FILE
        self._key, self._public = key, public_key(key)
        self._lock = threading.Lock()
        self._last: Head | None = None
        self._lines = 0

    def read(self) -> list[Head]:
        """All that are kept, oldest first."""
        try:
            return parse(self._path.read_text("utf-8", "replace"))
        except FileNotFoundError:
            return []

    def ours(self, head: Head) -> bool:
        """Whether this control plane has signed it."""
        try:
            return verify(head.signature, head.message, NAMESPACE) == self._public
        except BadSignature:
            return False

    def note(self, head: Head) -> None:
        """Record the newest row, durably, unless it is recorded already.

        Raises:
            StorageFull: the disk does not take it.
        """
        with self._lock:
            if self._last is None:
                known = self.read()
                self._lines, self._last = len(known), known[-1] if known else None
            if self._last is not None and (self._last.id, self._last.hash) == (head.id, head.hash):
                return
            try:
                if self._lines >= _MOST:
                    self._shorten()
                head = replace(head, signature=sign(self._key, head.message, NAMESPACE))
                self._append(_line(head))
            except OSError as error:
                hint = "Free some disk space where the cluster's state is."
                raise storage_full(
                    "the audit log's checkpoint cannot be stored", error, hint
                ) from error
            self._last, self._lines = head, self._lines + 1

    def _append(self, line: str) -> None:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":  # a line that a crash has cut
                line = "\n" + line
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def _shorten(self) -> None:
        kept = self.read()[-_KEPT:]
        draft = self._path.with_name(f"{FILE}.new")
        with draft.open("w") as file:
            file.writelines(map(_line, kept))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._lines = len(kept)


def parse(text: str) -> list[Head]:
    """The lines of such a file; one that was cut by a crash is left out."""
    found = []
    for line in text.splitlines():
        try:
            item = json.loads(line)
            signature = str(item["signature"])
            found.append(Head(int(item["id"]), str(item["hash"]), float(item["at"]), signature))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _line(head: Head) -> str:
    return json.dumps(asdict(head)) + "\n"
