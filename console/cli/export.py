"""`qd export sweep`: a sweep's trials as CSV, JSON or Parquet. And `qd export --all`."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console import guest
from console.cli.backup import archive
from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.cli.sweeps import SweepId, sweep_path
from console.cli.where import act_here
from console.client import Client
from console.text import neutralise
from jobs.base.disk import cannot_write
from jobs.base.errors import InvalidInput
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.backupviews import MovedView
    from jobs.wire.sweepviews import SweepDetail, TrialView

_FORMATS = ("csv", "json", "parquet")
_FIXED = [
    "number",
    "state",
    "job",
    "started_at",
    "ended_at",
    "gpu_hours",
    "reason",
    "origin",
    "parent",
    "member",
    "generation",
    "feasible",
]


def export(
    registry: Annotated[
        Path | None,
        typer.Option(
            "--all",
            metavar="FILE",
            help="Write the whole registry to a new file, for `qd import`.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export sweeps, and services, jobs and models for elsewhere.

    With --all, the registry of this machine's cluster, which has to be stopped: to move it from SQLite to
    PostgreSQL or back.
    """
    if registry is None:
        raise InvalidInput(
            "what is to be exported?",
            "One of: sweep, image, kubernetes, kserve, kuberay (`qd export -h`); or --all FILE.",
        )
    guest.refuse("`qd export --all`")
    act_here("export --all")
    found = cast("MovedView", archive("export", str(registry.absolute())))
    if as_json:
        emit(found)
        return
    say(f"{neutralise(found['path'])}: {_told(found)}")


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that `qd export --all` made.")
    ],
    as_json: Json = False,
) -> None:
    """Load an exported registry into an empty database.

    The database is the one of QD_DATABASE_URL, or an SQLite file in the state folder. The cluster has to
    be stopped. Nothing is changed unless every row arrives and the audit log is intact.
    """
    guest.refuse("`qd import`")
    found = cast("MovedView", archive("import", str(source.absolute())))
    if as_json:
        emit(found)
        return
    say(f"Imported: {_told(found)}.")
    narrate("`qd up` starts the cluster with it")


def _told(found: MovedView) -> str:
    return f"{counted(found['rows'], 'row')} of {counted(found['tables'], 'table')}"


def sweep(
    sweep_id: SweepId,
    format_: Annotated[str, typer.Option("--format", help="csv, json or parquet.")] = "csv",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this file instead of stdout."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the trials of a sweep as CSV, JSON or Parquet.

    Parquet needs the package pyarrow: pip install 'quarterdeck[parquet]'.
    """
    if format_ not in _FORMATS:
        raise InvalidInput(f"--format: found '{format_}'; allowed: {', '.join(_FORMATS)}")
    wanted = "json" if as_json else format_
    if wanted == "parquet" and output is None and sys.stdout.isatty():
        raise InvalidInput("Parquet cannot be printed on a terminal", "Give --output FILE.")
    write_parquet = _parquet_writer() if wanted == "parquet" else None
    client = Client.from_environment()
    detail = cast("SweepDetail", client.get(sweep_path(sweep_id)))
    rows = cast("list[TrialView]", client.get(sweep_path(sweep_id, "trials")))
    if wanted == "json" and output is None:
        emit({"sweep": detail, "trials": rows})
        return
    if write_parquet is not None:
        data = write_parquet(columns(detail, rows))
    elif wanted == "json":
        data = json.dumps({"sweep": detail, "trials": rows}, indent=2).encode() + b"\n"
    else:
        data = as_csv(detail, rows).encode()
    if output is not None:
        guest.refuse("--output")
        try:
            output.write_bytes(data)
        except OSError as error:
            raise cannot_write(output, error) from None
    elif write_parquet is not None:
        sys.stdout.buffer.write(data)
    else:
        print(data.decode(), end="")


def columns(detail: SweepDetail, rows: list[TrialView]) -> dict[str, list[Any]]:
    """A column for all that is fixed, for each objective, parameter and constraint; a value for each
    trial, None where it has none."""
    found: dict[str, list[Any]] = {}
    for name in _FIXED:
        found[name] = [cast("dict[str, Any]", row).get(name) for row in rows]
    for number, objective in enumerate(detail["objectives"]):
        values = [row["values"][number] if row["values"] else None for row in rows]
        found[f"value.{objective['metric']}"] = values
    for name in detail["spec"]["space"]:
        found[f"param.{name}"] = [row["params"].get(name) for row in rows]
    for text in detail["spec"].get("constraints", []):
        exceeded = [(row.get("constraints") or {}).get(text) for row in rows]
        if any(value is not None for value in exceeded):  # else it speaks of parameters
            found[f"exceeds.{text}"] = exceeded
    return found


def as_csv(detail: SweepDetail, rows: list[TrialView]) -> str:
    """The columns with a head, and one line per trial."""
    table = columns(detail, rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue()


def _parquet_writer() -> Any:
    """What makes a Parquet file of columns. Raises InvalidInput when its package is not here."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InvalidInput(
            "--format parquet needs the package pyarrow, which is not installed",
            "Install it (`pip install 'quarterdeck[parquet]'`), or use csv.",
        ) from None

    def write(table: dict[str, list[Any]]) -> bytes:
        arrays = {name: pyarrow.array(_of_one_type(values)) for name, values in table.items()}
        sink = io.BytesIO()
        parquet.write_table(pyarrow.table(arrays), sink)
        return sink.getvalue()

    return write


def _of_one_type(values: list[Any]) -> list[Any]:
    """The same, or as JSON where choices of several types share a column."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [float(v) if isinstance(v, int) else v for v in values] if float in kinds else values
    return values if len(kinds) <= 1 else [None if v is None else json.dumps(v) for v in values]
