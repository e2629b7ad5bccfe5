"""Whether the person at the other end is a guest on this machine: they came through the gateway with a key.

What runs for a guest runs as the gateway's user, so it may neither read nor write files of this machine
beside the session's own folder, start a program, or go on to another host. Every place where the console
or a command would do so asks here. Standard library only: every command imports it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from jobs.base.errors import NotAllowed

FOLDER = "QD_GUEST"
"""Set by the gateway: the session's own folder."""


def folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """The guest's own folder; None when the person is no guest."""
    text = (os.environ if environ is None else environ).get(FOLDER)
    return Path(text) if text else None


def inside(path: Path) -> Path:
    """`path` with its links resolved; for a guest it has to be in their folder. Raises NotAllowed."""
    own = folder()
    if own is None:
        return path
    found = path.resolve()
    if not found.is_relative_to(own.resolve()):
        raise NotAllowed(
            f"{path} is a file of the gateway's machine",
            "Through the gateway, submit a job on standard input: `ssh ... submit - < job.yaml`.",
        )
    return found


def refuse(what: str, hint: str = "Install `qd` where you are.") -> None:
    """Raise NotAllowed for a guest."""
    if folder() is not None:
        raise NotAllowed(f"{what} is not offered through the gateway", hint)
