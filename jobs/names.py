"""Ids as people type them: jobs `j1`, runs (attempts) `j1.2`, ranks `j1.2/r0`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.errors import InvalidInput

_RUN = re.compile(
    r"j(?P<job>[1-9][0-9]{0,17})(?:\.(?P<attempt>[1-9][0-9]{0,8})(?:/r(?P<rank>\d{1,6}))?)?"
)
CHECKPOINT = "checkpoint"
"""The artifact that a job's checkpoint folder is kept as."""


@dataclass(frozen=True, slots=True)
class RunRef:
    """A parsed id. `attempt` None means "the newest attempt", `rank` None "all ranks"."""

    job: int
    attempt: int | None = None
    rank: int | None = None

    def __str__(self) -> str:
        text = f"j{self.job}"
        if self.attempt is not None:
            text += f".{self.attempt}"
            if self.rank is not None:
                text += f"/r{self.rank}"
        return text


def parse_run(text: str) -> RunRef:
    """Parse `j1`, `j1.2` or `j1.2/r0`. Raises InvalidInput for anything else."""
    match = _RUN.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            f"'{text}' is not a job id", "Ids look like j1, j1.2 (attempt 2) or j1.2/r0."
        )
    attempt, rank = match["attempt"], match["rank"]
    return RunRef(int(match["job"]), int(attempt) if attempt else None, int(rank) if rank else None)


def job_name(number: int) -> str:
    return f"j{number}"


def attempt_key(cluster: str, job: int, attempt: int) -> str:
    """The name of an attempt on a node's disk. It carries the cluster, so that a node which serves a
    second cluster (or one whose database was reset) never takes one job for another."""
    return f"{cluster}-j{job}.{attempt}"
