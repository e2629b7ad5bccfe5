"""Conditions of gates as people write them: `val_acc >= 0.95`, `accuracy >= production - 0.005`,
`accuracy >= 0.9 in every sex`, `fairness.demographic_parity_difference <= 0.1 by sex`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from jobs.base.units import show
from jobs.models.evaluations import FAIRNESS, GROUPED, METRICS

Op = Literal[">=", ">", "<=", "<"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_METRIC = r'"[^"]{1,250}"|[^\s"<>=]{1,250}'
_WORD = r'"[^"]{1,256}"|[^\s"=<>]{1,256}'
_CONDITION = re.compile(
    rf"(?P<metric>{_METRIC})\s*(?P<op>>=|<=|>|<)\s*"
    rf"(?:(?P<limit>{_NUMBER})(?P<percent>%)?"
    rf"|(?P<alias>[A-Za-z][A-Za-z0-9._-]*)(?:\s*(?P<sign>[-+*])\s*(?P<by>{_NUMBER})(?P<share>%)?)?)"
    rf"(?:\s+by\s+(?P<group>{_WORD})"
    rf"|\s+in\s+(?:every\s+(?P<every>{_WORD})|(?P<column>{_WORD})\s*=\s*(?P<value>{_WORD})))?"
)
_FORM = (
    "METRIC OP LIMIT, such as `val_acc >= 0.95`, `val_acc >= production - 0.005` or "
    "`val_loss <= production * 1.1`; of an evaluation also `accuracy >= 0.9 in every sex`, "
    "`accuracy >= 0.9 in sex=f` or `fairness.demographic_parity_difference <= 0.1 by sex`"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """`metric op limit`, or `metric op (alias's metric sign by)`; of all rows, or of a slice (`column` with
    `value`, or with each of its values where that is None), or between the groups of a column."""

    text: str
    metric: str
    op: Op
    limit: float | None = None
    alias: str | None = None
    sign: str = "+"
    by: float = 0.0
    share: bool = False  # `by` is a share of the other's value
    column: str | None = None
    value: str | None = None
    group: str | None = None

    @property
    def least(self) -> bool:
        """Whether more is better."""
        return self.op in (">=", ">")

    @property
    def of_evaluation(self) -> bool:
        """Whether only an evaluation can say it."""
        return self.column is not None or self.group is not None

    def key(self) -> str:
        """What an evaluation calls it; of every slice the part that they share."""
        if self.group is not None:
            return f"{self.metric}[{self.group}]"
        if self.column is None:
            return self.metric
        return f"{self.metric}[{self.column}=" + ("" if self.value is None else f"{self.value}]")

    def keys(self, known: Collection[str]) -> list[str]:
        """Those of what an evaluation has measured that it speaks of."""
        key = self.key()
        if self.column is not None and self.value is None:
            return [name for name in known if name.startswith(key)]
        return [key] if key in known else []

    def holds(self, measured: float, limit: float) -> bool:
        return {
            ">=": measured >= limit,
            ">": measured > limit,
            "<=": measured <= limit,
            "<": measured < limit,
        }[self.op]

    def shifted(self, value: float) -> float:
        """The limit that follows from the other version's value."""
        if self.sign == "*":
            return value * self.by
        by = abs(value) * self.by if self.share else self.by
        return value + by if self.sign == "+" else value - by


def parse_condition(text: str) -> Condition:
    """Raises ValueError with a whole sentence."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"found {show(text)}; allowed: {_FORM}")
    words = {
        name: word and word.strip('"')
        for name, word in match.groupdict().items()
        if name in ("metric", "group", "every", "column", "value")
    }
    metric, column, group = words["metric"], words["column"] or words["every"], words["group"]
    _check(text, metric, column, group)
    by = float(match["by"] or 0) / (100 if match["share"] else 1)
    where = {"column": column, "value": words["value"], "group": group}
    if match["limit"] is not None:
        limit = float(match["limit"]) / (100 if match["percent"] else 1)
        return Condition(text.strip(), metric, match["op"], limit, **where)  # type: ignore[arg-type]
    if match["sign"] == "*" and match["share"] is None and by < 0:
        raise ValueError(f"found {show(text)}; allowed: a factor of 0 or more")
    return Condition(
        text.strip(), metric, match["op"], None, match["alias"], match["sign"] or "+", by,  # type: ignore[arg-type]
        bool(match["share"]) and match["sign"] != "*", **where,
    )  # fmt: skip


def _check(text: str, metric: str, column: str | None, group: str | None) -> None:
    """Raises ValueError for a metric that no evaluation has in that place."""
    fair = metric.startswith(FAIRNESS)
    if fair and metric.removeprefix(FAIRNESS) not in GROUPED:
        raise ValueError(f"found {show(metric)}; allowed: {FAIRNESS}{', '.join(GROUPED)}")
    if fair and group is None:
        raise ValueError(f"found {show(text)}; allowed: {metric} with `by COLUMN` at the end")
    if group is not None and not fair:
        raise ValueError(
            f"found {show(text)}; allowed: `by` after {FAIRNESS}..., else `in every {group}`"
        )
    if column is not None and metric not in METRICS:
        raise ValueError(f"found {show(metric)} in a slice; allowed: {', '.join(METRICS)}")
