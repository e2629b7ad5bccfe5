"""Gates: conditions that a version must meet, on its own metrics or against another version's.

A gate file has a name and conditions (`jobs/models/conditions.py`), on the metrics that the version's run has
recorded or, with `data`, on its evaluations. The result says for each of them what was asked, what was
measured, and on what; as canonical JSON it is the evidence that approvals name by its digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.models import comparing
from jobs.models.comparing import Answer
from jobs.models.conditions import Condition, parse_condition
from jobs.models.digests import digest_of
from jobs.models.evaluations import METRICS, Evaluated, intervals
from jobs.spec import problems, yamlfile
from jobs.spec.problems import Problem

LOW, HIGH = "/low", "/high"
"""Metrics of these endings are the ends of an interval: a condition is held against the worse end."""


class Gate(BaseModel):
    """A gate file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=128, description="what the result is called")
    conditions: list[str] = Field(min_length=1, max_length=200, description="all of them must hold")
    first: Literal["pass", "fail"] = Field(
        "pass",
        description="what a condition against a version comes to that is not there yet",
    )

    data: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="evaluations on this data set, or version of one, are held against the conditions",
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
        asked = {"conditions": self.conditions, "first": self.first, "name": self.name}
        return digest_of(asked | ({} if self.data is None else {"data": self.data}))


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
    """A version and its metrics as its run has recorded them; a value of None is one that is no number.
    `evaluations`: what was measured of it, newest first, all of them on one version of the data."""

    name: str
    digest: str
    run: str | None
    metrics: Mapping[str, float | None]
    evaluations: Sequence[Evaluated] = ()

    def evaluated(self, condition: Condition, like: Evaluated | None = None) -> Evaluated | None:
        """The newest evaluation that knows what a condition speaks of; rather one that pairs with another."""
        found = [one for one in self.evaluations if condition.keys(intervals(one.report))]
        pairs = [one for one in found if like is not None and one.pairs_with(like)]
        return next(iter(pairs or found), None)


