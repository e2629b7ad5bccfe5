"""`qd metrics JOB --try`: what patterns would find in a log that is recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from console.cli.ids import Target, target
from console.cli.logs import log_lines
from console.client import Client
from jobs.base.errors import InvalidInput
from jobs.metrics.patterns import Place, Reader, expanded

if TYPE_CHECKING:
    from jobs.wire.views import MetricPoint


def tried(
    client: Client, job: str, patterns: Sequence[str], only: str | None
) -> Iterator[MetricPoint]:
    """The points that patterns find in the log of a job's newest attempt, or of the one that is named.

    Args:
        patterns: ready sets by name, and NAME=EXPRESSION.
        only: of this metric.

    Raises InvalidInput for what is no pattern.
    """
    wanted = target(job)
    own = dict(item.split("=", 1) for item in patterns if "=" in item)
    sets = [item for item in patterns if "=" not in item]
    try:
        readers = [Reader(item) for item in expanded([*sets, *([own] if own else [])])]
    except ValueError as error:
        raise InvalidInput(f"--try: {error}") from None
    places: dict[int, list[Place]] = {}
    query = {"attempt": wanted.attempt, "rank": wanted.rank}
    for line in log_lines(client, Target(wanted.job), query, [], follow=False):
        rank = line["rank"]
        of_rank = places.setdefault(rank, [Place() for _ in readers])
        for reader, place in zip(readers, of_rank, strict=True):
            for found in reader.read(line["line"], place):
                if only in (None, found.name):
                    yield {
                        "name": found.name,
                        "step": found.step,
                        "at": line["at"],
                        "value": None if math.isnan(found.value) else found.value,
                        "rank": rank,
                    }
