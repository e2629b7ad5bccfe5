"""A window against its reference: which features have drifted, by how much, and how sure that is (pure).

The level of a look, a chance, is split between inputs, predictions, and all inputs together. In each of the
first two the tests of all features are corrected by Benjamini and Hochberg. A feature has drifted when its
corrected p is below the level and its distance is large enough to matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import stats
from .rows import Rows, is_category, missing

FEWEST = 30
"""Values that a feature must have in reference and window to be compared."""
LEAST_SHARE = 0.02
"""Change of a share of missing values, or of new categories, below which it does not matter."""
WEIGHTS = {"inputs": 2.0, "predictions": 1.0, "joint": 1.0}
DRAWN = 50
"""Features whose histograms are in the report: the most conspicuous ones."""
SHOWN = 8
"""Categories in a histogram, and new ones that are named."""


@dataclass(frozen=True, slots=True)
class Task:
    """Args:
    least: rows of the window, and of the reference, below which nothing is said.
    level: chance of a false alarm in this look.
    limit: distance from which a difference matters.
    """

    least: int = 500
    level: float = 1 / 30
    limit: float = 0.1


def judge(task: Task, reference: Rows, window: Rows) -> dict[str, Any]:
    """The report: what `report.json` holds."""
    report: dict[str, Any] = {
        "status": "not enough data",
        "rows": window.count,
        "reference_rows": reference.count,
        "least": task.least,
        "level": task.level,
        "limit": task.limit,
        "features": [],
        "joint": None,
        "unknown": sorted(set(window.features) - set(reference.features))[:100],
        "reason": "",
    }
    for rows, what in ((window, "the window"), (reference, "the reference")):
        if rows.count < task.least:
            report["reason"] = f"{what} has {rows.count} rows; {task.least} are wanted"
            return report
    names = [name for name in reference.features if name in window.features]
    if not names:
        report["reason"] = "window and reference have no feature in common"
        return report
    tables = {"inputs": [n for n in names if n not in window.outputs]}
    tables["predictions"] = [n for n in names if n in window.outputs]
    joint = _joint(reference, window, tables["inputs"])
    families = [family for family, members in tables.items() if members]
    families += ["joint"] if joint is not None else []
    total = sum(WEIGHTS[family] for family in families)
    levels = {family: task.level * WEIGHTS[family] / total for family in families}
    for family, members in tables.items():
        found = [_feature(name, family, reference, window) for name in members]
        tested = [feature for feature in found if feature["p"] is not None]
        for feature, q in zip(tested, stats.adjusted([f["p"] for f in tested]), strict=True):
            feature["q"] = q
            feature["drift"] = q <= levels[family] and _matters(feature, task.limit)
        report["features"] += found
    if joint is not None:
        told = {"accuracy": joint.accuracy, "p": joint.p, "rows": joint.rows}
        drift = joint.p <= levels["joint"] and joint.accuracy - 0.5 >= task.limit / 2
        report["joint"] = told | {"drift": drift}
    report["features"].sort(key=lambda f: (not f["drift"], 2.0 if f["q"] is None else f["q"]))
    for feature in report["features"][DRAWN:]:
        feature["histogram"] = None
    drifted = [f["name"] for f in report["features"] if f["drift"]]
    if drifted or (report["joint"] is not None and report["joint"]["drift"]):
        report["status"] = "drift"
    elif any(feature["p"] is not None for feature in report["features"]):
        report["status"] = "ok"
    else:
        report["reason"] = f"no feature has {FEWEST} values in both"
    return report


def _matters(feature: dict[str, Any], limit: float) -> bool:
    before, after = feature["missing"]
    fresh = sum(item["share"] for item in feature["new"])
    size = feature["size"] or 0.0
    return bool(size >= limit or abs(after - before) >= LEAST_SHARE or fresh >= LEAST_SHARE)


def _feature(name: str, family: str, reference: Rows, window: Rows) -> dict[str, Any]:
    """One feature's part of the report; p is None where there are too few values."""
    sides = reference.features[name], window.features[name]
    values = [[value for value in side if not missing(value)] for side in sides]
    lost = [len(side) - len(kept) for side, kept in zip(sides, values, strict=True)]
    found: dict[str, Any] = {
        "name": name,
        "family": family,
        "kind": "category" if is_category(values[0]) else "number",
        "p": None,
        "q": None,
        "drift": False,
        "size": None,
        "psi": None,
        "statistic": None,
        "missing": [n / len(side) if side else 0.0 for n, side in zip(lost, sides, strict=True)],
        "new": [],
        "histogram": None,
    }
    chances = [stats.shares(lost[0], len(sides[0]), lost[1], len(sides[1]))]
    if min(map(len, values)) >= FEWEST:
        compare = _categories if found["kind"] == "category" else _numbers
        distance = compare(found, values[0], values[1])
        if distance is not None:
            chances.append(distance.p)
            found |= {"size": distance.size, "psi": distance.psi, "statistic": distance.statistic}
    elif max(map(len, values)) < FEWEST or not sum(lost):
        return found
    found["p"] = min(1.0, len(chances) * min(chances))
    return found


def _numbers(
    found: dict[str, Any], before: Sequence[Any], after: Sequence[Any]
) -> stats.Distance | None:
    try:
        one, other = (np.array(side, float) for side in (before, after))
    except (ValueError, TypeError):  # text where the reference has numbers
        found["kind"] = "category"
        return _categories(found, before, after)
    reference = stats.Numbers(one)
    low, high = np.quantile(np.concatenate([one, other]), [0.005, 0.995])
    edges = np.linspace(low, high, stats.BINS + 1)[1:-1] if high > low else np.array([low])
    counts = stats.binned(one, other, edges)
    found["histogram"] = {
        "edges": [float(edge) for edge in edges],
        "before": [float(share) for share in counts[0] / one.size],
        "after": [float(share) for share in counts[1] / other.size],
    }
    return reference.compare(other)


def _categories(
    found: dict[str, Any], before: Sequence[Any], after: Sequence[Any]
) -> stats.Distance | None:
    one, other = [_word(value) for value in before], [_word(value) for value in after]
    was, now = Counter(one), Counter(other)
    fresh = [(name, n) for name, n in now.most_common() if name not in was]
    found["new"] = [{"value": name, "share": n / len(other)} for name, n in fresh[:SHOWN]]
    names = [name for name, _ in (was + now).most_common(SHOWN)]
    found["histogram"] = {
        "names": names,
        "before": [was[name] / len(one) for name in names],
        "after": [now[name] / len(other) for name in names],
    }
    return stats.Categories(one).compare(other)


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)[:200]


def _joint(reference: Rows, window: Rows, names: Sequence[str]) -> stats.Joint | None:
    """The classifier on all inputs that are numbers; None with fewer than two of them."""
    columns = []
    for name in names:
        sides = [reference.features[name], window.features[name]]
        if all(isinstance(v, int | float) for v in sides[0][:100] if v is not None):
            try:
                pair = [np.array([np.nan if v is None else v for v in s], float) for s in sides]
            except (ValueError, TypeError):
                continue
            if np.isfinite(pair[0]).any():
                filled = np.nanmedian(pair[0])
                columns.append([np.where(np.isfinite(side), side, filled) for side in pair])
    if len(columns) < 2:
        return None
    one, other = (np.column_stack([pair[side] for pair in columns]) for side in (0, 1))
    return stats.classifier(one, other)
