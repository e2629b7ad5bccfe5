"""`qd report`: runs, sweeps, pipelines and models as one HTML page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from console.cli.format import size
from console.cli.options import Json
from console.cli.output import emit, narrate
from console.client import Client
from jobs.base.disk import cannot_write
from jobs.base.errors import Conflict, InvalidInput, NotFound


def report(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID|MODEL...",
            help="Runs (j3, j3.2), sweeps (s1), pipelines (p2), models (digits, digits:3).",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write the page.")
    ] = Path("report.html"),
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter", "-f", metavar="EXPR", help="Add runs that match, as in `qd runs`."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many of them.")] = 100,
    title: Annotated[str | None, typer.Option(help="The heading of the page.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a page about runs, sweeps, pipelines or models.

    One HTML file with charts, tables and differences, which opens without a network and prints well.
    """
    from console.report.gather import gather, matching
    from console.report.page import render

    wanted = list(subjects or ())
    if not wanted and filter_ is None:
        raise InvalidInput(
            "nothing to report on", "Name runs, sweeps, pipelines or models, or give --filter."
        )
    if output.exists() and not force:
        raise Conflict(f"{output} exists", "Give --force to overwrite it, or another --output.")
    client = Client.from_environment()
    if filter_ is not None:
        found = matching(client, filter_, limit)
        if not found and not wanted:
            raise NotFound(
                "no runs match the filter", "`qd runs --filter ...` shows what it finds."
            )
        wanted += found
    page = render(gather(client, wanted), title or _title(wanted), time.time())
    written = _write(output, page)
    if as_json:
        emit({"file": str(output), "bytes": written, "subjects": wanted})
    else:
        narrate(f"written to {output}, {size(written)}")


def _write(output: Path, page: str) -> int:
    """Write the page and return its bytes: beside first, so a full disk leaves the old one.

    A device or a pipe (/dev/stdout) is written to as it is: there is nothing to replace.
    """
    whole = output.resolve()
    beside = whole.with_name(f"{whole.name[:200]}.part")
    data = page.encode()
    try:
        if whole.exists() and not whole.is_file():
            whole.write_bytes(data)
            return len(data)
        try:
            beside.write_bytes(data)
            beside.replace(whole)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(output, error) from error
    return len(data)


def _title(subjects: list[str]) -> str:
    few = ", ".join(subjects[:4])
    return f"Report: {few}" + (f" and {len(subjects) - 4} more" if len(subjects) > 4 else "")
