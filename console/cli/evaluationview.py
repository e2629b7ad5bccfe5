"""An evaluation, shown to a person: metrics with intervals, the confusion drawn, slices worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from console.cli.details import facts
from console.cli.format import local_moment, number
from console.cli.output import Column, paint, paint_state, say, show
from console.text import neutralise, pad
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.evaluationviews import EvaluationDetail, EvaluationView

_SHOWN = 20
"""Slices and features that are shown."""
_WIDEST = 25
"""Classes of a confusion that is drawn; of more, the most frequent confusions are listed."""
_CONFUSIONS = 10
_BAR = 20
Interval = Mapping[str, float | None]


def show_evaluation(view: EvaluationDetail, every: bool = False) -> None:
    """Write it all. `every`: every slice and every feature."""
    document = view["document"]
    report: Mapping[str, Any] = {} if document is None else document["report"]
    say(
        f"{paint(view['id'], 'bold')}  {paint_state(view['state'])}  {neutralise(view['model'])} "
        f"on {neutralise(view['data'])}"
    )
    facts(
        [
            ("reason", neutralise(view["reason"])),
            ("digest", view["digest"]),
            ("data", view["data_digest"]),
            ("evidence", view["evidence"] or ""),
            ("job", f"{view['job']}, by {neutralise(view['user'])}"),
            ("measured", local_moment(view["ended_at"]) if report else ""),
        ]
    )
    if document is not None and not view["sound"]:
        say(paint("this result was changed after it was stored", "red"))
    if not report:
        return
    say(_how(report))
    say()
    show_metrics(report["metrics"], report["level"])
    if report.get("confusion"):
        say()
        _confusion(report["classes"], report["confusion"])
    if report.get("calibration"):
        say()
        _calibration(report["calibration"])
    if report["slices"]:
        say()
        _slices(report["slices"], None if every else _SHOWN)
    for one in report["fairness"]:
        say()
        _fairness(one, report.get("positive"))
    if report["noise"]:
        say()
        _noise(report["noise"])
    if report.get("explanation"):
        say()
        _explanation(report["explanation"], None if every else _SHOWN)
    say()
    took = report["latency"]
    say(
        f"one row takes {took['p50_ms']:.3g} ms (median; 95 % within {took['p95_ms']:.3g} ms, 99 % within "
        f"{took['p99_ms']:.3g} ms); {took['rows_per_s']:,.0f} rows/s in batches"
    )


def _how(report: Mapping[str, Any]) -> str:
    read = f", {report['scores']}" if report["scores"] else ""
    of = f" of {len(report['classes'])} classes" if report["classes"] else ""
    return neutralise(
        f"{report['task']}{of}, {counted(report['rows'], 'row')}, truth in '{report['target']}', "
        f"prediction in '{report['output']}'{read}"
    )


def between(one: Interval) -> list[str]:
    """Value and interval, as cells."""
    return [_cell(one["value"]), _cell(one["low"]), _cell(one["high"])]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def show_metrics(metrics: Mapping[str, Interval], level: float = 0.95) -> None:
    columns = [Column("METRIC", flex=True), Column("VALUE", right=True)]
    columns += [Column(f"{level:.0%} FROM", right=True), Column("TO", right=True)]
    show(columns, [[name, *between(one)] for name, one in metrics.items()])


def confusion_lines(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[str]:
    """The matrix drawn: truth down, prediction across; what is wrong in red, what is right in green."""
    names = [neutralise(name)[:12] for name in classes]
    cells = [[str(n) if n else "·" for n in row] for row in matrix]
    wide = max(len(text) for text in (*names, *(cell for row in cells for cell in row)))
    left = max(len("truth"), *(len(name) for name in names))
    lines = [f"{'':{left}}  predicted", "  ".join([pad("truth", left), *_right(names, wide)])]
    for place, (name, row) in enumerate(zip(names, cells, strict=True)):
        shown = [
            paint(cell.rjust(wide), "green" if place == n else "red")
            if cell != "·"
            else cell.rjust(wide)
            for n, cell in enumerate(row)
        ]
        lines.append("  ".join([pad(name, left), *shown]))
    return lines


def _right(names: Sequence[str], wide: int) -> list[str]:
    return [name.rjust(wide) for name in names]


def _confusion(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
    if len(classes) <= _WIDEST:
        for line in confusion_lines(classes, matrix):
            say(line)
        return
    pairs = [
        (count, truth, said)
        for truth, row in enumerate(matrix)
        for said, count in enumerate(row)
        if count and truth != said
    ]
    pairs.sort(key=lambda pair: -pair[0])
    show(
        [Column("TRUTH", flex=True), Column("PREDICTED", flex=True), Column("ROWS", right=True)],
        [[classes[truth], classes[said], str(count)] for count, truth, said in pairs[:_CONFUSIONS]],
    )


def _bar(share: float) -> str:
    return "█" * round(max(0.0, min(share, 1.0)) * _BAR)


def _calibration(bins: Sequence[Mapping[str, Any]]) -> None:
    columns = [
        Column("CONFIDENCE"),
        Column("ROWS", right=True),
        Column("MEAN", right=True),
        Column("RIGHT", right=True),
        Column("", flex=True),
    ]
    show(
        columns,
        [
            [
                f"{one['from']:.2f} to {one['to']:.2f}",
                str(one["rows"]),
                f"{one['confidence']:.1%}",
                f"{one['accuracy']:.1%}",
                _bar(one["accuracy"]),
            ]
            for one in bins
        ],
    )


def _slices(slices: Sequence[Mapping[str, Any]], most: int | None) -> None:
    names = list(slices[0]["metrics"])
    columns = [Column("SLICE", flex=True), Column("ROWS", right=True)]
    columns += [Column(names[0].upper(), right=True), Column("FROM", right=True)]
    columns += [Column("TO", right=True)]
    columns += [Column(name.upper(), right=True) for name in names[1:]]
    rows = []
    for one in slices[:most]:
        rest = [_cell(one["metrics"][name]["value"]) for name in names[1:]]
        first = between(one["metrics"][names[0]])
        rows.append([f"{one['column']}={one['value']}", str(one["rows"]), *first, *rest])
    show(columns, rows)
    if most is not None and len(slices) > most:
        say(f"and {len(slices) - most} better ones (--all)")


def _fairness(one: Mapping[str, Any], positive: str | None) -> None:
    groups = ", ".join(f"{name} ({rows})" for name, rows in one["groups"].items())
    yes = f"; a yes is {positive}" if positive is not None else ""
    say(neutralise(f"fairness by {one['column']}: {groups}{yes}"))
    show_metrics(one["metrics"])


def _noise(levels: Sequence[Mapping[str, Any]]) -> None:
    names = list(levels[0]["metrics"])
    columns = [Column("NOISE", right=True), *(Column(name.upper(), right=True) for name in names)]
    rows = [
        [f"{one['level']:g} SD", *(_cell(one["metrics"][name]) for name in names)] for one in levels
    ]
    show(columns, rows)


def _explanation(told: Mapping[str, Any], most: int | None) -> None:
    why = f" ({told['why']})" if told.get("why") else ""
    say(neutralise(f"{told['method']} over {counted(told['rows'], 'row')}{why}: {told['unit']}"))
    features = told["features"]
    top = max((abs(one["importance"] or 0.0) for one in features), default=0.0) or 1.0
    columns = [Column("FEATURE", flex=True), Column("IMPORTANCE", right=True), Column("")]
    show(
        columns,
        [
            [one["name"], number(one["importance"]), _bar((one["importance"] or 0.0) / top)]
            for one in features[:most]
        ],
    )
    if most is not None and len(features) > most:
        say(f"and {len(features) - most} more (--all)")
    for example in told["examples"]:
        of = f" of {example['of']}" if example["of"] is not None else ""
        say()
        say(
            neutralise(
                f"row {example['row']}: score{of} {number(example['score'])}, "
                f"{number(example['base'])} on average"
            )
        )
        shown = [
            [one["name"], number(one["value"]), f"{one['effect']:+.4g}"]
            for one in example["features"][: _SHOWN // 4]
        ]
        show(
            [
                Column("FEATURE", flex=True),
                Column("VALUE", right=True),
                Column("EFFECT", right=True),
            ],
            shown,
        )


EVALUATIONS = [
    Column("ID"),
    Column("MODEL", flex=True),
    Column("DATA", flex=True),
    Column("STATE", states=True),
    Column("ROWS", right=True),
    Column("METRICS", flex=True),
    Column("JOB"),
    Column("BY"),
    Column("AT"),
]


def listed(view: EvaluationView) -> list[str]:
    """A row of `EVALUATIONS`."""
    values = [
        f"{name} {_cell(one['value'])}"
        for name, one in view["metrics"].items()
        if one["value"] is not None
    ]
    return [
        view["id"],
        view["model"],
        view["data"],
        view["state"],
        "-" if view["rows"] is None else str(view["rows"]),
        ", ".join(values[:3]) or view["reason"],
        view["job"],
        view["user"],
        local_moment(view["ended_at"] or view["created_at"]),
    ]
