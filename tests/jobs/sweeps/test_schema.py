from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # comes with ray

from jobs.sweeps.schema import job_schema, main

PUBLISHED = Path(__file__).parents[3] / "docs" / "job.schema.json"


def test_the_published_schema_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert capsys.readouterr().out == PUBLISHED.read_text(), (
        "run: python -m jobs.sweeps.schema > docs/job.schema.json"
    )


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("command: x", True),
        ("{command: [a, 1], env: {A: 1}, timeout: 2h, resources: {memory: 8GiB, gpu: 0.5}}", True),
        ("{command: x, timeout: 90, lease: 1h30m, tags: {a: b}, seed: 1}", True),
        ("{name: x}", False),
        ("{command: x, nodes: 0}", False),
        ("{command: x, nods: 1}", False),
        ("{command: x, timeout: soon}", False),
        ("{command: x, resources: {gpus: 1}}", False),
        ("{command: x, objective: {metric: a, goal: best}}", False),
    ],
)
def test_editors_see_what_is_allowed(text: str, valid: bool) -> None:
    Draft202012Validator.check_schema(job_schema())
    assert (
        Draft202012Validator(json.loads(json.dumps(job_schema()))).is_valid(yaml.safe_load(text))
        == valid
    )
