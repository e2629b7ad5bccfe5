"""`qd data`: versions of data sets, and what is in them."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.details import facts
from console.cli.format import local_moment, size
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, paint, say, show
from console.client import Client, segment
from console.text import neutralise
from jobs.base.disk import cannot_write
from jobs.base.errors import InvalidInput
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.dataviews import DataFile, DataVersionDetail, DataVersionView

COLUMNS = [
    Column("DATA SET", flex=True),
    Column("VERSIONS", right=True),
    Column("FILES", right=True),
    Column("SIZE", right=True),
    Column("BY"),
    Column("ADDED"),
    Column("NOTE", flex=True),
]
_BATCH = 64 << 20
"""What is sent at a time: a connection that is cut costs no more than this."""

Name = Annotated[str, typer.Argument(metavar="NAME[@V]", help="A data set, such as digits@3.")]


def data(as_json: Json = False) -> None:
    """List data sets; add, show, compare, check and pull versions."""
    found = cast("list[DataVersionView]", Client.from_environment().get("/v1/data"))
    if as_json:
        emit(found)
    elif found:
        show(COLUMNS, [_row(view) for view in found])
    else:
        narrate("no data sets; `qd data add NAME PATH` makes one")


def add(
    name: Annotated[str, typer.Argument(help="The data set's name.")],
    path: Annotated[Path, typer.Argument(help="A file or a folder.")],
    note: Annotated[str, typer.Option(help="What is new about this version.")] = "",
    no_profile: Annotated[
        bool, typer.Option("--no-profile", help="Do not profile tables.")
    ] = False,
    expectations: Annotated[
        Path | None,
        typer.Option(
            "--expect",
            "-e",
            metavar="FILE",
            help="Add it only if it meets these expectations (YAML).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a version of a data set: its files as they are now.

    Files that have not changed since they were last added are not read again, and contents that the
    store already has are not sent again. The same content is the same version.
    """
    from console.cli.upload import send_blobs
    from console.datasets.scan import HashMemory, scan
    from jobs.base.places import places
    from jobs.data.names import check_name

    check_name(name)
    client = Client.from_environment()
    memory = HashMemory(places(os.environ).cache / "hashes.db")
    try:
        found = scan(path, memory, _meter("reading"))
    finally:
        memory.close()
    if expectations is not None:
        _require(expectations, path)
    profile = None if no_profile else _profile(path)
    manifest = found.manifest
    contents: dict[str, bytes | Path] = {
        **{digest: found.sources[digest] for digest in sorted(manifest.blobs)},
        manifest.digest.removeprefix("sha256:"): manifest.to_bytes(),
    }
    sent = send_blobs(client, contents, pack=_BATCH, told=_meter("sending"))
    body = {
        "name": name,
        "digest": manifest.digest,
        "file": found.file,
        "source": f"{socket.gethostname()}:{path.absolute()}"[:4095],
        "note": note,
        "profile": profile,
    }
    view = cast("DataVersionView", client.act("/v1/data", body))
    if as_json:
        emit(view)
        return
    say(view["id"])
    what = f"{counted(view['files'], 'file')}, {size(view['bytes'])}"
    if view.get("created", True):
        narrate(f"{what}; read {size(found.read)}, sent {size(sent)}")
    else:
        narrate(f"{what}: the content of {view['id']}, which is there already")


def show_version(name: Name, as_json: Json = False) -> None:
    """Show a version: its files, and the columns of its tables."""
    from console.datasets.report import draw

    client = Client.from_environment()
    found = cast("DataVersionDetail", client.get(f"/v1/data/{segment(name)}"))
    if as_json:
        emit(found)
        return
    say(paint(neutralise(found["id"]), "bold"))
    facts(
        [
            ("digest", found["digest"]),
            ("content", f"{counted(found['files'], 'file')}, {size(found['bytes'])}"),
            ("from", neutralise(found["source"])),
            ("added", f"{local_moment(found['created_at'])} by {neutralise(found['user'])}"),
            ("note", neutralise(found["note"])),
            ("made by", neutralise(made_by(found.get("lineage")))),
        ]
    )
    if found["profile"]:
        say()
        for line in draw(found["profile"]):
            say(line)
    versions = cast(
        "list[DataVersionView]", client.get(f"/v1/data/{segment(found['name'])}/versions")
    )
    if len(versions) > 1:
        say()
        show(
            [Column("VERSION"), *COLUMNS[2:]],
            [[neutralise(view["id"]), *_row(view)[2:]] for view in versions],
        )


def diff(
    old: Name,
    new: Name,
    as_json: Json = False,
) -> None:
    """Show how two versions differ: files, and columns of tables.

    The exit code is 1 when they differ, as with diff.
    """
    from console.datasets.changes import file_changes, profile_changes
    from console.datasets.report import drawn_changes

    client = Client.from_environment()
    sides = [_files(client, name) for name in (old, new)]
    details = [
        cast("DataVersionDetail", client.get(f"/v1/data/{segment(name)}")) for name in (old, new)
    ]
    changes = file_changes(*sides)
    columns = profile_changes(details[0]["profile"], details[1]["profile"])
    if as_json:
        emit({"old": details[0]["id"], "new": details[1]["id"], **changes, "columns": columns})
    else:
        for line in drawn_changes(changes, columns):
            say(line)
    if any(changes.values()):
        raise typer.Exit(1)
    if not as_json:
        narrate(f"{details[0]['id']} and {details[1]['id']} have the same content")


