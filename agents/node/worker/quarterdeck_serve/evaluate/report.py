"""What is measured, put together: the report of an evaluation, and the samples behind its intervals."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..batch.tables import Bad, Table
from ..oip import Array
from . import bootstrap, groups, holdout, timing
from .explaining import Explained, explain
from .metrics import BINS, LESS_IS_BETTER, Classified, Judged, Metric, bin_of, rounded
from .mistakes import Mistake
from .models import Predictor, run
from .outputs import Reader, Wanted, check_truth

FEW = 2
"""Rows that there are at least."""
MOST_CLASSES = 100
"""Classes of a confusion matrix that is stored."""
MOST_SLICES = 200
_PACKAGES = ("numpy", "onnxruntime", "scikit-learn", "skops", "shap")


@dataclass(frozen=True)
class Task:
    """What is asked for, as `task.json` has it. `explain`: rows that are explained one by one; None: no
    explanation at all."""

    format: str
    main: str
    target: str | None = None
    features: tuple[str, ...] = ()
    wanted: Wanted = field(default_factory=Wanted)
    groups: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    allow_nan: bool = False
    explain: int | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        said = Wanted(
            data.get("task"),
            data.get("output"),
            tuple(data.get("classes") or ()),
            data.get("positive"),
        )
        return cls(
            data["format"],
            data["main"],
            data.get("target"),
            tuple(data.get("features") or ()),
            said,
            tuple(data.get("groups") or ()),
            tuple(data.get("slices") or ()),
            bool(data.get("allow_nan")),
            data.get("explain"),
        )


Say = Callable[[str], None]


def measure(
    task: Task, model: Predictor, path: Path, say: Say
) -> tuple[dict[str, Any], dict[str, list[float | None]]]:
    """The report, and the samples by metric. Raises Mistake."""
    parts = list(holdout.tables(path))
    rows = sum(len(table.places) for _, table in parts)
    if rows < FEW:
        raise Mistake(f"the data have {rows} rows; allowed: {FEW} or more")
    target = holdout.target_of(parts[0][1].names(), task.target)
    truth = check_truth(target, holdout.column(parts, target))
    columns = tuple(dict.fromkeys((*task.groups, *task.slices)))
    cut = {name: groups.slices(name, holdout.column(parts, name)) for name in columns}
    inputs = _inputs(task, model, parts, target, columns)
    say(f"{rows} rows read")
    outputs = run(model, inputs)
    reader = Reader(outputs, target, truth, task.wanted, model.classes)
    judged = reader.judged(outputs)
    say(f"predicted: {reader.reading.task}")

    metrics = judged.metrics()
    sliced = [one for name in columns for one in cut[name]]
    if len(sliced) > MOST_SLICES:
        raise Mistake(f"the columns make {len(sliced)} slices; allowed: {MOST_SLICES}")
    every: dict[str, Metric] = dict(metrics)
    for one in sliced:
        every |= {groups.key(name, one): metric for name, metric in groups.on(judged, one).items()}
    for name in task.groups:
        if len(cut[name]) < 2:
            raise Mistake(f"column '{name}' has one group only, {cut[name][0].value}")
        every |= groups.named(groups.fairness(judged, cut[name]), name)
    intervals, samples = bootstrap.sampled(every, rows)
    counts = {"accuracy": rows} | {groups.key("accuracy", one): len(one.rows) for one in sliced}
    for name, count in counts.items():
        if name in intervals:
            intervals[name] = bootstrap.proportion(intervals[name], count)
    say(f"{bootstrap.RESAMPLES} resamples drawn")

    def again(changed: Mapping[str, Array]) -> Judged:
        return reader.judged(changed)

    reading = reader.reading
    report = {
        "version": 1,
        "task": reading.task,
        "rows": rows,
        "target": target,
        "output": reading.output,
        "scores": reading.scores,
        "classes": list(reading.classes),
        "positive": reading.positive,
        "metrics": {name: intervals[name].to_json() for name in metrics},
        "slices": _slices(judged, sliced, intervals),
        "fairness": _fairness(judged, task.groups, cut, intervals),
        **(_classes(judged) if isinstance(judged, Classified) else {}),
        "latency": timing.latency(model, inputs),
        "noise": timing.noise(model, inputs, again, bootstrap.SEED),
        "explanation": _explanation(task, model, inputs, reader, judged, say),
        "resamples": bootstrap.RESAMPLES,
        "level": bootstrap.LEVEL,
        "pairing": _pairing(target, truth),
        "packages": {"python": platform.python_version(), **_packages()},
    }
    return report, samples


def _inputs(
    task: Task,
    model: Predictor,
    parts: Sequence[tuple[str, Table]],
    target: str,
    columns: Sequence[str],
) -> dict[str, Array]:
    """The model's inputs for all rows. Columns that make slices are features only where they fit."""
    rest = [name for name in parts[0][1].names() if name != target]
    fewer = [name for name in rest if name not in columns]
    try:
        return _prepared(task, model, parts, rest)
    except Mistake:
        if len(fewer) == len(rest):
            raise
    return _prepared(task, model, parts, fewer)


