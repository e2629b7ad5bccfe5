"""What rows of the audit log say to people."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.models.story import of_audit, of_run


@pytest.mark.parametrize(
    ("action", "target", "data", "text", "why", "who", "tone"),
    [
        ("model.gate", "digits:3", {"gate": "g", "passed": False, "failures": ["acc > 1: it is 0"]},
         "digits:3 was stopped by gate g", "acc > 1: it is 0", "ada", "bad"),
        ("model.approve", "digits:3", {"comment": "looks right"},
         "digits:3 approved", "looks right", "ada", "good"),
        ("model.alias", "digits", {"alias": "production", "before": "digits:1", "after": "digits:2"},
         "production of digits is digits:2 (was digits:1)", "", "ada", ""),
        ("pipeline.triggered", "p2",
         {"schedule": "loop", "cause": "digits@2", "on": {"what": "data", "name": "digits"}},
         "p2 started by schedule loop", "on data digits: digits@2", "ada", ""),
        ("rollout.started", "digits@production", {"text": "digits 2 to production, at once, by ada"},
         "digits 2 to production, at once", "", "ada", ""),
        ("rollout.rolled_back", "digits@production", {"text": "digits 2 is rolled back: it errs more"},
         "digits 2 is rolled back", "it errs more", "", "bad"),
        ("rollout.aborted", "digits@production", {"text": "digits 2 is aborted: aborted by ada"},
         "digits 2 is aborted", "aborted by ada", "ada", "bad"),
        ("service.deploy.refused", "digits:1@production", {"why": "it needs 1 approval"},
         "refused: service.deploy digits:1@production", "it needs 1 approval", "ada", "bad"),
    ],
)  # fmt: skip
def test_a_row_is_told_in_words(
    action: str, target: str, data: dict[str, Any], text: str, why: str, who: str, tone: str
) -> None:
    told = of_audit(7, 0.0, "ada", action, target, data)
    assert (told["text"], told["why"], told["who"], told["tone"]) == (text, why, who, tone)
    assert told["evidence"] == {"audit": "7"}
    assert told["about"] == target


def test_a_step_and_its_evidence_are_named() -> None:
    data = {
        "digest": "sha256:1",
        "evidence": "sha256:2",
        "pipeline": "p3",
        "step": "gate",
        "gate": "g",
    }
    told = of_audit(7, 0.0, "ada", "model.gate", "digits:3", {**data, "passed": True})
    assert (told["pipeline"], told["step"]) == ("p3", "gate")
    assert told["evidence"] == {"audit": "7", "evidence": "sha256:2", "digest": "sha256:1"}


def test_a_run_says_on_what_and_how_well() -> None:
    told = of_run(0.0, "j2.1", "ada", {"acc": 0.98765, "loss": None}, {"train": "digits@2"}, "acc")
    assert told["text"] == "j2.1 trained on digits@2: acc 0.9877"
    told = of_run(0.0, "j2.1", "ada", {"acc": 0.5, "loss": None}, {}, None)
    assert told["text"] == "j2.1 trained: acc 0.5"