def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME[@V]|PATH", help="A version, or files on this machine.")
    ],
    expectations: Annotated[
        Path, typer.Option("--expect", "-e", metavar="FILE", help="A file of expectations (YAML).")
    ],
    as_json: Json = False,
) -> None:
    """Check a data set against expectations; exit code 1 when it fails."""
    import tempfile

    from console.datasets.checks import run_checks
    from console.datasets.report import drawn_checks
    from jobs.data.expectations import load_expectations

    wanted = load_expectations(expectations)
    local = Path(name)
    if local.exists():
        results = run_checks(wanted, local)
    else:
        with tempfile.TemporaryDirectory(prefix="qd-check-") as folder:
            target = _pulled(Client.from_environment(), name, Path(folder) / "data")
            results = run_checks(wanted, target)
    if as_json:
        emit({"passed": all(found["passed"] for found in results), "checks": results})
    else:
        for line in drawn_checks(results):
            say(line)
    if not all(found["passed"] for found in results):
        raise typer.Exit(1)


def expect(name: Name, as_json: Json = False) -> None:
    """Propose expectations from a version's contents, for you to edit."""
    import yaml

    from jobs.data.expectations import propose

    client = Client.from_environment()
    found = cast("DataVersionDetail", client.get(f"/v1/data/{segment(name)}"))
    proposed = propose(found["profile"] or {})
    if as_json:
        emit(proposed)
    else:
        say(yaml.safe_dump(proposed, sort_keys=False, allow_unicode=True).rstrip())


def pull(
    name: Name,
    target: Annotated[
        Path | None, typer.Argument(metavar="DEST", help="Where to put it; ./NAME@V by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a version to this machine, verified.

    Intact files that are already there are not sent again; an interrupted copy is resumed.
    """
    place = _pulled(Client.from_environment(), name, target)
    emit({"path": str(place)}) if as_json else say(str(place))


def _pulled(client: Client, name: str, target: Path | None) -> Path:
    """Bring a version here; where it is: the folder, or its one file."""
    detail = cast("DataVersionDetail", client.get(f"/v1/data/{segment(name)}"))
    folder = target if target is not None else Path(detail["id"])
    meter = _meter("receiving")
    done = 0
    for file in _files(client, detail["id"]):
        path = folder / file["path"]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _bring(client, detail["id"], file, path)
        except OSError as error:
            raise cannot_write(path, error) from error
        done += file["bytes"]
        meter(done, detail["bytes"])
    return folder if detail["file"] is None else folder / detail["file"]


def _bring(client: Client, version: str, file: DataFile, path: Path) -> None:
    """Write one file, beside first; a part that came before a cut is continued."""
    import hashlib

    if file["link"] is not None:
        path.unlink(missing_ok=True)
        path.symlink_to(file["link"])
        return
    if path.is_file() and path.stat().st_size == file["bytes"] and _digest(path) == file["sha256"]:
        return
    beside = path.with_name(f".{path.name[:200]}.part")
    digest = hashlib.sha256()
    with beside.open("a+b") as part:
        part.seek(0)
        while data := part.read(1 << 20):
            digest.update(data)

        def take(data: bytes) -> None:
            part.write(data)
            digest.update(data)

        client.copy(f"/v1/data/{segment(version)}/blobs/{file['sha256']}", take, offset=part.tell())
    if digest.hexdigest() != file["sha256"]:
        beside.unlink()
        raise InvalidInput(f"{file['path']} does not match its digest", "Pull it again.")
    beside.replace(path)


def _digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(client: Client, name: str) -> list[DataFile]:
    return cast("list[DataFile]", client.get(f"/v1/data/{segment(name)}/files"))


def _require(expectations: Path, path: Path) -> None:
    """Ends the command with 1 when files here are not as expected."""
    from console.datasets.checks import run_checks
    from console.datasets.report import drawn_checks
    from jobs.data.expectations import load_expectations

    results = run_checks(load_expectations(expectations), path)
    for line in drawn_checks(results):
        narrate(line)
    if not all(found["passed"] for found in results):
        narrate("nothing was added")
        raise typer.Exit(1)


def _profile(path: Path) -> dict[str, object] | None:
    """What is in the tables of a version; None when there are none, or DuckDB is not installed."""
    from console.datasets.profile import profile
    from console.datasets.tables import available, tables

    found = tables(path)
    if not found:
        return None
    if not available():
        narrate("its tables were not looked into: `pip install 'quarterdeck[data]'` for that")
        return None
    return profile(found)


def made_by(lineage: dict[str, Any] | None) -> str:
    """What a version was made from, in a line; empty for one that a person has added."""
    if lineage is None:
        return ""
    data = ", ".join(f"{name} = {version}" for name, version in lineage["data"].items())
    transform = lineage.get("features")
    with_ = f" with features {transform['version']}" if transform else ""
    return f"{lineage['run']}{with_}" + (f" from {data}" if data else "")


def _row(view: DataVersionView) -> list[str]:
    return [
        neutralise(view["id"]),
        str(view.get("versions", "")),
        str(view["files"]),
        size(view["bytes"]),
        neutralise(view["user"]),
        local_moment(view["created_at"]),
        neutralise(view["note"]),
    ]


def _meter(verb: str) -> Callable[[int, int], None]:
    """A line on a person's terminal that says how far it is; nothing for small or quick work."""
    if not sys.stderr.isatty():
        return lambda done, total: None
    last = -1

    def tell(done: int, total: int) -> None:
        nonlocal last
        share = 100 if total == 0 else done * 100 // total
        if total < _BATCH or share == last:
            return
        last = share
        width = max(10, min(40, shutil.get_terminal_size().columns - 40))
        bar = "█" * (share * width // 100)
        end = "\n" if done >= total else ""
        print(
            f"\r{verb} {bar:<{width}} {share}% of {size(total)}\x1b[K",
            end=end,
            file=sys.stderr,
            flush=True,
        )

    return tell
