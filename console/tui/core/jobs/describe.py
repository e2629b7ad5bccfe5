"""All that a job was asked for and has come from, as a page. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from console.text import neutralise
from console.tui.core.draw.facts import fact, section
from console.tui.core.draw.format import (
    age,
    coarse,
    count,
    job_glyph,
    job_tone,
    job_word,
    many,
    moment,
    number,
)
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, line
from jobs.wire.views import JobDetail, JobView


@dataclass(frozen=True, slots=True)
class Origin:
    """What a job belongs to: a trial of a sweep, or a step of a pipeline."""

    kind: Literal["sweep", "pipeline"]
    id: str
    part: str  # the trial's number, or the step's name

    @property
    def words(self) -> str:
        return f"{'trial' if self.kind == 'sweep' else 'step'} {self.part} of {self.id}"


def origin(job: JobView) -> Origin | None:
    """The sweep or the pipeline that made it; None of one that a person submitted."""
    tags = job["tags"]
    if sweep := tags.get("sweep", ""):
        return Origin("sweep", sweep, tags.get("trial", "?"))
    if pipeline := tags.get("pipeline", ""):
        return Origin("pipeline", pipeline, tags.get("step", "?"))
    return None


def describe_lines(job: JobDetail, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """What it is and belongs to, what runs, on what, with which parameters, environment and data."""
    spec, made = job["spec"], origin(job)
    gang = f"{many(job['ranks'], 'rank')} on {many(job['nodes'], 'node')}"
    out = [
        line(
            (job["id"], "strong"),
            f" {neutralise(job['name'])}  ",
            (f"{job_glyph(job, glyphs)} {job_word(job).lower()}", job_tone(job)),
        ),
        *fact("reason", job["reason"], width),
        *fact("belongs to", made.words if made else "", width, "key"),
        *fact("user", job["user"], width),
        *fact("asks for", f"{gang}, {count(job['gpus'])} GPUs, {count(job['cpus'])} CPUs, "
              f"priority {job['priority']}", width),
        *fact("nodes", ", ".join(job["placed_on"]), width),
        *fact("times", _times(job, now), width),
        *fact("attempts", f"{job['attempt']}, {many(job['restarts'], 'restart')}", width),
        *fact("tags", _pairs(job["tags"]), width),
    ]  # fmt: skip
    program = [
        *fact("command", _text(spec.get("command")), width, "strong"),
        *fact("kind", str(spec.get("kind") or job["kind"]), width),
        *fact("workdir", str(spec.get("workdir") or ""), width),
        *fact("python", str(spec.get("python") or ""), width),
        *fact("needs", _text(spec.get("requirements")), width),
        *fact("image", str(spec.get("image") or ""), width),
        *fact("digest", job.get("image", ""), width),
        *fact("mounts", _text(spec.get("mounts")), width),
        *fact("git", _git(job), width),
        *fact("snapshot", job["snapshot"] or "", width),
    ]
    out += section("Program", program)
    out += section("Parameters", _rows(spec.get("params"), width))
    out += section("Data", _rows(spec.get("data"), width))
    out += section("Environment", _rows(spec.get("env"), width))
    out += section("Secrets", fact("names", _text(spec.get("secrets")), width))
    out += section("Outputs", _rows(spec.get("outputs"), width))
    last = {name: number(held["value"]) for name, held in job["metrics"].items()}
    return out + section("Metrics", _rows(last, width))


def _times(job: JobDetail, now: float) -> str:
    begin, end = moment(job["started_at"]), moment(job["ended_at"])
    parts = [f"submitted {age(job['submitted_at'], now)} ago"]
    if begin is not None:
        parts.append(f"{'ran' if end is not None else 'runs for'} {coarse((end or now) - begin)}")
    return ", ".join(parts)


def _git(job: JobDetail) -> str:
    git = job["git"]
    if git is None:
        return ""
    return f"{git['commit'][:12]} {git['branch']}{' with changes' if git['dirty'] else ''}"


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _text(value: Any) -> str:
    if not value:
        return ""
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rows(values: Any, width: int) -> list[Line]:
    """A line for each name and value; names longer than their column keep their end on a line of theirs."""
    if not isinstance(values, Mapping):
        return [row for one in values or () for row in fact("", _text(one), width)]
    out: list[Line] = []
    for name, value in values.items():
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows = fact(neutralise(str(name)), said or '""', width)
        if len(str(name)) > 10:
            out.append(line((f"  {neutralise(str(name))}", "dim")))
            rows = fact("", said or '""', width)
        out += rows
    return out
