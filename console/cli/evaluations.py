"""`qd evaluate`, `qd evaluations`, `qd evaluation`: what a version is worth on data it has not seen."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.models import model_path
from console.cli.options import Json
from console.cli.output import emit, narrate, say, show
from console.client import Client, segment

if TYPE_CHECKING:
    from jobs.wire.evaluationviews import EvaluationDetail, EvaluationView

_EVERY = 0.5
"""Seconds between two looks."""
_All = Annotated[bool, typer.Option("--all", help="Show every slice and feature.")]


def evaluate(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="NAME:VER", help="A version: digits:3, or digits.", show_default=False
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATASET@N", help="The hold-out version of a data set.", show_default=False
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="The column of the truth; by default target, label, y or class."
        ),
    ] = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Measure fairness between its groups; repeatable. Slices too."
        ),
    ] = None,
    slices: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Columns to slice by, with commas.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Columns of the model's input, with commas."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="classification or regression.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's output that is the prediction."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Classes in the order of the model's scores."),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class that counts as a yes.")
    ] = None,
    explain: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=100, help="Explain the model (SHAP), and N rows one by one."
        ),
    ] = None,
    allow_nan: Annotated[
        bool, typer.Option("--allow-nan", help="Pass NaN and infinities to the model.")
    ] = False,
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="An interpreter on the nodes that has what is needed."),
    ] = None,
    isolated: Annotated[
        bool,
        typer.Option(
            "--isolated", help="In an environment of its own, built on the node and cached."
        ),
    ] = False,
    cpus: Annotated[float | None, typer.Option(metavar="N", help="CPU cores of the job.")] = None,
    gpus: Annotated[float | None, typer.Option(metavar="N", help="GPUs of the job.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The same key evaluates only once.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the id and do not wait for the result.")
    ] = False,
    every: _All = False,
    as_json: Json = False,
) -> None:
    """Measure a version on a hold-out version of a data set.

    \b
      qd evaluate digits:3 --data digits-test@1
      qd evaluate credit:2 --data holdout --target paid --group-by sex --explain 3

    A job predicts all rows and measures: metrics with 95 % bootstrap intervals, slices,
    fairness, latency, noise. The result is stored with the version, and gates can use it.
    The exit code is 1 when it could not be measured.
    """
    asked: dict[str, Any] = {
        "data": data,
        "target": target,
        "task": task,
        "output": output,
        "positive": positive,
        "explain": explain,
        "python": python,
        "cpus": cpus,
        "gpus": gpus,
        "groups": group_by or None,
        "slices": _names(slices),
        "features": _names(features),
        "classes": _names(classes),
        "allow_nan": allow_nan or None,
        "isolated": isolated or None,
    }
    body = {
        "asked": {name: value for name, value in asked.items() if value is not None},
        "key": key or str(uuid.uuid4()),
    }
    client = Client.from_environment()
    made = cast("EvaluationView", client.act(model_path(ref, "evaluate"), body))
    if no_wait:
        emit(made) if as_json else say(made["id"])
        return
    if not as_json:
        narrate(f"{made['id']}: {made['job']} measures {made['model']} on {made['data']}")
    _told(_over(client, made["id"]), every, as_json)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name for name in text.split(",") if name]


def evaluations(
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME[:VER]", help="Only of this model, or version.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATASET[@N]", help="Only on this data set, or version.")
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", min=1, max=1000, help="How many to show at most.")
    ] = 200,
    as_json: Json = False,
) -> None:
    """List evaluations of models, the newest first."""
    from console.cli.evaluationview import EVALUATIONS, listed

    client = Client.from_environment()
    rows = cast(
        "list[EvaluationView]", client.get("/v1/evaluations", model=ref, data=data, limit=limit)
    )
    if as_json:
        emit(rows)
    elif rows:
        show(EVALUATIONS, [listed(view) for view in rows])
    else:
        narrate("no evaluations yet; `qd evaluate NAME:VER --data DATASET@N` makes one")


def evaluation(
    number: Annotated[str, typer.Argument(metavar="ID", help="Such as e3.", show_default=False)],
    every: _All = False,
    as_json: Json = False,
) -> None:
    """Show all results of an evaluation.

    The exit code is 1 when the version could not be measured.
    """
    _told(_get(Client.from_environment(), number), every, as_json)


def _get(client: Client, number: str) -> EvaluationDetail:
    return cast("EvaluationDetail", client.get(f"/v1/evaluations/{segment(number)}"))


def _over(client: Client, number: str) -> EvaluationDetail:
    """The evaluation once it is over."""
    try:
        view = _get(client, number)
        while view["state"] == "RUNNING":
            time.sleep(_EVERY)
            view = _get(client, number)
    except KeyboardInterrupt:
        narrate(f"it goes on; `qd evaluation {number}` shows it")
        raise
    return view


def _told(view: EvaluationDetail, every: bool, as_json: bool) -> None:
    if as_json:
        emit(view)
    else:
        from console.cli.evaluationview import show_evaluation

        show_evaluation(view, every)
    if view["state"] == "FAILED":
        raise typer.Exit(1)
