"""Times as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(at: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC with milliseconds, `2026-11-23T06:28:01.250Z`."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def maybe_rfc3339(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def parse_time(text: str) -> float:
    """The inverse; accepts any ISO 8601 time, and takes one without a zone as UTC.

    Raises:
        ValueError: not a time.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
