"""`qd gate`: hold a version against the conditions of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.models import model_path
from console.cli.options import Json
from console.cli.output import emit, narrate
from console.client import Client
from jobs.base.disk import storage_full

if TYPE_CHECKING:
    from jobs.wire.modelviews import EvidenceView


def gate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A gate file (YAML).", show_default=False)
    ],
    ref: Annotated[
        str,
        typer.Argument(
            metavar="NAME:VER", help="A version: digits:3, or digits.", show_default=False
        ),
    ],
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the result to this file, as JUnit XML."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a version against a gate file; exit code 1 when it fails.

    The result is stored with the version, and is the evidence that approvals name.
    """
    from jobs.models.gates import load_gate

    wanted = load_gate(file)
    view = cast(
        "EvidenceView",
        Client.from_environment().post(model_path(ref, "gate"), wanted.model_dump(mode="json")),
    )
    if junit is not None:
        try:
            junit.write_bytes(as_junit(view))
        except OSError as error:
            raise storage_full(f"{junit} cannot be written", error) from None
    if as_json:
        emit(view)
    else:
        from console.cli.modeldetails import show_evidence

        show_evidence(view)
    if not view["passed"]:
        document = view["document"]
        for one in document["conditions"]:
            if not one["passed"]:
                narrate(f"{document['version']} is stopped: {one['asked']}: {one['why']}")
        raise typer.Exit(1)


def as_junit(view: EvidenceView) -> bytes:
    """The result as forges read it: a test suite with a test for each condition."""
    from xml.etree import ElementTree as Xml

    document = view["document"]
    conditions = document["conditions"]
    failed = [one for one in conditions if not one["passed"]]
    name = _plain(f"gate {document['gate']['name']}: {document['version']}")
    counts = {"tests": str(len(conditions)), "failures": str(len(failed)), "errors": "0"}
    suites = Xml.Element("testsuites", counts)
    suite = Xml.SubElement(
        suites, "testsuite", {"name": name, "timestamp": view["at"], **counts, "skipped": "0"}
    )
    for one in conditions:
        case = Xml.SubElement(
            suite,
            "testcase",
            {"classname": _plain(document["version"]), "name": _plain(one["asked"])},
        )
        if one["passed"]:
            Xml.SubElement(case, "system-out").text = _plain(one["why"])
        else:
            failure = Xml.SubElement(case, "failure", {"message": _plain(one["why"])})
            failure.text = _plain(f"{one['asked']}\n{one['why']}\nevidence {view['evidence']}")
    Xml.indent(suites)
    return cast("bytes", Xml.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def _plain(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "".join(
        c if c in "\t\n" or (c >= " " and not "\ud800" <= c <= "\udfff" and c < "\ufffe") or c > "\uffff"
        else "\ufffd"
        for c in text
    )  # fmt: skip


def read_policy(file: str) -> dict[str, Any]:
    """A policy file as the API takes it: `gate:` may name a gate file, seen from the policy's folder.

    Raises InvalidInput with file, line and field.
    """
    from pydantic import ValidationError

    from jobs.models.approval import ANY_GATE, Policy
    from jobs.models.gates import load_gate
    from jobs.spec import problems, yamlfile
    from jobs.spec.problems import Problem

    path = Path(file)
    document = yamlfile.load(path)
    data = document.data
    if not isinstance(data, dict):
        raise problems.in_document([Problem((), "found no fields")], document)
    gate_file = data.get("gate")
    if isinstance(gate_file, str) and gate_file != ANY_GATE and not gate_file.startswith("sha256:"):
        data = {**data, "gate": load_gate(path.parent / gate_file).digest}
    try:
        return Policy.model_validate(data).to_json()
    except ValidationError as error:
        raise problems.in_document(problems.find(error, Policy), document) from None
