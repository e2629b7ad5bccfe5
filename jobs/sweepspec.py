"""What a person asks to be searched: one validated, immutable `SweepSpec`.

Read from a file (`load_sweep`) or from the API (`SweepSpec.from_json`), with the same checks and the
same words. What fields say of each other (a condition on a parameter, an option of a sampler) is
checked after each of them is well-formed, and is told at its own place as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

from jobs import fields, problems, searchspace, strategies, yamlfile
from jobs.command import Scalar, fill
from jobs.errors import InvalidInput
from jobs.problems import Problem
from jobs.searchspace import MAX_GRID, Parameter
from jobs.spec import JobSpec, Objective, job_in, load_job
from jobs.strategies import PRUNERS, SAMPLERS, Strategy
from jobs.units import show
from jobs.yamlfile import Document, KeyPath

MAX_TRIALS = 1_000_000
MAX_PARALLEL = 10_000


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SweepObjective(Objective):
    """A metric that trials log on rank 0, and which way is better."""

    take: Literal["last", "best"] = Field(
        "last", description="which of a trial's values counts: its last one, or its best"
    )


class Budget(_Model):
    """When a sweep ends though trials are left; those in flight are stopped then."""

    time: fields.Timeout | None = Field(None, description="since its start, pauses left out")
    gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="GPUs times hours of all trials together"
    )


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict | Objective) else value


def _strategy_schema(names: dict[str, strategies.Entry]) -> WithJsonSchema:
    options = {
        name: {"type": ["object", "null"], "properties": {key: {} for key in entry.options}}
        for name, entry in names.items()
    }
    mapping = {
        "type": "object",
        "properties": options,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return WithJsonSchema({"anyOf": [{"enum": list(names)}, mapping]})


_parsed = BeforeValidator(strategies.parse)
_serialised = PlainSerializer(Strategy.to_json)
Sampler = Annotated[Strategy, _parsed, _serialised, _strategy_schema(SAMPLERS)]
Pruner = Annotated[Strategy, _parsed, _serialised, _strategy_schema(PRUNERS)]
Objectives = Annotated[
    tuple[SweepObjective, ...],
    Field(strict=False, max_length=8),
    BeforeValidator(_as_list),
]


class SweepSpec(_Model):
    """A sweep: one job, run with many values of its parameters."""

    name: fields.Name = Field("", description="by default, the job's")
    job: JobSpec = Field(description="a job file beside this one, or the job itself")
    space: Annotated[dict[fields.Identifier, Parameter], Field(min_length=1, max_length=256)]
    objective: Objectives = Field((), description="one or a list; by default, the job's")
    sampler: Sampler = Field(Strategy("tpe"), description="by default tpe, or nsga2 for several")
    pruner: Pruner = Strategy("none")
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = Field(
        None, description="how many in all; a grid ends by itself"
    )
    parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = 1
    budget: Budget = Budget()
    retries: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="how often a trial is run again after it was lost to the infrastructure"
    )
    enqueue: Annotated[
        tuple[dict[str, fields.Param], ...], Field(strict=False, max_length=10_000)
    ] = Field((), description="points to try first; what a point leaves out is drawn")
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None

    def model_post_init(self, _context: Any) -> None:
        """Defaults that follow from other fields; kept out of `model_fields_set`."""
        if not self.name:
            self.__dict__["name"] = self.job.name
        if "objective" not in self.model_fields_set and self.job.objective is not None:
            inherited = SweepObjective.model_validate(self.job.objective.model_dump())
            self.__dict__["objective"] = (inherited,)
        if "sampler" not in self.model_fields_set and len(self.objective) > 1:
            self.__dict__["sampler"] = Strategy("nsga2")

    @property
    def limit(self) -> int | None:
        """How many trials there will be at most; None when only a budget ends the sweep."""
        if self.sampler.name != "grid":
            return self.trials
        size = sum(1 for _ in searchspace.grid(self.space)) + len(self.enqueue)
        return size if self.trials is None else min(size, self.trials)

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(objective.metric for objective in self.objective)

    def job_of(self, sweep: str, number: int, params: dict[str, Scalar]) -> JobSpec:
        """The job of one trial: named and tagged for it, with its parameters."""
        job = self.job.filled(params)
        first = self.objective[0]
        values = job.model_dump(exclude_unset=True) | {
            "name": f"{self.name[:50]}-{number}",
            "tags": {**job.tags, "sweep": sweep, "trial": str(number)},
            "objective": {"metric": first.metric, "goal": first.goal},
        }
        return JobSpec.from_json(values)

    def to_json(self) -> dict[str, Any]:
        """All fields, with defaults. `from_json` reads it back as an equal."""
        data = self.model_dump(mode="json")
        data["space"] = {
            name: parameter.model_dump(mode="json", exclude_defaults=True)
            for name, parameter in self.space.items()
        }
        return data

    @classmethod
    def from_json(cls, data: Any) -> SweepSpec:
        """Raises InvalidInput naming every field that is wrong."""
        try:
            spec = cls.model_validate(data)
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "sweep") from None
        found = faults(spec)
        if found:
            raise problems.in_data(found, "sweep")
        return spec


def faults(spec: SweepSpec) -> list[Problem]:
    """What is wrong between fields that are each well-formed."""
    found = _below(("space",), searchspace.faults(spec.space))
    found += _below(("sampler",), strategies.faults(spec.sampler, SAMPLERS, "sampler"))
    found += _below(("pruner",), strategies.faults(spec.pruner, PRUNERS, "pruner"))
    if not found:
        found = [*_strategies_fit(spec), *_trials_end(spec)]
        found += [*_points_fit(spec), *_values_fit_the_command(spec)]
    return found


def _below(path: KeyPath, found: list[Problem]) -> list[Problem]:
    return [Problem((*path, *problem.path), problem.message) for problem in found]


def _strategies_fit(spec: SweepSpec) -> list[Problem]:
    found = []
    several = len(spec.objective) > 1
    if not spec.objective:
        found.append(Problem(("objective",), "missing; the job has none either"))
    for number, metric in enumerate(spec.metrics):
        if metric in spec.metrics[:number]:
            what = f"{metric} is listed twice"
            found.append(Problem(("objective", number, "metric"), what))
    if several and not PRUNERS[spec.pruner.name].several:
        what = (
            f"{spec.pruner.name} compares trials by one objective, and there are "
            f"{len(spec.objective)}; allowed: none, or one objective"
        )
        found.append(Problem(("pruner",), what))
    if several and not SAMPLERS[spec.sampler.name].several:
        able = ", ".join(name for name, entry in SAMPLERS.items() if entry.several)
        what = f"{spec.sampler.name} takes one objective; allowed for several: {able}"
        found.append(Problem(("sampler",), what))
    return found


def _trials_end(spec: SweepSpec) -> list[Problem]:
    if spec.sampler.name == "grid":
        endless = [name for name, item in spec.space.items() if item.values() is None]
        if endless:
            what = "a grid needs a step or choices for every parameter"
            return [Problem(("space", name), what) for name in endless]
        for count, _ in enumerate(searchspace.grid(spec.space), start=1):
            if count > MAX_GRID:
                what = f"the grid has more than {MAX_GRID} points; allowed: larger steps"
                return [Problem(("space",), what)]
    elif spec.trials is None and spec.budget.time is None and spec.budget.gpu_hours is None:
        return [Problem((), "the sweep would never end; allowed: with trials or a budget")]
    return []


def _points_fit(spec: SweepSpec) -> list[Problem]:
    found = []
    for number, point in enumerate(spec.enqueue):
        for name, value in point.items():
            path = ("enqueue", number, name)
            if name not in spec.space:
                what = f"no parameter of the space; allowed: {', '.join(spec.space)}"
                found.append(Problem(path, what))
            elif what := spec.space[name].problem_with(value):
                found.append(Problem(path, what))
    return found


def _values_fit_the_command(spec: SweepSpec) -> list[Problem]:
    """A choice that cannot be quoted in the command should not wait for its trial to say so."""
    found = []
    for name, parameter in spec.space.items():
        for number, choice in enumerate(parameter.choices or ()):
            try:
                fill(spec.job.command, {name: choice})
            except InvalidInput as error:
                path = ("space", name, "choices", number)
                found.append(Problem(path, f"{error.message}; allowed: a simple word"))
    return found


def load_sweep(path: Path) -> tuple[SweepSpec, Path]:
    """Read a sweep file.

    Returns:
        The sweep, and the folder from which its job's paths count: that of the job's own file, or of
        the sweep's.

    Raises:
        InvalidInput: `file:line: field: what was found; allowed: ...`.
    """
    document = yamlfile.load(path)
    data, folder = document.data, path.absolute().parent
    if not isinstance(data, dict):
        read = "the file is empty" if data is None else f"found {show(data)}"
        what = Problem((), f"{read}; allowed: a sweep, with job, space and trials")
        raise problems.in_document([what], document)
    data = dict(data)
    if isinstance(data.get("job"), str):
        job_file = folder / data["job"]
        if not job_file.is_file():
            what = Problem(("job",), f"there is no file {data['job']} beside the sweep's")
            raise problems.in_document([what], document)
        data["job"], _ = load_job(job_file)
        folder = job_file.parent
    elif "job" in data:
        data["job"] = job_in(document, ("job",))
    if "name" in data:
        data["name"] = document.texts.get(("name",), data["name"])
    try:
        spec = SweepSpec.model_validate(data)
        found = faults(spec)
    except ValidationError as error:
        found = problems.find(error, SweepSpec)
    if found:
        raise problems.in_document([_as_in(document, item) for item in found], document)
    return spec, folder


def _as_in(document: Document, problem: Problem) -> Problem:
    """A single objective is written without a list: no index in its path."""
    written = document.data.get("objective")
    if problem.path[:2] == ("objective", 0) and not isinstance(written, list):
        return Problem(("objective", *problem.path[2:]), problem.message)
    return problem
