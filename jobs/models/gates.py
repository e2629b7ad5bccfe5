"""Gates: conditions that a version must meet, on its own metrics or against another version's.

A gate file has a name and conditions such as `val_acc >= 0.95` or `val_acc >= production - 0.005`. The
result says for each of them what was asked, what was measured, and on what; as canonical JSON it is the
evidence that approvals name by its digest.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.spec import problems, yamlfile
from jobs.spec.problems import Problem

Op = Literal[">=", ">", "<=", "<"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_METRIC = r'"[^"]{1,250}"|[^\s"<>=]{1,250}'
_CONDITION = re.compile(
    rf"(?P<metric>{_METRIC})\s*(?P<op>>=|<=|>|<)\s*"
    rf"(?:(?P<limit>{_NUMBER})(?P<percent>%)?"
    rf"|(?P<alias>[A-Za-z][A-Za-z0-9._-]*)(?:\s*(?P<sign>[-+*])\s*(?P<by>{_NUMBER})(?P<share>%)?)?)"
)
_FORM = (
    "METRIC OP LIMIT, such as `val_acc >= 0.95`, `val_acc >= production - 0.005` or "
    "`val_loss <= production * 1.1`"
)
LOW, HIGH = "/low", "/high"
"""Metrics of these endings are the ends of an interval: a condition is held against the worse end."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`metric op limit`, or `metric op (alias's metric sign by)`."""

    text: str
    metric: str
    op: Op
    limit: float | None = None
    alias: str | None = None
    sign: str = "+"
    by: float = 0.0
    share: bool = False  # `by` is a share of the other's value


def parse_condition(text: str) -> Condition:
    """Raises ValueError with a whole sentence."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"found {show(text)}; allowed: {_FORM}")
    metric, op = match["metric"].strip('"'), match["op"]
    by = float(match["by"] or 0) / (100 if match["share"] else 1)
    if match["limit"] is not None:
        limit = float(match["limit"]) / (100 if match["percent"] else 1)
        return Condition(text.strip(), metric, op, limit)  # type: ignore[arg-type]
    if match["sign"] == "*" and match["share"] is None and by < 0:
        raise ValueError(f"found {show(text)}; allowed: a factor of 0 or more")
    return Condition(
        text.strip(), metric, op, None, match["alias"], match["sign"] or "+", by,  # type: ignore[arg-type]
        bool(match["share"]) and match["sign"] != "*",
    )  # fmt: skip


class Gate(BaseModel):
    """A gate file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=128, description="what the result is called")
    conditions: list[str] = Field(min_length=1, max_length=200, description="all of them must hold")
    first: Literal["pass", "fail"] = Field(
        "pass",
        description="what a condition against a version comes to that is not there yet",
    )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gate:
        """Raises InvalidInput."""
        try:
            gate = cls.model_validate(dict(data))
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "gate") from None
        if found := gate.problems():
            raise problems.in_data(found, "gate")
        return gate

    def problems(self) -> list[Problem]:
        """Conditions that cannot be read."""
        found = []
        for place, text in enumerate(self.conditions):
            try:
                parse_condition(text)
            except ValueError as error:
                found.append(Problem(("conditions", place), str(error)))
        return found

    def parsed(self) -> list[Condition]:
        return [parse_condition(text) for text in self.conditions]

    @property
    def digest(self) -> str:
        """Names the gate by what it asks, whatever its file is called."""
        return digest_of({"conditions": self.conditions, "first": self.first, "name": self.name})


def load_gate(path: Path) -> Gate:
    """Read a gate file. Raises InvalidInput with file, line and field."""
    document = yamlfile.load(path)
    if not isinstance(document.data, dict):
        what = Problem((), "found no fields; allowed: name and conditions")
        raise problems.in_document([what], document)
    try:
        gate = Gate.model_validate(document.data)
    except ValidationError as error:
        raise problems.in_document(problems.find(error, Gate), document) from None
    if found := gate.problems():
        raise problems.in_document(found, document)
    return gate


