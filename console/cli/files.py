"""`qd files`, `qd pull`, `qd cat`: what a job wrote, wherever it lies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.copy import SafeText
from console.cli.format import local_moment, size
from console.cli.ids import run_path
from console.cli.options import JobId, Json
from console.cli.output import Column, emit, narrate, show
from console.cli.pulling import Puller, chunks_of
from console.client import Client
from jobs.base.errors import InvalidInput, NotFound
from jobs.base.words import counted
from jobs.snapshots.patterns import Pattern

if TYPE_CHECKING:
    from jobs.wire.views import FilesView, FileView

What = Annotated[
    str | None,
    typer.Argument(
        metavar="[PATH|NAME]",
        help="A file, a folder or a pattern (out/**), an output's name, or checkpoint.",
        show_default=False,
    ),
]
Node = Annotated[str | None, typer.Option(metavar="NAME", help="Only files on this node.")]
All = Annotated[bool, typer.Option("--all", "-a", help="Include the files that the job came with.")]


def files(
    job: JobId, what: What = None, all_: All = False, node: Node = None, as_json: Json = False
) -> None:
    """List what a job wrote.

    Its outputs, checkpoints and work folder, of the newest attempt or of the one named (j12.1). Files
    that are not outputs stay on their node for 7 days by default after the job has ended.
    """
    view = _listing(Client.from_environment(), job, all_)
    view["files"] = _chosen(view["files"], what, node)
    if as_json:
        emit(view)
        return
    columns = [
        Column("PATH", flex=True),
        Column("SIZE", right=True),
        Column("WHAT"),
        Column("WHERE"),
        Column("WRITTEN"),
    ]
    if view["files"]:
        show(columns, [_row(file) for file in view["files"]])
    else:
        narrate(f"{view['id']} wrote no such files" if what else f"{view['id']} wrote no files")
    _notes(view)


def _row(file: FileView) -> list[str]:
    link = file.get("link")
    return [
        file["path"] + (f" -> {link}" if link is not None else ""),
        "-" if link is not None else size(file["size"]),
        file["name"] or file["place"],
        file["node"] or "stored",
        local_moment(file["at"]),
    ]


def _notes(view: FilesView) -> None:
    for text in view["missing"]:
        narrate(text)
    if view["until"] is not None:
        narrate(f"what is on a node stays there until {local_moment(view['until'])} at most")


def _listing(client: Client, job: str, everything: bool) -> FilesView:
    # A node is asked for each of its folders, and may have fifty thousand files in one.
    slow = client.with_timeout(90.0)
    return cast("FilesView", slow.get(run_path(job, "files"), everything=everything or None))


def _chosen(found: list[FileView], what: str | None, node: str | None) -> list[FileView]:
    """The files that a person means: by the name of an output, or else by their paths. Of several nodes
    that have a file of one path, the first of the gang."""
    if node is not None:
        found = [file for file in found if file["node"] == node]
    if what is None:
        return found
    named = [file for file in found if what in (file["name"], file["place"])]
    if named and what not in {file["path"] for file in found}:
        return named
    try:
        pattern = Pattern.parse(what)
    except ValueError as error:
        raise InvalidInput(f"'{what}': {error}") from None
    return [file for file in found if pattern.matches(file["path"])]


def _once(found: list[FileView]) -> list[FileView]:
    """Without those of other nodes that have the path of one before them."""
    first: dict[tuple[bool, str], FileView] = {}
    for file in found:
        first.setdefault((file["place"] == "checkpoint", file["path"]), file)
    others = len(found) - len(first)
    if others:
        narrate(f"{counted(others, 'file')} of the same path on other nodes: see --node")
    return list(first.values())


def pull(
    job: JobId,
    what: What = None,
    dest: Annotated[
        str | None,
        typer.Argument(
            metavar="[DEST]", help="A folder; by default, the job's id.", show_default=False
        ),
    ] = None,
    all_: All = False,
    node: Node = None,
    as_json: Json = False,
) -> None:
    """Copy what a job wrote to this machine.

    Everything except checkpoints, or what PATH or NAME selects. Files keep their paths below DEST, and
    each is compared with the original by its digest. Files that are already here are not copied
    again, and an interrupted copy is resumed.
    """
    client = Client.from_environment()
    view = _listing(client, job, all_)
    found = _chosen(view["files"], what, node)
    if what is None:
        kept = [file for file in found if file["place"] != "checkpoint"]
        rest = len(found) - len(kept)
        if rest:
            narrate(f"{counted(rest, 'checkpoint file')} left: `qd pull {job} checkpoint`")
        found = kept
    found = _once(found)
    if not found:
        for text in view["missing"]:
            narrate(text)
        raise NotFound(
            f"{view['id']} wrote no '{what}'" if what else f"{view['id']} wrote no files",
            f"`qd files {job}` lists what there is.",
        )
    target = Path(dest if dest is not None else view["id"].partition(".")[0])
    puller = Puller(client, run_path(job), target, quiet=as_json)
    done = puller.pull(found)
    for text in view["missing"]:
        narrate(text)
    if as_json:
        emit({"id": view["id"], "dest": str(target), "files": done})
    else:
        total = sum(file["size"] for file in found)
        narrate(f"{counted(len(done), 'file')}, {size(total)} in {target}/")


def cat(
    job: JobId,
    what: Annotated[
        str, typer.Argument(metavar="PATH|NAME", help="The file to print.", show_default=False)
    ],
    node: Node = None,
    as_json: Json = False,
) -> None:
    """Print one file that a job wrote.

    Unchanged into a pipe or a file; on a terminal, control characters are made visible.
    """
    client = Client.from_environment()
    view = _listing(client, job, True)
    found = [file for file in _once(_chosen(view["files"], what, node)) if "link" not in file]
    if not found:
        raise NotFound(f"{view['id']} has no file '{what}'", f"`qd files {job}` lists them.")
    if len(found) > 1:
        raise InvalidInput(
            f"'{what}' means {len(found)} files", f"The first is {found[0]['path']}; name one."
        )
    file = found[0]
    if as_json:
        emit(file)
        return
    text = SafeText(_write) if sys.stdout.isatty() else None
    for chunk in chunks_of(client, run_path(job), file, 0):
        if text is not None:
            text.feed(chunk)
        else:
            _write(chunk)
    if text is not None:
        text.end()


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
