"""`qd schema`: what an editor needs to complete and check the files that people write."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from console.cli.options import Json
from jobs.base.errors import InvalidInput

_KINDS = ("job", "sweep")


def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="Kind of file: job or sweep.")
    ] = "job",
    as_json: Json = False,
) -> None:
    """Print the JSON Schema of job or sweep files, for editors.

    An editor with a YAML language server uses it if the file's first line is
    `# yaml-language-server: $schema=job.schema.json`.
    """
    if kind not in _KINDS:
        raise InvalidInput(f"there are no {kind} files", f"There are: {', '.join(_KINDS)}.")
    from jobs.sweeps.schema import job_schema, sweep_schema

    made = sweep_schema() if kind == "sweep" else job_schema()
    print(json.dumps(made, indent=None if as_json else 2, sort_keys=True))
