"""A disk that fails for a while: full, over its quota, read-only, or with errors. What it refuses is
nobody's mistake, so it is told in one way, and done again when the disk takes it."""

from __future__ import annotations

import errno

from jobs.base.errors import InvalidInput, QuarterdeckError, StorageFull

REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})

_HINT = "Free some disk space, or see what the disk's own log says; it is tried again."


def refused(error: BaseException) -> bool:
    """Whether an error is the disk's, and may be over in a while."""
    return isinstance(error, OSError) and error.errno in REFUSALS


def storage_full(what: str, error: OSError, hint: str = _HINT) -> StorageFull:
    """The error to raise where `what` ("a blob cannot be stored") met with an OSError."""
    return StorageFull(f"{what}: {error.strerror or error}", hint)


def cannot_write(path: object, error: OSError) -> QuarterdeckError:
    """The error to raise where a file that a person named cannot be written: the disk's fault, or the
    name's (no such folder, not theirs)."""
    text = f"cannot write {path}: {error.strerror or error}"
    return StorageFull(text, "Free some disk space.") if refused(error) else InvalidInput(text)
