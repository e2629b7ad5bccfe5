"""`stream:` of a job: both of its sides mean the same by it."""

from __future__ import annotations

from agents.controller.core.plans import launch_plan
from agents.node.worker.quarterdeck_stream.rules import Rules
from agents.node.worker.quarterdeck_stream.settings import Settings
from jobs.life.lifecycle import Allocation, Attempt
from jobs.spec.job import JobSpec, job_in
from jobs.spec.yamlfile import parse

FULL = """\
command: python learn.py
stream:
  source: {folder: /data/readings}
  expect:
    closed: true
    columns:
      heat: {type: number, required: true, min: -40, max: 200}
      unit: {allowed: [C, F], pattern: "[CF]"}
      at: {type: time, min: 2026-01-01}
  commit: {records: 500, every: 2m}
  release: {records: 100000}
  on_drift: release
  drift: {size: 0.2, between: 1e5}
  score: mae
  window: 200
  rejects: 1MiB
"""


def told(spec: JobSpec) -> Settings:
    """What the script's side makes of it, by the way that it takes: stored, and in the environment."""
    stored = JobSpec.from_json(JobSpec.from_json(spec.to_json()).to_json())
    assert stored == spec
    plan = launch_plan(
        key="k", job=1, attempt=Attempt(1, 7, "STAGING", (Allocation("n1"),)), node_rank=0, spec=stored,
        snapshot=None, requirements=None, user="mira", data={},
    )  # fmt: skip
    text = plan["env"]["QD_STREAM"]
    assert text is not None
    return Settings.from_json(text)


def test_everything_reaches_the_script() -> None:
    spec = job_in(parse(FULL, "job.yaml"))
    assert spec.endless
    found = told(spec)
    assert found.source == {"folder": "/data/readings"}
    assert (found.commit_records, found.commit_seconds, found.release_records) == (
        500,
        120,
        100_000,
    )
    assert (found.on_drift, found.drift_size, found.drift_between) == ("release", 0.2, 100_000)
    assert (found.score, found.window, found.rejects, found.end) == ("mae", 200, 1 << 20, False)
    rules = Rules(found.expect)
    good = {"heat": 20.5, "unit": "C", "at": "2026-02-01"}
    assert rules.problem(good) == ""
    assert rules.problem({**good, "heat": 201}) == "heat is 201, above 200"
    assert rules.problem({**good, "unit": "K"}) == "unit is 'K', which is not allowed"
    assert rules.problem({**good, "at": "2025-02-01"}).endswith("below 2026-01-01")
    assert rules.problem({**good, "x": 1}) == "x is not expected"


def test_a_broker_reaches_the_script() -> None:
    text = "{nats: 'tls://broker:4223', stream: readings, subject: readings.>}"
    spec = job_in(parse(f"command: x\nstream: {{source: {text}}}", "job.yaml"))
    found = told(spec)
    assert found.kind == "nats"
    assert found.source == {
        "nats": "tls://broker:4223", "stream": "readings", "subject": "readings.>"
    }  # fmt: skip


def test_both_sides_have_the_same_defaults() -> None:
    spec = job_in(parse("command: x\nstream: {source: {folder: /in}, end: true}", "job.yaml"))
    assert spec.stream is not None and not spec.endless
    found, wanted = told(spec), spec.stream
    assert (found.commit_records, found.commit_seconds) == (
        wanted.commit.records,
        wanted.commit.every,
    )
    assert (found.drift_size, found.drift_between) == (wanted.drift.size, wanted.drift.between)
    assert (found.window, found.rejects, found.score) == (
        wanted.window,
        wanted.rejects,
        wanted.score,
    )
    assert (found.on_drift, found.end, found.expect) == (wanted.on_drift, True, {})
