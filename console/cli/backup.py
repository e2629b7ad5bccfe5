"""`qd backup` and `qd restore`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console import guest
from console.cli.cluster import needs_cluster
from console.cli.format import size
from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.client import Client, Cut
from console.text import neutralise
from jobs.base.errors import InvalidInput, QuarterdeckError, Unreachable, from_json
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.backupviews import BackupView, RestoreView


def backup(
    dest: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DEST]",
            help="A folder that does not exist yet; by default backups/TIME in the state folder.",
            show_default=False,
        ),
    ] = None,
    secrets: Annotated[
        bool,
        typer.Option("--secrets", help="Include jobs' secrets and the cluster's keys."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy registry, blobs and logs, also while the cluster runs.

    The controller writes the folder. When no controller answers on this machine, the files are copied
    directly. `qd restore` restores a backup.
    """
    guest.refuse("`qd backup`")
    client = Client.from_environment()
    if dest is not None and client.remote is not None and not dest.is_absolute():
        raise InvalidInput(
            f"{dest} would be a folder of {client.remote.address}", "Give its absolute path there."
        )
    # What the path is through links is for whoever writes it; only `..` and the like are resolved here.
    place = None if dest is None else str(dest if client.remote is not None else dest.resolve())
    try:
        made = _by_controller(client, place, secrets)
    except Cut:
        raise
    except Unreachable:
        if client.remote is not None:
            raise
        narrate("no controller answers: the files are copied as they are")
        words = ["--dest", place] if place is not None else []
        made = cast("BackupView", archive("backup", *words, *(["--secrets"] if secrets else [])))
    if as_json:
        emit(made)
        return
    say(f"{neutralise(made['path'])}: {counted(made['files'], 'file')}, {size(made['bytes'])}")
    if not made["secrets"]:
        narrate("jobs' secrets and the cluster's keys are not in it (--secrets)")


def restore(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A folder that `qd backup` made.")
    ],
    verify: Annotated[bool, typer.Option("--verify", help="Only check it.")] = False,
    as_json: Json = False,
) -> None:
    """Replace this machine's state with a backup.

    Refuses while the cluster runs. Every file and the audit log are checked first. The old state is
    moved aside, not deleted.
    """
    found = cast("RestoreView", archive("verify" if verify else "restore", str(source.resolve())))
    if as_json:
        emit(found)
        return
    what = f"{counted(found['files'], 'file')}, {size(found['bytes'])}, of {found['made_at']}"
    if not found["restored"]:
        say(f"The backup is whole: {what}.")
        if found["database"] != "sqlite":
            narrate("the registry in it is a dump of PostgreSQL: its audit log was not checked")
        return
    say(f"Restored: {what}.")
    if found["before"] is not None:
        narrate(f"what was there is in {found['before']}; remove it when you do not need it")
    narrate("`qd up` starts the cluster with it; what happened since is in no registry")


def _by_controller(client: Client, dest: str | None, secrets: bool) -> BackupView:
    with client.stream("/v1/backups", body={"dest": dest, "secrets": secrets}) as lines:
        for line in lines:
            if line["backup"] is not None:
                return cast("BackupView", line["backup"])
            narrate(line["doing"])
    raise QuarterdeckError("the controller ended without a word", "See `qd doctor`.")


def archive(*words: str) -> dict[str, Any]:
    """Run the program that works on the files of this machine's cluster, which has to be stopped for most of
    what it does. Raises the error that it prints."""
    needs_cluster()
    done = subprocess.run(
        [sys.executable, "-m", "agents.archive", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise QuarterdeckError(
            f"{' '.join(words[:1])} failed with exit code {done.returncode}", "Its words are above."
        ) from None
    if "error" in answer:
        raise from_json(answer)
    return answer
