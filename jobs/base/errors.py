"""One small tree of errors with stable codes.

Each error says what happened, to what, and what to do next. The API turns an error into
`{"error": {"code", "message", "hint", "details"}}` with `http_status`; the CLI prints message and
hint on stderr and ends with `exit_code` (see the exit codes in docs/cli.md).
"""

from __future__ import annotations

from typing import Any, ClassVar


class QuarterdeckError(Exception):
    """Base of every error that a person may see.

    Args:
        message: what happened, to what, in one sentence.
        hint: what to do next, or an empty string.
        details: facts for scripts (numbers, names); JSON-serialisable.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def to_json(self) -> dict[str, Any]:
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "hint": self.hint,
                "details": self.details,
            }
        }


class InvalidInput(QuarterdeckError):
    """Wrong usage or a bad file: nothing was changed."""

    code = "invalid"
    http_status = 422
    exit_code = 2


class NotFound(QuarterdeckError):
    code = "not_found"
    http_status = 404
    exit_code = 3


class NotAllowed(QuarterdeckError):
    code = "not_allowed"
    http_status = 403
    exit_code = 4


class Unreachable(QuarterdeckError):
    """The controller, an agent or the cluster did not answer. Says nothing about what runs there."""

    code = "unreachable"
    http_status = 503
    exit_code = 5


class Conflict(QuarterdeckError):
    """The thing is not in a state that allows this."""

    code = "conflict"
    http_status = 409
    exit_code = 6


class TimedOut(QuarterdeckError):
    code = "timed_out"
    http_status = 504
    exit_code = 124


class StorageFull(QuarterdeckError):
    """No room to record something durably, so it was not acknowledged."""

    code = "storage_full"
    http_status = 507
    exit_code = 6


class Damaged(QuarterdeckError):
    """What is recorded cannot be read as it was written: the disk, or somebody, has changed it."""

    code = "damaged"
    http_status = 500
    exit_code = 6


BY_CODE: dict[str, type[QuarterdeckError]] = {
    cls.code: cls
    for cls in (
        QuarterdeckError,
        InvalidInput,
        NotFound,
        NotAllowed,
        Unreachable,
        Conflict,
        TimedOut,
        StorageFull,
        Damaged,
    )
}


def from_json(body: dict[str, Any]) -> QuarterdeckError:
    """The error that `to_json` wrote; an unknown code becomes the base class."""
    error = body.get("error") or {}
    cls = BY_CODE.get(str(error.get("code", "")), QuarterdeckError)
    return cls(
        str(error.get("message", "unknown error")),
        str(error.get("hint", "")),
        **(error.get("details") or {}),
    )
