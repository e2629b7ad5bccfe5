"""What a report tells, asked of the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from console.cli.ids import run_path, target
from console.client import Client, segment
from jobs.base.errors import InvalidInput, NotFound
from jobs.runs.differences import (
    Difference,
    file_differences,
    metric_differences,
    spec_differences,
)

if TYPE_CHECKING:
    from jobs.wire.dataviews import DataFile
    from jobs.wire.flowviews import PipelineDetail
    from jobs.wire.modelviews import ModelDetail, ModelView
    from jobs.wire.runviews import RunPage
    from jobs.wire.storyviews import StoryView
    from jobs.wire.sweepviews import CurveView, SweepDetail, TrialView
    from jobs.wire.views import JobDetail, SeriesPoint

MOST_RUNS = 200
_POINTS = 60_000
"""Points of all curves of all runs together: what keeps a page of a hundred runs below a megabyte."""
_FEWEST, _MOST = 20, 400
_CHARTS = 16
"""Metrics that get a chart; the others are in the table."""
_TRIALS = 200
_VERSIONS = 30

Told = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Run:
    id: str
    detail: JobDetail
    series: Mapping[str, Sequence[SeriesPoint]]


@dataclass(frozen=True, slots=True)
class Sweep:
    detail: SweepDetail
    trials: Sequence[TrialView]
    importance: Mapping[str, float]
    curves: Sequence[CurveView]


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    versions: Sequence[ModelDetail]  # newest first
    total: int
    story: StoryView


@dataclass(frozen=True, slots=True)
class Differences:
    """In what runs differ; each difference has a value for every run."""

    asked: Sequence[Difference]
    code: Sequence[Difference]
    metrics: Sequence[Difference]
    same: int  # metrics with the same last value


@dataclass(slots=True)
class Report:
    runs: list[Run] = field(default_factory=list)
    differences: Differences | None = None
    sweeps: list[Sweep] = field(default_factory=list)
    pipelines: list[PipelineDetail] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)


def gather(client: Client, subjects: Sequence[str], told: Told = lambda _: None) -> Report:
    """Everything about the subjects: ids of runs (j3, j3.2, last), sweeps (s1), pipelines (p2), and names
    of models. `told` gets a few words about each before it is asked for.

    Raises:
        NotFound: there is no such thing.
    """
    report, jobs = Report(), []
    for subject in dict.fromkeys(subjects):
        told(subject)
        if re.fullmatch(r"s\d+", subject):
            report.sweeps.append(_sweep(client, subject))
        elif re.fullmatch(r"p\d+", subject):
            report.pipelines.append(
                cast("PipelineDetail", client.get(f"/v1/pipelines/{segment(subject)}"))
            )
        elif re.fullmatch(r"j?\d+([./].*)?|last", subject):
            jobs.append(subject)
        else:
            report.models.append(_model(client, subject))
    if len(jobs) > MOST_RUNS:
        raise InvalidInput(
            f"{len(jobs)} runs are more than the {MOST_RUNS} that fit a page",
            "Choose fewer, as with --filter and --limit.",
        )
    for subject in jobs:
        told(subject)
        report.runs.append(_run(client, subject, len(jobs)))
    if len(report.runs) > 1:
        report.differences = _differences(client, report.runs)
    return report


def matching(client: Client, expression: str, limit: int) -> list[str]:
    """Ids of runs that a filter finds, newest first."""
    found: list[str] = []
    before = None
    while len(found) < limit:
        page = cast(
            "RunPage",
            client.get(
                "/v1/runs", filter=expression, before=before, limit=min(100, limit - len(found))
            ),
        )
        found += [run["id"] for run in page["runs"]]
        before = page["next"]
        if before is None:
            break
    return found


def _run(client: Client, subject: str, runs: int) -> Run:
    detail = cast("JobDetail", client.get(target(subject).path()))
    count = max(1, min(len(detail["metrics"]), _CHARTS))
    points = max(_FEWEST, min(_MOST, _POINTS // (runs * count)))
    series: dict[str, Any] = {}
    if detail["attempts"]:
        series = client.get(run_path(subject, "series"), points=points)
    shown = dict(list(series.items())[:_CHARTS])
    attempt = target(subject).attempt
    name = detail["id"] if attempt is None else f"{detail['id']}.{attempt}"
    return Run(name, detail, shown)


def code_of(client: Client, detail: JobDetail) -> list[DataFile]:
    """The files of a job's work folder; none when they have been pruned."""
    try:
        return cast("list[DataFile]", client.get(f"/v1/jobs/{segment(detail['id'])}/code"))
    except NotFound:
        return []


def commit_of(detail: JobDetail) -> str:
    git = detail["git"]
    if git is None:
        return ""
    return git["commit"][:12] + (" with changes" if git["dirty"] else "")


def _differences(client: Client, runs: Sequence[Run]) -> Differences:
    details = [run.detail for run in runs]
    asked = spec_differences([detail["spec"] for detail in details])
    commits = tuple(commit_of(detail) for detail in details)
    if len(set(commits)) > 1:
        asked = [Difference("commit", commits), *asked]
    metrics, same = metric_differences([detail["metrics"] for detail in details])
    return Differences(asked, code_differences(client, details), metrics, same)


def code_differences(client: Client, details: Sequence[JobDetail]) -> list[Difference]:
    """Files that are not the same in all runs; each value is a digest, or None where there is none."""
    digests: dict[str, Mapping[str, str]] = {}
    keys = [detail["snapshot"] or detail["id"] for detail in details]
    for key, detail in zip(keys, details, strict=True):
        if key not in digests:
            digests[key] = {
                file["path"]: file["sha256"] or f"link {file['link']}"
                for file in code_of(client, detail)
            }
    return file_differences([digests[key] for key in keys])


def _sweep(client: Client, subject: str) -> Sweep:
    path = f"/v1/sweeps/{segment(subject)}"
    detail = cast("SweepDetail", client.get(path))
    trials = cast("list[TrialView]", client.get(f"{path}/trials"))
    curves = cast("list[CurveView]", client.get(f"{path}/curves", points=40, limit=_TRIALS))
    return Sweep(detail, trials, client.get(f"{path}/importance"), curves)


def _model(client: Client, subject: str) -> Model:
    name = subject.partition(":")[0].partition("@")[0]
    views = cast("list[ModelView]", client.get("/v1/models", name=name, archived=True))
    if not views:
        raise NotFound(
            f"no model '{name}'", "Ids look like j3, s1 or p2; `qd models` lists the models."
        )
    refs = [subject] if subject != name else [view["id"] for view in views[:_VERSIONS]]
    versions = [cast("ModelDetail", client.get(f"/v1/models/{segment(ref)}")) for ref in refs]
    story = cast("StoryView", client.get(f"/v1/stories/{segment(name)}", limit=200))
    return Model(name, versions, len(views), story)
