"""Files of versions: registering, importing, fetching, checking, comparing."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.format import number, size
from console.cli.models import Label, ModelName, Tags, Version, model_path, tags_of
from console.cli.options import JobId, Json
from console.cli.output import Column, emit, narrate, paint, say, show
from console.client import Client, segment
from console.text import neutralise
from jobs.base.disk import storage_full
from jobs.base.errors import Conflict, InvalidInput
from jobs.base.paths import SafePath
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.snapshots.manifest import FileEntry
    from jobs.wire.modelviews import DiffView, ModelDetail, PublishView, VerifyView

_TIMEOUT = 600.0
"""Seconds of silence allowed: the control plane reads every byte before it answers."""
_CHUNK = 1 << 20
_LEFT_OUT = frozenset({".git", ".cache", "__pycache__", ".ipynb_checkpoints"})
"""Folders that are no part of a model: what git, hubs and Python leave in one."""

Transform = Annotated[
    str | None,
    typer.Option(
        "--features",
        metavar="NAME[@V]",
        help="Features that become part of it, so that it takes raw rows; by default the run's.",
    ),
]


def register(
    run: JobId,
    name: ModelName,
    output: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this output of the job; repeatable."),
    ] = None,
    features: Transform = None,
    label: Label = None,
    tag: Tags = None,
    as_json: Json = False,
) -> None:
    """Make a version of a run's outputs; prints its id.

    The files are already in the cluster's store. The same files are the same version.
    """
    body = {
        "name": name, "run": run, "outputs": output or [], "label": label, "tags": tags_of(tag),
    }  # fmt: skip
    client = Client.from_environment().with_timeout(_TIMEOUT)
    _published(client.act("/v1/models", body | _carried(features)), as_json)


def take_in(
    source: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="The files to import.", show_default=False)
    ],
    name: ModelName,
    features: Transform = None,
    label: Label = None,
    tag: Tags = None,
    as_json: Json = False,
) -> None:
    """Make a version of files on this machine; prints its id.

    Symbolic links are followed. Files that the store already has are not sent.
    """
    from console.cli.upload import send_blobs
    from jobs.snapshots.manifest import Manifest

    client, root = Client.from_environment(), source
    sources: dict[str, bytes | Path] = {}
    entries = [_entry(path, name_, sources) for name_, path in _files(root)]
    manifest = Manifest.of(entries)
    sources[manifest.digest.removeprefix("sha256:")] = manifest.to_bytes()
    send_blobs(client, sources)
    origin = f"{os.uname().nodename}:{root.resolve()}"[:1000]
    body = {
        "name": name, "manifest": manifest.digest, "origin": origin, "label": label,
        "tags": tags_of(tag),
    }  # fmt: skip
    client = client.with_timeout(_TIMEOUT)
    _published(client.act("/v1/models", body | _carried(features)), as_json)


def _carried(features: str | None) -> dict[str, str]:
    """Said only where there is something to say: an older controller knows no features."""
    return {} if features is None else {"features": features}


def _files(root: Path) -> list[tuple[str, Path]]:
    """Path in the version and file of all that is to be sent. Links are read through: a hub's folder
    consists of them. Raises InvalidInput."""
    if root.is_file():
        return [(root.name, root)]
    if not root.is_dir():
        raise InvalidInput(f"{root}: no such file or folder")
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        found += [(str((Path(folder) / n).relative_to(root)), Path(folder) / n) for n in names]
    for name, path in found:
        if not path.is_file():
            raise InvalidInput(f"{name} is not a file", "A version consists of files and folders.")
    if not found:
        raise InvalidInput(f"{root} has no files in it")
    return sorted(found)


def _entry(path: Path, name: str, sources: dict[str, bytes | Path]) -> FileEntry:
    from jobs.snapshots.manifest import FileEntry

    sha256, length = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha256.update(chunk)
                length += len(chunk)
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}") from None
    sources[sha256.hexdigest()] = path
    return FileEntry(name, 0o644, length, sha256.hexdigest())


def _published(answer: Any, as_json: bool) -> None:
    view = cast("PublishView", answer)
    if as_json:
        emit(view)
    else:
        say(neutralise(view["id"]))
        if not view["created"]:
            narrate(f"{view['id']} has these very files already")
    for warning in view["warnings"]:
        narrate(f"warning: {warning}")


def pull(
    ref: Version,
    dest: Annotated[
        Path | None,
        typer.Argument(metavar="DEST", help="A folder; NAME-VER by default.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch all files of a version, each checked against its digest.

    Intact files that are already there are not fetched again. Prints the folder.
    """
    detail, target, fetched = fetch_all(ref, dest)
    if as_json:
        emit(
            {
                "id": detail["id"],
                "path": str(target),
                "files": len(detail["contents"]),
                "fetched": fetched,
            }
        )
        return
    say(str(target))
    narrate(
        f"{detail['id']}: {counted(detail['files'], 'file')}, {size(detail['size'])}, all as registered"
    )


