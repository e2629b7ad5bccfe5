"""`qd story`: what happened to a model, in a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console.cli.format import local_moment
from console.cli.options import Json
from console.cli.output import emit, narrate, paint, say
from console.client import Client, segment
from console.text import neutralise
from jobs.base.disk import cannot_write

if TYPE_CHECKING:
    from jobs.wire.storyviews import Happening, StoryView

_COLOURS = {"good": "green", "bad": "red", "": ""}


def story(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name: digits.", show_default=False)
    ],
    limit: Annotated[
        int, typer.Option(min=1, max=2000, help="How many entries, the newest ones.")
    ] = 200,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it to this file, as Markdown."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what happened to a model, when, why, and who did it.

    Data, runs, gates, approvals, rollouts, pipelines and alerts in chronological order, with the
    evidence: digests, and the row of the audit log.
    """
    client = Client.from_environment()
    view = cast("StoryView", client.get(f"/v1/stories/{segment(model)}", limit=limit))
    if output is not None:
        try:
            output.write_text("\n".join(markdown(view)) + "\n")
        except OSError as error:
            raise cannot_write(output, error) from error
        narrate(f"written to {output}")
    if as_json:
        emit(view)
    elif output is None:
        for line in _drawn(view):
            say(line)


def _head(view: StoryView) -> str:
    count = view["versions"]
    parts = [f"{count} version{'s' if count != 1 else ''}"]
    parts += [f"{alias} is {ref}" for alias, ref in view["aliases"].items()]
    parts += [
        f"{one['service']}@{one['target']} serves version {one['version']}"
        for one in view["serving"]
        if one["version"] is not None
    ]
    return "; ".join(parts)


def _who(one: Happening) -> str:
    step = f"{one['pipeline']} {one['step']}" if one["step"] else ""
    if one["who"] and step:
        return f"{one['who']}, by {step}"
    return one["who"] or step


def _evidence(one: Happening) -> str:
    """Digests, shortened, and the row of the audit log."""
    return ", ".join(
        f"{name} {value[:19] if value.startswith('sha256:') else value}"
        for name, value in one["evidence"].items()
    )


def _drawn(view: StoryView) -> Iterator[str]:
    yield f"{paint(neutralise(view['model']), 'bold')}  {neutralise(_head(view))}"
    if view["left_out"]:
        yield paint(f"{view['left_out']} older happenings are left out (--limit)", "dim")
    day = ""
    for one in view["happenings"]:
        date, _, clock = local_moment(one["at"]).partition(" ")
        if date != day:
            day = date
            yield ""
            yield paint(date, "bold")
        colour = _COLOURS[one["tone"]]
        text = neutralise(one["text"])
        who = neutralise(_who(one))
        yield f"{clock}  {paint(text, colour) if colour else text}" + (f"  {who}" if who else "")
        if one["why"]:
            yield f"          {neutralise(one['why'])}"
        if shown := _evidence(one):
            yield paint(f"          {neutralise(shown)}", "dim")


def markdown(view: StoryView) -> Iterator[str]:
    """The story as a page for people who have no terminal at hand."""
    yield f"# The story of {_plain(view['model'])}"
    yield ""
    yield _plain(_head(view)) + "."
    if view["left_out"]:
        yield ""
        yield f"{view['left_out']} older happenings are left out."
    yield ""
    yield "| when | what | why | who | evidence |"
    yield "|---|---|---|---|---|"
    for one in view["happenings"]:
        mark = {"good": "✓ ", "bad": "✗ ", "": ""}[one["tone"]]
        cells = [
            one["at"],
            mark + one["text"],
            one["why"],
            _who(one),
            ", ".join(f"{name} {value}" for name, value in one["evidence"].items()),
        ]
        yield "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text that stays text in a table of Markdown."""
    clean = neutralise(text).replace("\n", " ")
    return "".join(f"\\{char}" if char in r"\`*_[]<>|" else char for char in clean)
