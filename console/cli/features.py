"""`qd features`: versions of transforms, and data sets that are built with them."""

from __future__ import annotations

import ast
import hashlib
import os
import socket
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from console.cli.details import facts
from console.cli.format import local_moment
from console.cli.ids import target
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, paint, say, show
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.features.declaration import Declaration
    from jobs.wire.featureviews import FeatureVersionDetail, FeatureVersionView
    from jobs.wire.views import JobDetail, SubmitView

COLUMNS = [
    Column("FEATURES", flex=True),
    Column("VERSIONS", right=True),
    Column("INPUTS", right=True),
    Column("OUTPUTS", right=True),
    Column("BY"),
    Column("ADDED"),
    Column("NOTE", flex=True),
]
_FILE = "features.yaml"

Name = Annotated[
    str, typer.Argument(metavar="NAME[@V]", help="Features, such as rides@3.", show_default=False)
]


def features(as_json: Json = False) -> None:
    """List features; add and show versions, build data with them."""
    found = cast("list[FeatureVersionView]", Client.from_environment().get("/v1/features"))
    if as_json:
        emit(found)
    elif found:
        show(COLUMNS, [_row(view) for view in found])
    else:
        narrate("no features; `qd features add NAME FILE` makes some")


def add(
    name: Annotated[str, typer.Argument(help="Their name.")],
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="The declaration (YAML), or a folder with features.yaml."
        ),
    ],
    note: Annotated[str, typer.Option(help="What is new about this version.")] = "",
    as_json: Json = False,
) -> None:
    """Add a version of features: a declaration and its Python file.

    The same content is the same version. The code is not run here.
    """
    from console.cli.upload import send_blobs
    from jobs.features.declaration import load_declaration
    from jobs.features.names import check_name
    from jobs.snapshots.manifest import FileEntry, Manifest

    check_name(name)
    file = path / _FILE if path.is_dir() else path
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        raise InvalidInput(
            f"there is no declaration {file}", "It is YAML, beside the code: docs/features.md."
        )
    declaration = load_declaration(file)
    contents = _contents(declaration, file)
    sources: dict[str, bytes | Path] = {}
    entries = []
    for place, data in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        sources[digest] = data
        entries.append(FileEntry(place, 0o644, len(data), digest))
    manifest = Manifest.of(entries)
    sources[manifest.digest.removeprefix("sha256:")] = manifest.to_bytes()
    client = Client.from_environment()
    send_blobs(client, sources)
    body = {
        "name": name,
        "digest": manifest.digest,
        "source": f"{socket.gethostname()}:{file.absolute()}"[:4095],
        "note": note,
    }
    view = cast("FeatureVersionView", client.act("/v1/features", body))
    if as_json:
        emit(view)
        return
    say(view["id"])
    if not view.get("created", True):
        narrate(f"this is the content of {view['id']}, which is there already")


def _contents(declaration: Declaration, file: Path) -> dict[str, bytes]:
    """The files of a version, by path. Raises InvalidInput for code that cannot be what is declared."""
    from jobs.features.declaration import DECLARATION

    found = {DECLARATION: declaration.to_bytes()}
    for name in (declaration.code, *declaration.files):
        try:
            found[name] = (file.parent / name).read_bytes()
        except OSError as error:
            raise InvalidInput(f"{file.parent / name}: {os.strerror(error.errno or 0)}") from None
    _check_code(file.parent / declaration.code, found[declaration.code], declaration.function)
    return found


def _check_code(path: Path, code: bytes, function: str) -> None:
    try:
        tree = ast.parse(code, path.name)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else str(path)
        raise InvalidInput(f"{where}: {getattr(error, 'msg', error)}") from None
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.id]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name for alias in node.names]
        if function in names or "*" in names:
            return
    raise InvalidInput(
        f"{path} has no function {function}", "`function:` of the declaration names another."
    )


def show_version(
    name: Name,
    code: Annotated[bool, typer.Option("--code", help="Print its Python file.")] = False,
    as_json: Json = False,
) -> None:
    """Show a version: what it takes, what it gives, and what it joins."""
    client = Client.from_environment()
    found = cast("FeatureVersionDetail", client.get(f"/v1/features/{segment(name)}"))
    declared = found["declaration"]
    if code:
        files = cast("dict[str, str]", client.get(f"/v1/features/{segment(found['id'])}/code"))
        if as_json:
            emit(files)
            return
        for line in files[declared["code"]].splitlines():
            say(neutralise(line.expandtabs()) if sys.stdout.isatty() else line)
        return
    if as_json:
        emit(found)
        return
    say(paint(neutralise(found["id"]), "bold"))
    facts(
        [
            ("digest", found["digest"]),
            ("code", neutralise(f"{declared['code']}, {declared['function']}()")),
            ("files", neutralise(", ".join(declared["files"]))),
            ("requires", neutralise(", ".join(declared["requires"]))),
            ("keeps", neutralise(", ".join(declared["keep"]))),
            ("served", "yes" if declared["rowwise"] else "no: it looks at other rows"),
            ("from", neutralise(found["source"])),
            ("added", f"{local_moment(found['created_at'])} by {neutralise(found['user'])}"),
            ("note", neutralise(found["note"])),
        ]
    )
    say()
    show(
        [Column("", states=False), Column("COLUMN", flex=True), Column("TYPE"), Column("")],
        [
            *(
                ["input", neutralise(n), _type(one), _about(one)]
                for n, one in declared["inputs"].items()
            ),
            *(
                ["output", neutralise(n), _type(one), _about(one)]
                for n, one in declared["outputs"].items()
            ),
        ],
    )
    for join in declared["joins"]:
        say()
        say(neutralise(_join(join)))
    versions = cast(
        "list[FeatureVersionView]", client.get(f"/v1/features/{segment(found['name'])}/versions")
    )
    if len(versions) > 1:
        say()
        show(
            [Column("VERSION"), *COLUMNS[2:]],
            [[neutralise(view["id"]), *_row(view)[2:]] for view in versions],
        )


