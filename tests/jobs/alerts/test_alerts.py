"""Alerts: when they begin, when they end, and what a file of rules may say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.alerts.course import Alert, Sight, see, step
from jobs.alerts.rules import SHIPPED, Rule, Rules, load_rules
from jobs.base.errors import InvalidInput

SIGHT = Sight("r", "node n1", "it does not answer", "n1")


def rule(**values: Any) -> Rule:
    return Rule.model_validate({"when": "node.lost", **values})


def play(kind: Rule, there: str) -> list[tuple[int, str]]:
    """What is told at each second; `there` has a mark for each in which the condition holds."""
    alert: Alert | None = None
    told: list[tuple[int, str]] = []
    for second, mark in enumerate(there):
        if mark == "x":
            alert = see(kind, alert, SIGHT, float(second), event=False)
        if alert is not None and alert.state != "RESOLVED":
            alert, note = step(kind, alert, float(second), there=mark == "x")
            if note is not None:
                told.append((second, note))
    return told


def test_it_has_to_last_and_to_be_over() -> None:
    steady = rule(**{"for": 3, "clear": 4})
    assert play(steady, "xx..xx..xx......") == []
    assert play(steady, "xxxxxxx.........") == [(3, "firing"), (10, "resolved")]
    assert play(steady, "xxxxxx.x..x.x...........") == [(3, "firing"), (16, "resolved")]
    assert play(rule(clear=0), "x.x.") == [
        (0, "firing"), (1, "resolved"), (2, "firing"), (3, "resolved"),
    ]  # fmt: skip
    assert play(rule(repeat=4), "x" * 10) == [(0, "firing"), (4, "repeat"), (8, "repeat")]


def test_an_event_lasts_for_a_while() -> None:
    kind = Rule.model_validate({"event": "job.stalled", "hold": 5})
    alert = see(kind, None, SIGHT, 0.0, event=True)
    now, note = step(kind, alert, 0.0, there=False)
    assert note == "firing"
    assert now is not None
    again = see(kind, now, replace(SIGHT, text="again"), 3.0, event=True)
    now, note = step(kind, again, 7.9, there=False)
    assert (note, now and now.text) == (None, "again")
    assert now is not None
    now, note = step(kind, now, 8.0, there=False)
    assert note == "resolved"


def test_what_is_hidden_or_acknowledged() -> None:
    kind = rule(repeat=2)
    alert = see(kind, None, SIGHT, 0.0, event=False)
    hidden, note = step(kind, alert, 0.0, there=True, hidden=True)
    assert hidden is not None
    assert (hidden.state, note) == ("FIRING", None)
    shown, note = step(kind, hidden, 1.0, there=True)
    assert note == "firing"
    assert shown is not None
    acked = replace(shown, acked_by="ada")
    assert step(kind, acked, 9.0, there=True)[1] is None
    never, note = step(kind, hidden, 100.0, there=False)
    assert (never and never.state, note) == ("RESOLVED", None)


@settings(max_examples=200, deadline=None)
@given(st.text("x.", max_size=60), st.integers(0, 5), st.integers(0, 5))
def test_what_is_resolved_was_told_before(there: str, pending: int, clear: int) -> None:
    told = play(rule(**{"for": pending, "clear": clear}), there)
    assert [note for _, note in told] == ["firing", "resolved"] * (len(told) // 2) + ["firing"] * (
        len(told) % 2
    )
    for (first, _), (second, _) in zip(told[::2], told[1::2], strict=False):
        assert second - first >= clear


GOOD = """\
channels:
  ops: "json://user:s3cret@127.0.0.1:9/x"
  mail: {url: "mailto://a@b.c", every: 1m}
rules:
  node_lost: {when: node.lost, for: 30s, severity: error, to: ops}
  mine: {event: [job.failed], hidden_by: node_lost, repeat: 1h}
  problem: null
"""


def test_a_file_of_rules(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(GOOD)
    rules = load_rules(path)
    assert rules.to("node_lost") == ("ops",)
    assert rules.to("mine") == rules.to("disk_full") == ("ops", "mail")
    assert rules.every().keys() == SHIPPED.keys() - {"problem"} | {"mine"}
    assert rules.every()["node_lost"].pending == 30.0
    assert "s3cret" not in repr(rules)
    assert Rules().every() == SHIPPED


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("for: 30s", "fro: 30s", "alerts.yaml:5: rules.node_lost.fro: unknown field"),
        ("when: node.lost,", "when: node.gone,", "did you mean node.lost"),
        ("to: ops", "to: opps", "alerts.yaml:5: rules.node_lost.to: there is no channel 'opps'"),
        ("hidden_by: node_lost", "hidden_by: node_los", "there is no rule 'node_los'"),
        (
            "event: [job.failed]",
            "event: [job.failed], when: problem",
            "found both of when and event",
        ),
        ("every: 1m", "every: soon", "alerts.yaml:3: channels.mail.every: found 'soon'"),
        (GOOD, "- a", "found a list; allowed: channels and rules"),
    ],
)
def test_one_clear_error(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InvalidInput, match=told) as error:
        load_rules(path)
    assert "s3cret" not in f"{error.value} {error.value.hint} {error.value.details}"