def _prepared(
    task: Task, model: Predictor, parts: Sequence[tuple[str, Table]], rest: Sequence[str]
) -> dict[str, Array]:
    found: list[dict[str, Array]] = []
    before = 0
    for file, table in parts:
        bad: list[Bad] = []
        found.append(model.prepare(table, rest, task.features, bad, allow_nan=task.allow_nan))
        if bad:
            hint = (
                "; --allow-nan passes on what is not finite"
                if "not finite" in bad[0].reason
                else ""
            )
            raise Mistake(
                f"{file}: row {bad[0].row + 1} does not fit the model ({len(bad)} of the first "
                f"{before + len(table.places)} do not): {bad[0].reason}{hint}"
            )
        before += len(table.places)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _worst_first(
    name: str, intervals: Mapping[str, bootstrap.Interval], one: groups.Slice
) -> float:
    value = intervals[groups.key(name, one)].value
    if value is None:
        return float("inf")
    return -value if name in LESS_IS_BETTER else value


def _slices(
    judged: Judged, sliced: Sequence[groups.Slice], intervals: Mapping[str, bootstrap.Interval]
) -> list[dict[str, Any]]:
    """Worst first, by accuracy, or by RMSE."""
    first = "accuracy" if isinstance(judged, Classified) else "rmse"
    ordered = sorted(sliced, key=lambda one: _worst_first(first, intervals, one))
    return [
        {
            "column": one.column,
            "value": one.value,
            "rows": len(one.rows),
            "metrics": {
                name: intervals[groups.key(name, one)].to_json() for name in groups.on(judged, one)
            },
        }
        for one in ordered
    ]


def _fairness(
    judged: Judged,
    names: Sequence[str],
    cut: Mapping[str, Sequence[groups.Slice]],
    intervals: Mapping[str, bootstrap.Interval],
) -> list[dict[str, Any]]:
    return [
        {
            "column": name,
            "groups": {one.value: len(one.rows) for one in cut[name]},
            "metrics": {
                metric: intervals[f"{groups.PREFIX}{metric}[{name}]"].to_json()
                for metric in groups.fairness(judged, cut[name])
            },
        }
        for name in names
    ]


def _classes(judged: Classified) -> dict[str, Any]:
    """Confusion (rows: truth, columns: prediction), what each class comes to, and the calibration."""
    width = len(judged.classes)
    flat = np.bincount(judged.truth * width + judged.predicted, minlength=width * width)
    matrix = flat.reshape(width, width)
    each = []
    for place, name in enumerate(judged.classes):
        hits, true, said = matrix[place, place], matrix[place].sum(), matrix[:, place].sum()
        each.append(
            {
                "class": name,
                "rows": int(true),
                "precision": rounded(float(hits / said)) if said else None,
                "recall": rounded(float(hits / true)) if true else None,
                "f1": rounded(float(2 * hits / (true + said))) if true + said else None,
            }
        )
    return {
        "confusion": matrix.tolist() if width <= MOST_CLASSES else None,
        "per_class": each if width <= MOST_CLASSES else [],
        "calibration": [] if judged.probabilities is None else _calibration(judged),
    }


def _calibration(judged: Classified) -> list[dict[str, Any]]:
    assert judged.probabilities is not None
    confidence = judged.probabilities.max(axis=1)
    bins, right = bin_of(confidence), judged.truth == judged.predicted
    found = []
    for place in range(BINS):
        inside = bins == place
        if inside.any():
            found.append(
                {
                    "from": rounded(place / BINS),
                    "to": rounded((place + 1) / BINS),
                    "rows": int(inside.sum()),
                    "confidence": rounded(float(confidence[inside].mean())),
                    "accuracy": rounded(float(right[inside].mean())),
                }
            )
    return found


def _explanation(
    task: Task,
    model: Predictor,
    inputs: Mapping[str, Array],
    reader: Reader,
    judged: Judged,
    say: Say,
) -> dict[str, Any] | None:
    if task.explain is None:
        return None
    name, array = next(iter(inputs.items()))
    if len(inputs) > 1 or array.ndim != 2 or array.dtype.kind not in "fiu":
        shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in inputs.items())
        raise Mistake(
            f"only a model with one input of rows of numbers can be explained; it has {shapes}"
        )

    def score(rows: Array) -> Any:
        return reader.scores(run(model, {name: rows.astype(array.dtype)}))

    def right(rows: Array) -> float:
        now = reader.judged(run(model, {name: rows.astype(array.dtype)}))
        first = next(iter(now.metrics()))
        value = now.metrics()[first](np.ones(len(rows)))
        return -value if first in LESS_IS_BETTER else value

    first = next(iter(judged.metrics()))
    found = explain(
        Explained(array.astype(np.float64), model.names(name), score, right, first),
        task.explain,
        list(reader.reading.classes),
        bootstrap.SEED,
    )
    say(f"explained by {found['method']}")
    return found


def _pairing(target: str, truth: Sequence[str]) -> str:
    """Equal where two evaluations were of the same rows with the same draws, so that their samples pair.
    The controller adds which version of the data it was."""
    parts = [target, str(len(truth)), str(bootstrap.RESAMPLES), bootstrap.mark(len(truth)), *truth]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
