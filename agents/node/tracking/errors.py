"""Errors as MLflow's clients understand them: `{"error_code": ..., "message": ...}`."""

from __future__ import annotations

import errno


class Refused(Exception):
    """A request that is not done. The client raises an exception with `message`, and looks at `code`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def invalid(message: str) -> Refused:
    return Refused(400, "INVALID_PARAMETER_VALUE", message)


def missing(message: str) -> Refused:
    return Refused(404, "RESOURCE_DOES_NOT_EXIST", message)


def exists(message: str) -> Refused:
    return Refused(400, "RESOURCE_ALREADY_EXISTS", message)


def no_endpoint(path: str) -> Refused:
    """Clients look for this code, and go on without what they asked for."""
    return Refused(404, "ENDPOINT_NOT_FOUND", f"Quarterdeck does not answer {path[:200]}")


def not_stored(error: OSError) -> Refused:
    """What a disk refuses. 507 is a status that clients do not repeat for minutes, unlike 500."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    why = "the disk of this node is full" if full else f"the disk refuses it: {error.strerror}"
    return Refused(507, "INTERNAL_ERROR", f"Nothing was recorded: {why}")
