"""`qd prune`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.format import size, span
from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.client import Client
from jobs.base.errors import InvalidInput
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.views import LeftFoldersView, PruneView

_TIMEOUT = 600.0
"""Seconds of silence allowed: a store of a million files takes a while to look through."""


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be deleted.")
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN", help="Only files unused for this long; 24h by default, 1h at least."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Delete stored files that nothing references.

    Snapshots, outputs and checkpoints of jobs stay. The controller does this every day. By hand, nodes
    also delete the checkpoint folders of jobs that the registry does not know: of a registry that is
    gone, or submitted after the backup that was restored.
    """
    from jobs.base.units import parse_duration

    body: dict[str, Any] = {}
    if older_than is not None:
        try:
            body["older_than"] = parse_duration(older_than)
        except ValueError as error:
            raise InvalidInput(f"--older-than: {error}") from error
    client = Client.from_environment().with_timeout(_TIMEOUT)
    path = "/v1/blobs/prune"
    if dry_run or not yes:
        found = cast("PruneView", client.post(path, {**body, "dry_run": True}))
        if dry_run:
            _show(found, as_json)
            return
        if not (found["blobs"] or found["checkpoints"] or _left(found)):
            _show({**found, "dry_run": False}, as_json)
            return
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(f"{_what(found)} would be deleted", "Confirm with --yes.")
        typer.confirm(f"{_what(found)} will be deleted. Continue?", abort=True, err=True)
    _show(cast("PruneView", client.post(path, body)), as_json)


def _what(found: PruneView) -> str:
    text = f"{counted(found['blobs'], 'blob')} ({size(found['bytes'])})"
    if found["checkpoints"]:
        text += f", with {counted(found['checkpoints'], 'checkpoint')} of populations"
    for left in _left(found):
        folders = counted(left["folders"], "checkpoint folder")
        text += f"; on {left['node']} {folders} of jobs that the registry does not know"
        text += f" ({size(left['bytes'])})"
    return text


def _left(found: PruneView) -> list[LeftFoldersView]:
    return found.get("left", [])  # an older controller does not say


def _show(found: PruneView, as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    say(f"{_what(found)} {'would be deleted' if found['dry_run'] else 'deleted'}")
    narrate(
        f"{counted(found['kept'], 'blob')} stay, {size(found['kept_bytes'])}: they are referred to, or "
        f"somebody counted on them in the last {span(found['older_than'])}"
    )
    if found.get("unanswered"):
        narrate(f"not asked for checkpoint folders: {', '.join(found['unanswered'])}")
