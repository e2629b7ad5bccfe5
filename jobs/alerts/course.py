"""The course of one alert: pending, firing, resolved. Pure.

What flickers raises nothing until it has lasted for `for`, and is over only when it has been away for
`clear`; so one that comes and goes is told once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from jobs.alerts.rules import Rule

AlertState = Literal["PENDING", "FIRING", "RESOLVED"]
Told = Literal["firing", "resolved", "repeat"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule about one thing. Times are unix times.

    Args:
        subject: what it is about: `node n1`, `j12`.
        seen: when it was there last.
        until: of events: when it ends unless another one comes.
        told: when people were told last; None while they were not.
        acked_by, acked_why: who looks after it, and what they said.
    """

    rule: str
    subject: str
    state: AlertState
    text: str
    since: float
    seen: float
    node: str = ""
    until: float | None = None
    told: float | None = None
    acked_by: str = ""
    acked_why: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.rule, self.subject


def covers(rules: str, subjects: str, rule: str, subject: str) -> bool:
    """Whether a silence of these patterns, as of a shell, is one of this alert."""
    return fnmatchcase(rule, rules) and fnmatchcase(subject, subjects)


@dataclass(frozen=True, slots=True)
class Sight:
    """Something that a rule is about, as it is now."""

    rule: str
    subject: str
    text: str
    node: str = ""


def see(rule: Rule, alert: Alert | None, sight: Sight, now: float, *, event: bool) -> Alert:
    """A rule applies: the alert as it is from now on. `event`: it lasts for the rule's `hold`."""
    until = now + rule.hold if event else None
    if alert is None or alert.state == "RESOLVED":
        return Alert(sight.rule, sight.subject, "PENDING", sight.text, now, now, sight.node, until)
    return replace(alert, text=sight.text, seen=now, until=until)


def step(
    rule: Rule, alert: Alert, now: float, *, there: bool, hidden: bool = False
) -> tuple[Alert | None, Told | None]:
    """What time makes of an alert; None when it is gone without anybody having been told.

    Args:
        there: what it is about is there in this moment.
        hidden: another alert hides it, or a silence: nobody is told.
    """
    if alert.until is not None:
        there = now < alert.until
    if there:
        alert = replace(alert, seen=max(alert.seen, now))
    if alert.state == "PENDING":
        if not there:
            return None, None
        if now - alert.since < rule.pending:
            return alert, None
        alert = replace(alert, state="FIRING")
    if alert.state == "FIRING":
        if not there and now - alert.seen >= (0.0 if alert.until is not None else rule.clear):
            resolved = replace(alert, state="RESOLVED")
            return resolved, None if alert.told is None else "resolved"
        if hidden:
            return alert, None
        if alert.told is None:
            return replace(alert, told=now), "firing"
        again = rule.repeat is not None and not alert.acked_by and now - alert.told >= rule.repeat
        return (replace(alert, told=now), "repeat") if again else (alert, None)
    return alert, None
