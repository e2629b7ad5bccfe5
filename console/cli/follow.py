"""Following a job's log through broken connections: no line twice, none left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from console.cli.patience import Patience
from console.client import Client
from jobs.errors import Unreachable
from jobs.times import parse_time, rfc3339
from jobs.views import LogLine

SLACK = 5.0
"""Seconds asked again after a reconnect: more than the grain of `at`, and offsets drop the rest."""


class LogCursor:
    """What has been taken of a log, rank by rank.

    Args:
        query: what the log was asked for with.
        ranks: the ranks that it holds lines of.
    """

    def __init__(self, query: dict[str, Any], ranks: list[int]) -> None:
        self._query = query
        self._ranks = ranks
        self._last: dict[int, LogLine] = {}
        self._first_at: str | None = None
        self._resumed = False

    def take(self, line: LogLine) -> bool:
        """Note a line; False when it had been taken before the connection broke."""
        last = self._last.get(line["rank"])
        if self._resumed and last is not None and _seen(line, last):
            return False
        self._first_at = self._first_at or line["at"]
        self._last[line["rank"]] = line
        return True

    def resume(self) -> dict[str, Any]:
        """The query that gives every line not yet taken, and some that were.

        It goes back to the rank that was heard of longest ago. A rank that was not heard of at all
        may have lines from the beginning, or from the first line shown when only a tail was asked.
        """
        self._resumed = True
        if not self._last:
            return self._query
        beginning = self._first_at if self._query.get("tail") else self._query.get("since")
        heard = [last["at"] for last in self._last.values()]
        missing = any(rank not in self._last for rank in self._ranks)
        if missing and beginning is None:
            since = None
        else:
            # All times of the API have one form, so their texts sort as the times do.
            since = min([*heard, cast(str, beginning)] if missing else heard)
            since = rfc3339(parse_time(since) - SLACK)
        return {**self._query, "tail": None, "since": since}


def _seen(line: LogLine, last: LogLine) -> bool:
    # A later attempt has a new log, whose offsets start again.
    return (line["attempt"], line["offset"]) <= (last["attempt"], last["offset"])


def follow_logs(
    client: Client, path: str, query: dict[str, Any], ranks: list[int], patience: Patience
) -> Iterator[LogLine]:
    """Lines of a log until the job has ended, through restarts of the control plane.

    Args:
        path: of the log in the API.
        query: without `follow`.
        ranks: of the job, as far as the query lets them through.

    Raises:
        Unreachable: the control plane stayed away.
    """
    cursor = LogCursor(query, ranks)
    while True:
        try:
            with client.stream(path, follow=True, **query) as stream:
                patience.worked()
                for document in stream:
                    line = cast(LogLine, document)
                    if cursor.take(line):
                        yield line
                return
        except Unreachable as error:
            patience.failed(error)
            query = cursor.resume()
