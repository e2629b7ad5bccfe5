"""Ids as typed on the command line, and the paths of the API that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from console.client import segment
from jobs.base.errors import InvalidInput
from jobs.base.names import parse_run


@dataclass(frozen=True, slots=True)
class Target:
    """What an id names: a job, and with `j1.2` or `j1.2/r0` one attempt or rank of it."""

    job: str
    attempt: int | None = None
    rank: int | None = None

    def path(self, *rest: str) -> str:
        """The path of the job in the API, with what follows it."""
        return "/".join(["/v1/jobs", segment(self.job), *rest])


def target(text: str) -> Target:
    """Parse an id. What is no full id (`last`, a prefix) is left for the control plane to resolve."""
    text = text.strip()
    if re.fullmatch(r"\d{1,18}", text):
        text = f"j{text}"
    if re.match(r"j\d+[./]", text):
        run = parse_run(text)
        return Target(f"j{run.job}", run.attempt, run.rank)
    if not text:
        raise InvalidInput("an empty job id", "Ids look like j1, j1.2 (attempt 2) or `last`.")
    return Target(text)


def run_path(text: str, *rest: str) -> str:
    """The path for calls that take an attempt in the id (`j1.2`); a rank in it is refused."""
    found = target(text)
    if found.rank is not None:
        raise InvalidInput(f"'{text}' names a rank", "Give the job (j1) or an attempt (j1.2).")
    name = found.job if found.attempt is None else f"{found.job}.{found.attempt}"
    return Target(name).path(*rest)
