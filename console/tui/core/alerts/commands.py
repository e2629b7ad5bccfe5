"""What a person says to alerts, and the words for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import escape
from typing import Any

from console.text import neutralise
from console.tui.core.alerts.list import key_of
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.draw.format import many, span
from jobs.base.units import parse_duration
from jobs.wire.alertviews import AlertView

SHOWN = 6
LONGEST = 366 * 86_400.0
"""Seconds; the control plane takes no longer silence."""


def acknowledge(alerts: Sequence[AlertView], reason: str) -> Command | Refusal:
    """Say that somebody looks after them."""
    open_ = [alert for alert in alerts if alert["state"] != "RESOLVED"]
    if not open_:
        return _none(alerts, "acknowledge")
    told = many(len(open_), "alert")
    reason = reason.strip()
    effects = [*_names(open_, len(alerts)), "Their notifications are not repeated."]
    if reason:
        effects.append(f"Your reason: {neutralise(reason)}")
    return _command(
        "acknowledge",
        open_,
        f"Acknowledge {told}?",
        tuple(effects),
        f"{told} acknowledged",
        {key_of(one): {**_named(one), "reason": reason} for one in open_},
    )


def silence(alerts: Sequence[AlertView], typed: str) -> Command | Refusal:
    """Tell nobody of them for a while; `typed` is for how long, and why."""
    open_ = [alert for alert in alerts if alert["state"] != "RESOLVED"]
    if not open_:
        return _none(alerts, "silence")
    length, _, reason = typed.strip().partition(" ")
    try:
        seconds = parse_duration(length)
    except ValueError:
        return Refusal("Begin with a duration, such as 1h or 30m; the reason comes after it.")
    if not 0 < seconds <= LONGEST:
        return Refusal("A silence lasts longer than zero seconds, and at most a year.")
    reason = reason.strip()
    if not reason:
        return Refusal("Give a reason after the time: others see that the alert is silenced.")
    told = many(len(open_), "alert")
    return _command(
        "silence",
        open_,
        f"Silence {told} for {span(seconds)}?",
        (
            *_names(open_, len(alerts)),
            "No notifications are sent until then; alerts that still fire at the end are reported.",
            f"Your reason: {neutralise(reason)}",
        ),
        f"{told} silenced for {span(seconds)}",
        {
            key_of(one): {
                "rule": escape(one["rule"]),  # a silence has patterns, and these mean themselves
                "subject": escape(one["subject"]),
                "seconds": seconds,
                "reason": reason,
            }
            for one in open_
        },
    )


def _command(
    verb: str,
    alerts: Sequence[AlertView],
    question: str,
    effects: tuple[str, ...],
    done: str,
    bodies: Mapping[str, Mapping[str, Any]],
) -> Command:
    first, *others = map(key_of, alerts)
    return Command(verb, first, question, effects, done, others=tuple(others), bodies=bodies)


def _named(alert: AlertView) -> dict[str, str]:
    return {"rule": alert["rule"], "subject": alert["subject"]}


def _names(alerts: Sequence[AlertView], chosen: int) -> list[str]:
    out = [f"{neutralise(key_of(one))}: {neutralise(one['text'])}" for one in alerts[:SHOWN]]
    if (more := len(alerts) - SHOWN) > 0:
        out.append(f"and {more} more")
    if over := chosen - len(alerts):
        out.append(f"{many(over, 'other')} of the marked are over already.")
    return out


def _none(alerts: Sequence[AlertView], verb: str) -> Refusal:
    if not alerts:
        return Refusal("There is no alert here.")
    one = len(alerts) == 1
    return Refusal(f"{'It is' if one else 'They are'} over: there is nothing to {verb}.")