def _type(one: dict[str, Any]) -> str:
    width = f" × {one['width']}" if one.get("width") else ""
    return f"{one['type']}{width}"


def _about(one: dict[str, Any]) -> str:
    zone = [f"in {one['zone']}"] if one.get("zone") else []
    return ", ".join([*zone, *(["may be missing"] if one["missing"] else [])])


def _join(join: dict[str, Any]) -> str:
    from jobs.base.units import format_duration

    by = f" of the same {', '.join(join['by'])}" if join["by"] else ""
    within = f", at most {format_duration(join['tolerance'])} old" if join["tolerance"] else ""
    return (
        f"joins {join['table']}: {', '.join(join['columns'])} of its newest row{by} "
        f"with {join['at'] or join['on']} not after {join['on']}{within}"
    )


def build(
    name: Name,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="[TABLE=]NAME[@V]",
            help="The rows; with TABLE=, the data of a table that is joined. Repeatable.",
            show_default=False,
        ),
    ],
    into: Annotated[
        str,
        typer.Option(metavar="NAME", help="The data set that gets the result.", show_default=False),
    ],
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="Interpreter that has numpy.")
    ] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs of the job.")] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Its memory: joined tables are held in it.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the job's id and return.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build a version of a data set, the features of another's rows.

    \b
      qd features build rides@2 --data rides@5 --data surge=surge@3 --into rides-features

    It is a job like any other. Ctrl-C leaves it running.
    """
    from jobs.base.units import parse_size

    rows = [text for text in data if "=" not in text]
    if len(rows) != 1:
        raise InvalidInput(
            f"--data: found {len(rows)} data sets of rows; allowed: one",
            "A table that is joined is TABLE=NAME@V.",
        )
    tables = dict(text.split("=", 1) for text in data if "=" in text)
    body: dict[str, Any] = {
        "data": rows[0],
        "into": into,
        "tables": tables,
        "key": str(uuid.uuid4()),
    }
    given = {
        "python": python,
        "cpus": cpus,
        "memory": None if memory is None else parse_size(memory),
    }
    body |= {field: value for field, value in given.items() if value is not None}
    client = Client.from_environment()
    made = cast("SubmitView", client.act(f"/v1/features/{segment(name)}/builds", body))
    if no_wait:
        emit(made) if as_json else say(made["id"])
        return
    _follow(client, made["id"], as_json=as_json)


def _follow(client: Client, job: str, *, as_json: bool) -> NoReturn:
    """Wait for a build, say what came of it, and end with its exit code."""
    from console.cli.patience import Patience
    from console.cli.wait import exit_code, until_ended

    if not as_json:
        narrate(f"{job} builds")
    try:
        view = until_ended(client, target(job), Patience(client))
    except KeyboardInterrupt:
        narrate(f"{job} goes on; `qd wait {job}`, `qd cancel {job}`")
        raise
    assert view is not None  # there was no deadline
    detail = cast("JobDetail", client.get(target(job).path()))
    made = [artifact["data"] for artifact in detail["artifacts"] if "data" in artifact]
    if as_json:
        emit({"id": job, "state": view["state"], "data": made[0] if made else None})
    elif made:
        say(made[0])
        count = detail["metrics"].get("feature_rows")
        if count is not None and count["value"] is not None:
            narrate(f"{count['value']:.0f} rows")
    else:
        reason = f": {view['reason']}" if view["reason"] else ""
        narrate(f"{job} {view['state']}{neutralise(reason)}")
        failure = detail["attempts"][-1]["first_failure"] if detail["attempts"] else None
        for line in failure["tail"] if failure else ():
            narrate(neutralise(line))
    raise typer.Exit(exit_code(client, view))


def _row(view: FeatureVersionView) -> list[str]:
    return [
        neutralise(view["id"]),
        str(view.get("versions", "")),
        str(view["inputs"]),
        str(view["outputs"]),
        neutralise(view["user"]),
        local_moment(view["created_at"]),
        neutralise(view["note"]),
    ]
