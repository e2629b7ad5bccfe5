"""Whose keys are believed, and the control plane's own key.

`allowed_signers` in the state folder is OpenSSH's file of that name, kept by who runs the control plane.
`audit-key` is made at the first start, and signs the audit log's checkpoints.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from jobs.base.disk import storage_full
from jobs.base.errors import InvalidInput
from jobs.models.signers import Signer, read_signers

log = logging.getLogger(__name__)

FILE, KEY = "allowed_signers", "audit-key"
_MAX_FILE = 1 << 20
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


class AllowedSigners:
    """The file, read anew when it has changed. Blocking; safe from several threads.

    A file that others could write is not believed, and nor is what cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._seen: tuple[int, int, int] | None = None
        self._signers: tuple[Signer, ...] = ()

    def read(self) -> tuple[Signer, ...]:
        try:
            status = self.path.stat()
        except OSError:
            self._seen, self._signers = None, ()
            return ()
        seen = (status.st_mtime_ns, status.st_size, status.st_mode)
        if seen != self._seen:
            self._signers = self._read(status)
            self._seen = seen
        return self._signers

    def _read(self, status: os.stat_result) -> tuple[Signer, ...]:
        if status.st_mode & _WRITABLE or status.st_uid not in (0, os.geteuid()):
            log.warning("%s is not believed: others may write it", self.path)
            return ()
        try:
            text = self.path.read_text("utf-8", "replace")[:_MAX_FILE]
        except OSError as error:
            log.warning("%s cannot be read: %s", self.path, error.strerror)
            return ()
        signers, problems = read_signers(text)
        for problem in problems:
            log.warning("%s, %s", self.path, problem)
        return signers


def own_key(folder: Path) -> Ed25519PrivateKey:
    """The control plane's key, made when there is none; its public half lies beside it.

    Raises:
        InvalidInput: what is there is no such key.
        StorageFull: it cannot be written.
    """
    path = folder / KEY
    try:
        if not path.exists():
            _make(path)
        key = load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        raise storage_full(f"{path} cannot be made", error) from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not a private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{path} is not an Ed25519 key")
    return key


def _make(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    _write(path.with_suffix(".pub"), public + b" quarterdeck-audit\n", 0o644)
    _write(path, private, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    handle, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    Path(draft).replace(path)