def fetch_all(ref: str, dest: Path | None) -> tuple[ModelDetail, Path, int]:
    """Have all files of a version in a folder (by default NAME-VER), each checked against its digest.

    Returns:
        The version, the folder, and how many files were not there yet.
    """
    client = Client.from_environment()
    detail = cast("ModelDetail", client.get(model_path(ref)))
    target = dest or Path(f"{detail['name']}-{detail['version']}")
    fetched = 0
    for file in detail["contents"]:
        try:
            path = target.joinpath(*SafePath.parse(file["path"]).parts)
        except ValueError as error:
            raise Conflict(f"{detail['id']} has a file with an unsafe path: {error}") from None
        if path.is_file() and _digest_of(path) == file["sha256"]:
            continue
        _fetch(client, detail["id"], file["path"], file["sha256"], path)
        fetched += 1
    return detail, target, fetched


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(client: Client, ref: str, name: str, digest: str, path: Path) -> None:
    sha256 = hashlib.sha256()
    draft: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".qd-", dir=path.parent)
        draft = Path(temporary)
        with os.fdopen(handle, "wb") as file:

            def take(data: bytes) -> None:
                sha256.update(data)
                file.write(data)

            client.copy(model_path(ref, "files", *map(segment, name.split("/"))), take)
        if sha256.hexdigest() != digest:
            raise Conflict(
                f"{name} does not have the content that was registered",
                f"`qd model verify {ref}` checks all files.",
            )
        draft.chmod(0o644)
        draft.replace(path)
        draft = None
    except OSError as error:
        raise storage_full(f"{path} cannot be written", error) from None
    finally:
        if draft is not None:
            with suppress(OSError):
                draft.unlink()


def verify(ref: Version, as_json: Json = False) -> None:
    """Read all files of a version again; exit code 1 when one was changed."""
    client = Client.from_environment().with_timeout(_TIMEOUT)
    view = cast("VerifyView", client.post(model_path(ref, "verify")))
    if as_json:
        emit(view)
    elif view["ok"]:
        say(
            f"{neutralise(view['id'])} {paint('ok', 'green')}  {counted(view['files'], 'file')}, "
            f"{size(view['bytes'])}, {view['digest'][:19]}"
        )
    else:
        for problem in view["problems"]:
            say(
                f"{paint('FAILED', 'red')} {neutralise(problem['path'])} {neutralise(problem['problem'])}"
            )
    if not view["ok"]:
        raise typer.Exit(1)


def diff(left: Version, right: Version, as_json: Json = False) -> None:
    """Show what differs between two versions: metrics, origin, files."""
    client = Client.from_environment()
    view = cast("DiffView", client.get(model_path(left, "diff", segment(right))))
    if as_json:
        emit(view)
        return
    _table(view, "METRIC", view["metrics"], "metric")
    _table(view, "WHERE IT COMES FROM", view["facts"], "what")
    _table(view, "FILE", view["files"], "path")
    if not view["facts"] and not view["files"]:
        narrate("nothing else differs")


def _table(view: DiffView, title: str, rows: list[dict[str, Any]], key: str) -> None:
    if not rows:
        return
    columns = [
        Column(title, flex=True),
        Column(view["left"], flex=True),
        Column(view["right"], flex=True),
    ]
    show(columns, [[row[key], _cell(row["left"]), _cell(row["right"])] for row in rows])
    say()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else str(value)
