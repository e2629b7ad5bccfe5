"""`qd models` and `qd model`: versions of models, listed, shown and named."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.format import elapsed, local_moment, number, since, size
from console.cli.options import Json, complete_version
from console.cli.output import Column, emit, narrate, paint_state, say, show
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.wire.modelviews import AliasView, AuditView, ModelDetail, ModelView, PolicyView

_MODELS = [
    Column("MODEL", flex=True),
    Column("STATE", states=True),
    Column("ALIASES", flex=True),
    Column("APPROVALS", right=True),
    Column("FORMAT"),
    Column("SIZE", right=True),
    Column("RUN"),
    Column("AGE", right=True),
    Column("METRICS", flex=True),
    Column("REASON", flex=True),
]
_METRICS_SHOWN = 3

Version = Annotated[
    str,
    typer.Argument(
        metavar="NAME:VER",
        help="digits:3, digits:1.4.0, digits@production, or digits (the newest).",
        autocompletion=complete_version,
        show_default=False,
    ),
]
ModelName = Annotated[
    str, typer.Argument(metavar="NAME", help="A model's name.", show_default=False)
]
Reason = Annotated[str, typer.Option("--reason", "-m", metavar="TEXT", help="Why, in a sentence.")]
Label = Annotated[
    str | None, typer.Option(metavar="X.Y.Z", help="Its semantic version, unique within the model.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; repeatable.")
]


def model_path(ref: str, *rest: str) -> str:
    """Where the API has a version, or something of it."""
    return "/".join(["/v1/models", segment(ref), *rest])


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only this model.", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option("-q", metavar="TEXT", help="Only names that contain this.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only versions with this tag; repeatable."),
    ] = None,
    alias: Annotated[
        str | None, typer.Option(metavar="ALIAS", help="Only versions with this alias.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="JOB", help="Only versions made by this job.")
    ] = None,
    archived: Annotated[
        bool, typer.Option("--archived", help="Include archived versions.")
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Which version each alias pointed to then, by the audit log."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", min=1, max=1000, help="How many to show at most.")
    ] = 200,
    as_json: Json = False,
) -> None:
    """List models and their versions, the newest first.

    With --at (10m, 14:05, 2026-11-01T12:00Z) it shows which version NAME's aliases
    pointed to at that time.
    """
    if at is not None:
        _show_aliases(name, alias, at, as_json)
        return
    rows = cast(
        "list[ModelView]",
        Client.from_environment().get(
            "/v1/models",
            name=name,
            q=text,
            tag=tag or None,
            alias=alias,
            run=run,
            archived=archived or None,
            limit=limit,
        ),
    )
    if as_json:
        emit(rows)
    elif rows:
        show(_MODELS, [_row(view, time.time()) for view in rows])
    else:
        narrate("no such versions; `qd model register RUN NAME` makes one of what a run has left")


def _show_aliases(name: str | None, alias: str | None, at: str, as_json: bool) -> None:
    """The aliases of a model as they were: what the audit log says of them up to then."""
    if name is None:
        raise InvalidInput("--at: of which model?", "Give its NAME.")
    until = since(at, time.time(), "--at")
    client = Client.from_environment()
    found: dict[str, AuditView] = {}
    with client.stream("/v1/audit", action="model.alias", target=name, until=until) as rows:
        for row in rows:
            acted = cast("AuditView", row)
            if acted["action"] == "model.alias":
                found[acted["data"]["alias"]] = acted
    held = {
        key: row
        for key, row in sorted(found.items())
        if row["data"]["after"] is not None and alias in (None, key)
    }
    if as_json:
        emit(
            [
                {"alias": key, "version": row["data"]["after"], "digest": row["data"]["digest"],
                 "since": row["at"], "user": row["user"], "audit": row["id"]}
                for key, row in held.items()
            ]
        )  # fmt: skip
    elif held:
        cells = [
            [key, row["data"]["after"], local_moment(row["at"]), row["user"], str(row["id"])]
            for key, row in held.items()
        ]
        titles = ("ALIAS", "VERSION", "SINCE", "BY", "AUDIT ROW")
        show([Column(title) for title in titles], cells)
    else:
        narrate(f"{name} had no such alias at {until}")


def _row(view: ModelView, now: float) -> list[str]:
    metrics = [f"{name} {number(value)}" for name, value in view["metrics"].items()]
    return [
        view["id"] + (f" ({view['label']})" if view["label"] else ""),
        view["state"],
        ", ".join(view["aliases"]) or "-",
        f"{view['approvals']}/{view['approvals_needed']}",
        view["format"] + ("!" if view["pickle"] and view["format"] != "pickle" else ""),
        size(view["size"]),
        view["run"] or "-",
        elapsed(view["created_at"], None, now),
        ", ".join(metrics[:_METRICS_SHOWN]),
        view["reason"],
    ]


def model(as_json: Json = False) -> None:
    """Register, show, approve and fetch versions of models.

    Without a command it lists them.
    """
    models(as_json=as_json)


def tags_of(texts: Sequence[str] | None) -> dict[str, str]:
    """Tags as typed. Raises InvalidInput."""
    tags = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--tag: found '{text}'; allowed: KEY=VALUE")
        tags[key] = value
    return tags


def told(answer: Any, as_json: bool) -> None:
    """Say how a version is after what was done with it."""
    view = cast("ModelView", answer)
    if as_json:
        emit(view)
    else:
        say(f"{neutralise(view['id'])} {paint_state(view['state'])} {neutralise(view['reason'])}")


def show_one(ref: Version, as_json: Json = False) -> None:
    """Show a version: where it comes from, its gate, who approved it."""
    detail = cast("ModelDetail", Client.from_environment().get(model_path(ref)))
    if as_json:
        emit(detail)
        return
    from console.cli.modeldetails import show_version

    show_version(detail)


_FORMS = ("tree", "openlineage", "slsa")


def lineage(
    ref: Version,
    form: Annotated[
        str, typer.Option("--format", help="tree, openlineage or slsa (in-toto).")
    ] = "tree",
    as_json: Json = False,
) -> None:
    """Draw what a version was made from and what became of it.

    --format openlineage prints the run as an OpenLineage event, slsa an in-toto statement with SLSA
    provenance; neither is signed. --json alone prints what is recorded.
    """
    from jobs.models import lineage as forms

    if form not in _FORMS:
        raise InvalidInput(f"--format: found '{form}'; allowed: {', '.join(_FORMS)}")
    client = Client.from_environment()
    detail = cast("ModelDetail", client.get(model_path(ref)))
    if form == "tree" and as_json:
        emit(detail["lineage"])
    elif form == "tree":
        for line in forms.drawn(forms.tree(detail), ascii_only=_ascii_only()):
            say(neutralise(line))
    else:
        cluster = client.get("/v1/status")["cluster_id"]
        make = forms.openlineage if form == "openlineage" else forms.provenance
        emit(make(detail, cluster))


def _ascii_only() -> bool:
    try:
        "├".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return True
    return False


def card(ref: Version, as_json: Json = False) -> None:
    """Write a model card in Markdown from the records."""
    from jobs.models import lineage as forms

    text = forms.card(cast("ModelDetail", Client.from_environment().get(model_path(ref))))
    if as_json:
        emit({"card": text})
    else:
        for line in text.splitlines():
            say(neutralise(line))


def archive(
    ref: Version,
    reason: Reason = "",
    undo: Annotated[bool, typer.Option("--undo", help="Restore it from the archive.")] = False,
    as_json: Json = False,
) -> None:
    """Archive a version; its files remain."""
    body = {"reason": reason, "undo": undo}
    told(Client.from_environment().post(model_path(ref, "archive"), body), as_json)


def alias(
    ref: Version,
    name: Annotated[
        str,
        typer.Argument(metavar="ALIAS", help="An alias, such as production.", show_default=False),
    ],
    remove: Annotated[bool, typer.Option("--remove", help="Remove it.")] = False,
    as_json: Json = False,
) -> None:
    """Point NAME@ALIAS to a version.

    A protected alias (production) takes only a version that is approved; exit code 4 otherwise.
    """
    path = model_path(ref, "unalias" if remove else "alias")
    view = cast("AliasView", Client.from_environment().post(path, {"alias": name}))
    if as_json:
        emit(view)
        return
    was = f" (was {view['before']})" if view["before"] not in (None, view["version"]) else ""
    say(neutralise(f"{view['name']}@{view['alias']} is {view['version'] or 'gone'}{was}"))


def tag(
    ref: Version,
    words: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Tags.", show_default=False)
    ],
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove tags, given by their keys.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set tags of a version."""
    body = dict.fromkeys(words) if remove else tags_of(words)
    answer = Client.from_environment().post(model_path(ref, "tags"), {"tags": body})
    tags = cast("dict[str, str]", answer)
    if as_json:
        emit(tags)
        return
    for key, value in tags.items():
        say(f"{neutralise(key)}={neutralise(value)}")


def policy(
    name: ModelName,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A policy file (YAML) to set.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show or set what versions of a model need; see docs/models.md.

    Only admins may set it.
    """
    client, path = Client.from_environment(), model_path(name, "policy")
    if file is None:
        view = cast("PolicyView", client.get(path))
    else:
        from console.cli.gates import read_policy

        view = cast("PolicyView", client.post(path, read_policy(file)))
    if as_json:
        emit(view)
        return
    from console.cli.modeldetails import show_policy

    show_policy(view["policy"])
