"""The page: one HTML file with its style sheet and drawings inside, and no script.

What people and programs have written is escaped by the template engine, and what a terminal or a browser
would act on (control and bidirectional characters) is made visible first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from console.cli.format import elapsed, local_moment, number, size
from console.report import charts
from console.report.charts import Bar, Curve
from console.report.gather import Model, Report, Run, Sweep, commit_of
from console.text import neutralise
from jobs.base.times import parse_time, rfc3339
from jobs.base.words import counted
from jobs.metrics.series import in_order

if TYPE_CHECKING:
    from jobs.wire.flowviews import PipelineDetail

_TRIALS = 20
_AXES = 8
_BARS = 12
_MANY = 8
"""More runs than this are told by their metrics and curves; not each on its own."""
_DIFF = 200_000
"""Characters of a run's uncommitted changes that a page holds."""


def render(report: Report, title: str, now: float) -> str:
    """The page, as HTML. `now` is in seconds since the epoch."""
    environment = Environment(
        loader=PackageLoader("console.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {
        "moment": local_moment,
        "size": size,
        "metric": number,
        "value": _value,
        "written": lambda at: local_moment(rfc3339(at)),
        "short": lambda text, most=60: charts.cut(_value(text), most),
    }
    environment.globals |= {"elapsed": lambda one: elapsed(one["started_at"], one["ended_at"], now)}
    return environment.get_template("page.html").render(
        title=title,
        now=now,
        runs=report.runs,
        many=len(report.runs) > _MANY,
        metrics=_metric_names(report.runs),
        curves=list(_curves(report.runs)),
        facts=[_facts(run) for run in report.runs],
        differences=report.differences,
        across=_across(report),
        sweeps=[_sweep(sweep) for sweep in report.sweeps],
        pipelines=[(one, _timeline(one, now)) for one in report.pipelines],
        models=[_model(model) for model in report.models],
        counted=counted,
        diff_limit=_DIFF,
    )


def _visible(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return "\n".join(neutralise(line) for line in value.split("\n"))
    return value


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_value(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(one) for one in value)
    return str(value)


# Runs.


def _metric_names(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.detail["metrics"])
    return in_order(names, _objective(runs))


def _objective(runs: Sequence[Run]) -> str | None:
    for run in runs:
        if metric := (run.detail["spec"].get("objective") or {}).get("metric"):
            return str(metric)
    return None


def _curves(runs: Sequence[Run]) -> Iterator[tuple[str, Markup]]:
    names = in_order(dict.fromkeys(name for run in runs for name in run.series), _objective(runs))
    for name in names:
        found = [
            Curve(
                run.id,
                [
                    (float(point["step"]), point["value"])
                    for point in run.series.get(name, ())
                    if point["value"] is not None
                ],
            )
            for run in runs
        ]
        drawn = charts.lines(name, [curve for curve in found if curve.points])
        if drawn is not None:
            yield name, drawn


def _across(report: Report) -> Markup | None:
    """Parallel coordinates of the parameters that differ, and of the first metric."""
    if report.differences is None or len(report.runs) <= 2:
        return None
    kind = "param."
    asked = [one for one in report.differences.asked if one.what.startswith(kind)][: _AXES - 1]
    metrics = _metric_names(report.runs)[:1]
    rows = []
    for index, run in enumerate(report.runs):
        results = [run.detail["metrics"].get(name) for name in metrics]
        values = [one.values[index] for one in asked] + [one and one["value"] for one in results]
        rows.append((run.id, [_coordinate(value) for value in values]))
    names = [*(one.what.removeprefix(kind) for one in asked), *metrics]
    return charts.parallel("Parameters of the runs", names, rows) if asked else None


def _facts(run: Run) -> dict[str, str]:
    """What is known of a run, in the order in which people ask."""
    detail, spec = run.detail, run.detail["spec"]
    attempts = detail["attempts"]
    found = {
        "state": detail["state"] + (f": {detail['reason']}" if detail["reason"] else ""),
        "user": detail["user"],
        "submitted": local_moment(detail["submitted_at"]),
        "command": " ".join(map(str, spec.get("command") or ())) or str(spec.get("script") or ""),
        "commit": commit_of(detail),
        "snapshot": (detail["snapshot"] or "")[:23],
        "attempts": str(len(attempts)),
        "data": _value(spec.get("data")) if spec.get("data") else "",
        "seed": _value(spec["seed"]) if spec.get("seed") is not None else "",
    }
    return {name: text for name, text in found.items() if text}


# Sweeps.


def _sweep(sweep: Sweep) -> dict[str, Any]:
    detail = sweep.detail
    goal = detail["objectives"][0]
    maximize = goal["goal"] == "maximize"
    done = [
        trial
        for trial in sweep.trials
        if trial["values"] is not None and math.isfinite(trial["values"][0])
    ]
    ranked = sorted(done, key=lambda trial: (trial["values"] or [0.0])[0], reverse=maximize)
    names = list(dict.fromkeys(name for trial in done for name in trial["params"]))
    weights = sweep.importance
    names.sort(key=lambda name: -weights.get(name, 0.0))
    rows = [
        (
            f"trial {trial['number']}",
            [
                *(_coordinate(trial["params"].get(name)) for name in names[:_AXES]),
                trial["values"][0],
            ],
        )
        for trial in ranked
        if trial["values"] is not None
    ]
    curves = [
        Curve(f"trial {curve['number']}", [(float(step), value) for step, value in curve["points"]])
        for curve in sorted(
            sweep.curves,
            key=lambda curve: next(
                (at for at, trial in enumerate(ranked) if trial["number"] == curve["number"]),
                len(ranked),
            ),
        )
        if curve["points"]
    ]
    metric = goal["metric"]
    of_trials = [
        (trial["number"], trial["values"][0])
        for trial in sorted(done, key=lambda trial: trial["number"])
        if trial["values"] is not None
    ]
    shares = sorted(weights.items(), key=lambda pair: -pair[1])[:_BARS]
    headings = (
        f"{metric} of each trial ({goal['goal']}), and the best so far",
        f"How much each parameter mattered for {metric}",
        "Parameters of the trials; the best one in colour",
        f"{metric} while the trials ran",
    )
    drawings = zip(
        headings,
        (
            charts.history(headings[0], of_trials, maximize=maximize),
            charts.bars(headings[1], shares),
            charts.parallel(headings[2], [*names[:_AXES], metric], rows),
            charts.lines(headings[3], curves),
        ),
        strict=True,
    )
    return {
        "detail": detail,
        "ranked": ranked[:_TRIALS],
        "names": names,
        "left": len(sweep.trials) - min(len(ranked), _TRIALS),
        "drawings": [(heading, drawn) for heading, drawn in drawings if drawn is not None],
    }


def _coordinate(value: Any) -> float | str | None:
    if value is None or isinstance(value, (bool, str)):
        return None if value is None else str(value)
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return str(value)


# Pipelines and models.


def _timeline(pipeline: PipelineDetail, now: float) -> Markup | None:
    found = []
    for task in pipeline["tasks"]:
        if task["started_at"] is None:
            continue
        start = parse_time(task["started_at"])
        end = now if task["ended_at"] is None else parse_time(task["ended_at"])
        name = f"{task['step']} {_value(task['matrix'])}".rstrip()
        found.append(Bar(name, start, max(start, end), task["state"]))
    return charts.stretches("When each step ran", found)


def _model(model: Model) -> dict[str, Any]:
    names = dict.fromkeys(name for version in model.versions for name in version["metrics"])
    return {
        "name": model.name,
        "versions": model.versions,
        "total": model.total,
        "metrics": in_order(names, None),
        "story": model.story,
    }
