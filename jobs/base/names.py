"""Ids as people type them: jobs `j1`, runs (attempts) `j1.2`, ranks `j1.2/r0`."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from jobs.base.errors import InvalidInput

_RUN = re.compile(
    r"j(?P<job>[1-9][0-9]{0,17})(?:\.(?P<attempt>[1-9][0-9]{0,8})(?:/r(?P<rank>\d{1,6}))?)?"
)
CHECKPOINT = "checkpoint"
"""The artifact that a job's checkpoint folder is kept as."""
SERVICE_PORT = 2
"""Where a service listens, counted from its attempt's first port: past those by which ranks meet."""
OUTPUT_EVENT = "job.output"
"""The kind of events that warn about outputs."""


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


_KEY = re.compile(
    r"(?P<name>(?P<cluster>[A-Za-z0-9][A-Za-z0-9_-]{0,99}?)-j(?P<job>[0-9]{1,18})"
    r"(?:-(?P<token>[0-9a-f]{8}))?)\.(?P<attempt>[0-9]{1,9})(?:-(?P<identity>[0-9a-f]{8}))?"
)


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """The name of an attempt on a node's disk.

    Numbers alone do not say which attempt it is: a registry that was restored from a backup gives them
    again. `token` is drawn when a job is submitted and `identity` when an attempt is placed, and no
    restore repeats them. Both are empty for what an older version began.
    """

    cluster: str
    job: int
    attempt: int
    token: str = ""
    identity: str = ""

    def __str__(self) -> str:
        identity = f"-{self.identity}" if self.identity else ""
        return f"{self.name}.{self.attempt}{identity}"

    @property
    def name(self) -> str:
        """The job's name on a node's disk."""
        token = f"-{self.token}" if self.token else ""
        return f"{self.cluster}-j{self.job}{token}"

    @property
    def run(self) -> str:
        """As people write it: "j7.2"."""
        return f"j{self.job}.{self.attempt}"


def parse_key(text: str) -> AttemptKey:
    """Parse an attempt's key. Raises InvalidInput for anything else: keys become names of folders."""
    match = _KEY.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{text!r} is not an attempt's key")
    return AttemptKey(
        match["cluster"],
        int(match["job"]),
        int(match["attempt"]),
        match["token"] or "",
        match["identity"] or "",
    )


def new_identity() -> str:
    """Eight hexadecimal digits that nobody has drawn before."""
    return secrets.token_hex(4)