def evaluate(
    gate: Gate, candidate: Measured, others: Mapping[str, Measured], *, at: str, by: str
) -> dict[str, Any]:
    """The gate's result, ready to be stored.

    Args:
        others: by alias, the versions that conditions speak of, as far as they are there.
        at: when, RFC 3339. by: who asked.
    """
    results = [_held(one, gate, candidate, others) for one in gate.parsed()]
    asked = {"name": gate.name, "digest": gate.digest, "conditions": gate.conditions}
    return {
        "gate": asked | ({} if gate.data is None else {"data": gate.data}),
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


def sampled(gate: Gate, report: Mapping[str, Any]) -> set[str]:
    """Of what an evaluation has measured, what the gate compares with another version."""
    known = intervals(report)
    return {key for one in gate.parsed() if one.alias is not None for key in one.keys(known)}


def _held(
    condition: Condition, gate: Gate, candidate: Measured, others: Mapping[str, Measured]
) -> dict[str, Any]:
    """One condition: asked, measured, on what, and whether it holds."""
    evaluated = candidate.evaluated(condition)
    if condition.alias is not None and condition.alias not in others:
        why = f"there is no {condition.alias} version yet"
        used, measured = _worse(candidate, condition)
        if measured is None and evaluated is not None:
            known = intervals(evaluated.report)
            used = condition.keys(known)[0]
            measured = known[used]["value"]
        return _result(condition, used, measured, None, None, gate.first == "pass", why)
    if not condition.of_evaluation:
        recorded = _worse(candidate, condition)[1] is not None
        ours = condition.metric in METRICS if gate.data is not None else not recorded
        if not ours or (evaluated is None and gate.data is None):
            return _recorded(condition, candidate, others)
    if evaluated is None:
        return _result(
            condition, condition.key(), None, condition.limit, None, False,
            _unknown(condition, gate, candidate),
        )  # fmt: skip
    answers = _answers(condition, evaluated, others)
    return _of_answer(condition, min(answers, key=lambda one: one.margin), len(answers))


def _answers(
    condition: Condition, evaluated: Evaluated, others: Mapping[str, Measured]
) -> list[Answer]:
    """One for each slice that is meant."""
    keys = condition.keys(intervals(evaluated.report))
    if condition.alias is None:
        return [comparing.against_limit(condition, key, evaluated) for key in keys]
    other = others[condition.alias]
    found = other.evaluated(condition, evaluated)
    answers = []
    for key in keys:
        if found is None or key not in intervals(found.report):
            why = (
                f"{other.name} ({condition.alias}) has no {key} on {evaluated.data}: "
                f"`qd evaluate {other.name} --data {evaluated.data}`"
            )
            answers.append(
                Answer(key, None, None, False, why, float("-inf"), on=comparing.on(evaluated))
            )
        else:
            answers.append(comparing.against_version(condition, key, evaluated, found))
    return answers


def _unknown(condition: Condition, gate: Gate, candidate: Measured) -> str:
    """Why no evaluation says anything."""
    data = gate.data or "DATASET"
    if not candidate.evaluations:
        on = f" on {gate.data}" if gate.data is not None else ""
        return (
            f"{candidate.name} was not evaluated{on}: `qd evaluate {candidate.name} --data {data}`"
        )
    newest = candidate.evaluations[0]
    option = {"group": "--group-by", "slice": "--slices"}["group" if condition.group else "slice"]
    column = condition.group or condition.column
    hint = f"; evaluate it with {option} {column}" if column is not None else ""
    what = condition.key() + ("...]" if condition.column and condition.value is None else "")
    return f"{candidate.name} has no {what} on {newest.data} ({newest.name}){hint}"


def _recorded(
    condition: Condition, candidate: Measured, others: Mapping[str, Measured]
) -> dict[str, Any]:
    """A condition on what runs have recorded."""
    used, measured = _worse(candidate, condition)
    limit, against = condition.limit, None
    if condition.alias is not None:
        other = others[condition.alias]
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
        limit = condition.shifted(value)
    assert limit is not None
    if measured is None or not math.isfinite(measured):
        known = ", ".join(sorted(candidate.metrics)) or "none"
        why = f"{candidate.name} has no {condition.metric}; it has: {known}"
        return _result(condition, used, None, limit, against, False, why)
    passed = condition.holds(measured, limit)
    opposite = {">=": "<", ">": "<=", "<=": ">", "<": ">="}[condition.op]
    why = f"{used} is {measured:.6g}, {condition.op if passed else opposite} {limit:.6g}"
    if against is not None:
        why += f" ({against['version']} has {against['value']:.6g})"
    return _result(condition, used, measured, limit, against, passed, why)


def _worse(candidate: Measured, condition: Condition) -> tuple[str, float | None]:
    """The metric that is looked at, and its value: an end of its interval where it has one."""
    ending = LOW if condition.least else HIGH
    end = candidate.metrics.get(condition.metric + ending)
    if end is not None:
        return condition.metric + ending, end
    return condition.metric, candidate.metrics.get(condition.metric)


def _of_answer(condition: Condition, answer: Answer, count: int) -> dict[str, Any]:
    """The result of what was measured, of several slices the worst."""
    why = f"the worst of {count}: {answer.why}" if count > 1 else answer.why
    found = _result(
        condition, answer.metric, answer.measured, answer.limit, answer.against, answer.passed, why
    )
    interval = None if answer.interval is None else list(answer.interval)
    return found | {"on": answer.on, "interval": interval}


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
        "on": None,
        "interval": None,
    }


def failures(evidence: Mapping[str, Any]) -> Sequence[str]:
    """Of a result, what does not hold: each condition with the reason."""
    return [f"{one['asked']}: {one['why']}" for one in evidence["conditions"] if not one["passed"]]
