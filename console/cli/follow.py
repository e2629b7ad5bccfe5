"""Following a job's log through broken connections: no line twice, none left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from console.cli.ids import Target
from console.cli.patience import Patience
from console.client import Client
from jobs.base.errors import Unreachable
from jobs.base.states import TERMINAL
from jobs.base.times import parse_time, rfc3339

if TYPE_CHECKING:
    from jobs.wire.views import JobView, LogLine

SLACK = 5.0
"""Seconds asked again after a reconnect: more than the grain of `at`, and offsets drop the rest."""

_PAUSE = 1.0  # seconds between looks for the next attempt of a job that is to be restarted


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
        """The query that gives every line not yet taken of the attempt that was being read, and
        some that were.

        One rank is read on from its offset. Several are asked for by time, from where the rank is
        that was heard of longest ago; one that was not heard of at all may have lines from the
        beginning, or from the first line shown when only a tail was asked for.
        """
        self._resumed = True
        if not self._last:
            return self._query
        attempt = max(last["attempt"] for last in self._last.values())
        heard = [last for last in self._last.values() if last["attempt"] == attempt]
        query = {**self._query, "attempt": attempt, "tail": None}
        if len(self._ranks) == 1:
            return {**query, "rank": heard[0]["rank"], "since": None, "offset": heard[0]["offset"]}
        moments = [last["at"] for last in heard]
        if len(heard) < len(self._ranks):
            beginning = self._first_at if self._query.get("tail") else self._query.get("since")
            if beginning is None:
                return {**query, "since": None}
            moments.append(beginning)
        # All times of the API have one form, so their texts sort as the times do.
        return {**query, "since": rfc3339(parse_time(min(moments)) - SLACK)}


def _seen(line: LogLine, last: LogLine) -> bool:
    # A later attempt has a new log, whose offsets start again.
    return (line["attempt"], line["offset"]) <= (last["attempt"], last["offset"])


def follow_logs(
    client: Client, job: Target, query: dict[str, Any], ranks: list[int], patience: Patience
) -> Iterator[LogLine]:
    """Lines of a log until the job has ended, through restarts of the control plane.

    Without an `attempt` in the query it goes on in the logs of later attempts.

    Args:
        query: without `follow`.
        ranks: of the job, as far as the query lets them through.

    Raises:
        Unreachable: the control plane stayed away.
    """
    cursor = LogCursor(query, ranks)
    one_attempt = query.get("attempt") is not None
    while True:
        try:
            with client.stream(job.path("logs"), follow=True, **query) as stream:
                patience.worked()
                for document in stream:
                    line = cast("LogLine", document)
                    if cursor.take(line):
                        yield line
            if one_attempt or query.get("attempt") is None:
                return
            later = later_attempt(client, job, query["attempt"])
            if later is None:
                return
            query = {**query, "attempt": later, "since": None, "offset": None}
        except Unreachable as error:
            patience.failed(error)
            query = cursor.resume()


def later_attempt(client: Client, job: Target, attempt: int) -> int | None:
    """The attempt after one that has ended, once there is one; None when the job has ended too."""
    while True:
        view = cast("JobView", client.get(job.path("wait"), timeout=0))
        if view["attempt"] > attempt:
            return attempt + 1
        if view["state"] in TERMINAL:
            return None
        client.sleep(_PAUSE)
