"""`qd story`: drawn, as Markdown, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.console.fake_controller import FakeController

STORY: dict[str, Any] = {
    "model": "digits",
    "versions": 2,
    "aliases": {"production": "digits:1"},
    "serving": [{"service": "digits", "target": "production", "version": "1"}],
    "left_out": 3,
    "happenings": [
        {
            "at": "2026-11-29T12:45:24.000Z",
            "kind": "model.gate",
            "about": "digits:2",
            "text": "digits:2 was stopped by gate release\x1b[2J",
            "why": "acc | loss: <b>0.4</b>",
            "who": "ada",
            "tone": "bad",
            "evidence": {"audit": "36", "evidence": "sha256:b9143edc6223aaaaaaaa"},
            "pipeline": "p3",
            "step": "gate",
        }
    ],
}


def test_the_story_in_three_forms(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    controller.on("GET /v1/stories/digits", STORY)
    drawn = qd("story", "digits").out
    assert "digits  2 versions; production is digits:1; digits@production serves version 1" in drawn
    assert "3 older happenings are left out" in drawn
    assert "ada, by p3 gate" in drawn
    assert "audit 36, evidence sha256:b9143edc6223" in drawn
    assert "\x1b" not in drawn
    assert json.loads(qd("story", "digits", "--json").out) == STORY
    target = tmp_path / "story.md"
    result = qd("story", "digits", "-o", str(target))
    assert (result.code, result.out) == (0, "")
    page = target.read_text()
    assert page.startswith("# The story of digits\n")
    assert "✗ digits:2 was stopped by gate release" in page
    assert r"| acc \| loss: \<b\>0.4\</b\> | ada, by p3 gate |" in page
    assert "sha256:b9143edc6223aaaaaaaa" in page
    assert qd("story", "digits", "-o", str(tmp_path / "no" / "x.md")).code == 2