@dataclass(frozen=True, slots=True)
class Measured:
    """A version and its metrics; a value of None is one that is no number."""

    name: str
    digest: str
    run: str | None
    metrics: Mapping[str, float | None]


def evaluate(
    gate: Gate, candidate: Measured, others: Mapping[str, Measured], *, at: str, by: str
) -> dict[str, Any]:
    """The gate's result, ready to be stored.

    Args:
        others: by alias, the versions that conditions speak of, as far as they are there.
        at: when, RFC 3339. by: who asked.
    """
    results = [_held(one, candidate, others, gate.first) for one in gate.parsed()]
    return {
        "gate": {"name": gate.name, "digest": gate.digest, "conditions": gate.conditions},
        "version": candidate.name,
        "digest": candidate.digest,
        "run": candidate.run,
        "passed": all(result["passed"] for result in results),
        "conditions": results,
        "at": at,
        "by": by,
    }


def aliases_of(gate: Gate) -> list[str]:
    """The aliases whose versions the conditions speak of."""
    return sorted({one.alias for one in gate.parsed() if one.alias is not None})


def _held(
    condition: Condition, candidate: Measured, others: Mapping[str, Measured], first: str
) -> dict[str, Any]:
    """One condition: asked, measured, on what, and whether it holds."""
    worse = LOW if condition.op in (">=", ">") else HIGH
    used, measured = _worse(candidate, condition.metric, worse)
    limit, against = condition.limit, None
    if condition.alias is not None:
        other = others.get(condition.alias)
        if other is None:
            why = f"there is no {condition.alias} version yet"
            return _result(condition, used, measured, None, None, first == "pass", why)
        value = other.metrics.get(condition.metric)
        against = {
            "alias": condition.alias,
            "version": other.name,
            "run": other.run,
            "value": value,
        }
        if value is None or not math.isfinite(value):
            why = f"{other.name} ({condition.alias}) has no {condition.metric}"
            return _result(condition, used, measured, None, against, False, why)
        limit = _shifted(value, condition)
    assert limit is not None
    if measured is None or not math.isfinite(measured):
        known = ", ".join(sorted(candidate.metrics)) or "none"
        why = f"{candidate.name} has no {condition.metric}; it has: {known}"
        return _result(condition, used, None, limit, against, False, why)
    passed = {
        ">=": measured >= limit,
        ">": measured > limit,
        "<=": measured <= limit,
        "<": measured < limit,
    }[condition.op]
    opposite = {">=": "<", ">": "<=", "<=": ">", "<": ">="}[condition.op]
    why = f"{used} is {measured:.6g}, {condition.op if passed else opposite} {limit:.6g}"
    if against is not None:
        why += f" ({against['version']} has {against['value']:.6g})"
    return _result(condition, used, measured, limit, against, passed, why)


def _worse(candidate: Measured, metric: str, ending: str) -> tuple[str, float | None]:
    """The metric that is looked at, and its value: an end of its interval where it has one."""
    end = candidate.metrics.get(metric + ending)
    if end is not None:
        return metric + ending, end
    return metric, candidate.metrics.get(metric)


def _shifted(value: float, condition: Condition) -> float:
    if condition.sign == "*":
        return value * condition.by
    by = abs(value) * condition.by if condition.share else condition.by
    return value + by if condition.sign == "+" else value - by


def _result(
    condition: Condition,
    used: str,
    measured: float | None,
    limit: float | None,
    against: dict[str, Any] | None,
    passed: bool,
    why: str,
) -> dict[str, Any]:
    return {
        "asked": condition.text,
        "metric": used,
        "measured": measured,
        "limit": limit,
        "against": against,
        "passed": passed,
        "why": why,
    }


def digest_of(document: Any) -> str:
    """`sha256:` and the digest of a document's canonical JSON. Raises InvalidInput for NaN."""
    try:
        text = json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except ValueError as error:
        raise InvalidInput(f"not plain JSON: {error}") from None
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def failures(evidence: Mapping[str, Any]) -> Sequence[str]:
    """Of a result, what does not hold: each condition with the reason."""
    return [f"{one['asked']}: {one['why']}" for one in evidence["conditions"] if not one["passed"]]
