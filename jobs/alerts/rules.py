"""Rules of alerts and channels for them: the file `alerts.yaml` beside the config file.

Rules that are shipped hold without a file; one of the same name in the file takes its place, and
`name: null` takes it away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from jobs.base.units import show
from jobs.spec import fields, problems, yamlfile
from jobs.spec.problems import Problem

Severity = Literal["info", "warning", "error"]
Condition = Literal["node.lost", "node.quarantined", "problem", "disk.full", "queue.stuck"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Kinds = Annotated[
    tuple[fields.Text, ...],
    Field(strict=False, max_length=32),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]


class Rule(_Model):
    """What raises an alert: a condition, as long as it lasts, or events."""

    when: Condition | None = Field(None, description="a condition, looked at once a second")
    event: Kinds = Field((), description="kinds of events, such as job.stalled")
    until: Kinds = Field((), description="kinds of events that end it, of the same job or node")
    hold: fields.Timeout = Field(300.0, description="without such an event, it ends so long after")
    pending: fields.Patience = Field(
        0.0, alias="for", description="how long it must last before anybody is told"
    )
    clear: fields.Patience = Field(10.0, description="how long it must be over to be resolved")
    severity: Severity = "warning"
    repeat: fields.Timeout | None = Field(
        None, description="told again so often, unless somebody has acknowledged it"
    )
    hidden_by: Kinds = Field((), description="rules that hide it while they fire for the same node")
    to: Kinds | None = Field(None, description="channels; all of them by default")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.when is None) == (not self.event):
            found = "neither" if self.when is None else "both"
            raise ValueError(f"found {found} of when and event; allowed: one of the two")
        return self


class Channel(_Model):
    """Where notes go: an Apprise URL, which may hold secrets and is never shown."""

    url: SecretStr
    every: fields.Patience = Field(
        15.0, description="at most one message in so long; what comes meanwhile goes together"
    )


def _channel(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class Rules(_Model):
    channels: dict[fields.Identifier, Annotated[Channel, BeforeValidator(_channel)]] = {}
    rules: dict[fields.Identifier, Rule | None] = {}

    def every(self) -> dict[str, Rule]:
        """The rules that hold."""
        found: dict[str, Rule | None] = {**SHIPPED, **self.rules}
        return {name: rule for name, rule in found.items() if rule is not None}

    def to(self, rule: str) -> tuple[str, ...]:
        """The channels of a rule."""
        named = self.every()[rule].to
        return tuple(self.channels) if named is None else named


def _rule(**values: Any) -> Rule:
    return Rule.model_validate(values)


SHIPPED: dict[str, Rule] = {
    "node_lost": _rule(when="node.lost", severity="error", **{"for": 10}),
    "node_quarantined": _rule(when="node.quarantined"),
    "problem": _rule(when="problem", severity="error", hidden_by="node_lost", **{"for": 10}),
    "disk_full": _rule(when="disk.full", clear=60, severity="error", **{"for": 30}),
    "queue_stuck": _rule(when="queue.stuck", clear=60),
    "job_stalled": _rule(
        event="job.stalled", until=["job.unstalled", "job.succeeded", "job.failed", "job.cancelled"],
        hidden_by="node_lost", hold="1d",
    ),
    "sweep_trouble": _rule(event=["sweep.trouble", "sweep.failed"]),
    "pipeline_failed": _rule(event="pipeline.failed"),
    "drift": _rule(event="monitor.drift", until="monitor.settled", hold="30d"),
    "schedule_missed": _rule(event=["schedule.missed", "schedule.skipped"]),
}  # fmt: skip


def load_rules(path: Path) -> Rules:
    """Read `alerts.yaml`. Raises InvalidInput, `file:line: field: what was found; allowed: ...`."""
    document = yamlfile.load(path)
    data = document.data if document.data is not None else {}
    if not isinstance(data, dict):
        what = Problem((), f"found {show(data)}; allowed: channels and rules")
        raise problems.in_document([what], document)
    try:
        rules = Rules.model_validate(data)
    except ValidationError as error:
        raise problems.in_document(problems.find(error, Rules), document) from None
    found = [
        Problem(("rules", name, "to"), f"there is no channel {show(channel)}")
        for name, rule in rules.rules.items()
        for channel in (rule.to or () if rule is not None else ())
        if channel not in rules.channels
    ]
    found += [
        Problem(("rules", name, "hidden_by"), f"there is no rule {show(other)}")
        for name, rule in rules.rules.items()
        for other in (rule.hidden_by if rule is not None else ())
        if other not in rules.every()
    ]
    if found:
        raise problems.in_document(found, document)
    return rules
