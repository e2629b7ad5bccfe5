"""What a person asks to be searched: one validated, immutable `SweepSpec`.

Read from a file (`load_sweep`) or from the API (`SweepSpec.from_json`), with the same checks and the
same words. What fields say of each other (a condition on a parameter, an option of a sampler) is
checked after each of them is well-formed, and is told at its own place as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
)

from jobs.base.units import show
from jobs.spec import fields, problems, yamlfile
from jobs.spec.command import Scalar
from jobs.spec.job import JobSpec, Objective, job_in, load_job
from jobs.spec.problems import Problem
from jobs.spec.yamlfile import Document
from jobs.sweeps import checks as sweepchecks
from jobs.sweeps import constraints, strategies
from jobs.sweeps import space as searchspace
from jobs.sweeps.constraints import Constraint
from jobs.sweeps.populations import Population
from jobs.sweeps.space import Parameter
from jobs.sweeps.strategies import PRUNERS, SAMPLERS, Strategy

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


def _as_words(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _readable(text: str) -> str:
    constraints.parse(text)
    return text


def _sweep_id(text: str) -> str:
    if not _SWEEP.fullmatch(text):
        raise ValueError(f"found {show(text)}; allowed: a sweep such as s3, or last")
    return text


_SWEEP = re.compile(r"s?[1-9][0-9]{0,17}|last")
Constraints = Annotated[
    tuple[Annotated[str, AfterValidator(_readable)], ...],
    Field(strict=False, max_length=32),
    BeforeValidator(_as_words),
]
Sweeps = Annotated[
    tuple[Annotated[str, AfterValidator(_sweep_id)], ...],
    Field(strict=False, max_length=8),
    BeforeValidator(_as_words),
]


class SweepSpec(_Model):
    """A sweep: one job, run with many values of its parameters."""

    name: fields.Name = Field("", description="by default, the job's")
    job: JobSpec = Field(description="a job file beside this one, or the job itself")
    space: Annotated[dict[fields.Identifier, Parameter], Field(min_length=1, max_length=256)]
    objective: Objectives = Field((), description="one or a list; by default, the job's")
    constraints: Constraints = Field(
        (),
        description="comparisons of parameters (no point breaks one) or of metrics (the best does not)",
    )
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
    warm_start: Sweeps = Field(
        (),
        description="earlier sweeps of the same objectives, whose trials the sampler learns from",
    )
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

    _cells: int | None = PrivateAttr(None)

    @property
    def limit(self) -> int | None:
        """How many trials there will be at most; None when only a budget ends the sweep."""
        if self.sampler.name == "pbt":
            return self.population.size * self.population.generations
        if self.sampler.name != "grid":
            return self.trials
        if self._cells is None:  # to count them takes a while
            self._cells = sum(1 for _ in self.points())
        size = self._cells + len(self.enqueue)
        return size if self.trials is None else min(size, self.trials)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The objectives' metrics."""
        return tuple(objective.metric for objective in self.objective)

    @property
    def demands(self) -> tuple[Constraint, ...]:
        """The constraints that speak of metrics."""
        found = map(constraints.parse, self.constraints)
        return tuple(item for item in found if not item.names <= self.space.keys())

    @property
    def needed(self) -> tuple[str, ...]:
        """All metrics that a trial has to log."""
        names = {name for item in self.demands for name in item.names - self.space.keys()}
        return (*self.metrics, *sorted(names - set(self.metrics)))

    @property
    def population(self) -> Population:
        """What `pbt` was asked for."""
        return Population.of(self.sampler.options, self.space)

    def admits(self, point: Mapping[str, Scalar]) -> bool:
        """Whether a point breaks none of the constraints that speak of parameters alone."""
        found = map(constraints.parse, self.constraints)
        return all(item.excess(point) <= 0 for item in found if item.names <= self.space.keys())

    def excesses(
        self, point: Mapping[str, Scalar], values: Mapping[str, float | None]
    ) -> dict[str, float] | None:
        """By how much a result exceeds each constraint that speaks of metrics; None when a metric is
        not known.

        Args:
            values: what rank 0 logged last of each metric.
        """
        known = {name: value for name, value in values.items() if value is not None}
        if not self.demands or any(name not in known for name in self.needed):
            return None
        return {item.text: item.excess({**known, **point}) for item in self.demands}

    def points(self) -> Iterator[dict[str, Scalar]]:
        """The points of its grid, without those that it does not admit, and without those that its file
        enqueues: they are tried already."""
        grid = filter(self.admits, searchspace.grid(self.space))
        if not self.enqueue:
            return grid
        whole = {self._key(point): point for point in grid}
        # What was enqueued later, by hand or to run a point again, comes behind and leaves nothing out:
        # `_cells` was counted with the file's own.
        left_out = len(whole) if self._cells is None else len(whole) - self._cells
        for point in self.enqueue:
            if left_out > 0 and whole.pop(self._key(point), None) is not None:
                left_out -= 1
        return iter(whole.values())

    def _key(self, point: Mapping[str, Scalar]) -> tuple[object, ...]:
        """A point to compare with others: true is not 1, and 0.30000000000000004 is 0.3."""
        known = [
            (name, self.space[name].snapped(point[name])) for name in self.space if name in point
        ]
        return tuple((name, isinstance(value, bool), value) for name, value in known)

    def job_of(
        self,
        sweep: str,
        number: int,
        params: dict[str, Scalar],
        *,
        generation: int | None = None,
        checkpoint: str | None = None,
    ) -> JobSpec:
        """The job of one trial: named and tagged for it, with its parameters.

        Args:
            generation: of a population: its member's how manieth trial.
            checkpoint: what it begins with, "sha256:..."; in a population alone.
        """
        if generation is not None:
            params = params | self.population.told(generation)
        job = self.job.filled(params)
        first = self.objective[0]
        values = job.model_dump(exclude_unset=True) | {
            "name": f"{self.name[:50]}-{number}",
            "tags": {**job.tags, "sweep": sweep, "trial": str(number)},
            "objective": {"metric": first.metric, "goal": first.goal},
        }
        if generation is not None:
            values["checkpoint"] = {"artifact": True, "start": checkpoint}
        return JobSpec.from_json(values)

    def to_json(self) -> dict[str, Any]:
        """All fields, with defaults. `from_json` reads it back as an equal."""
        return {**self.model_dump(mode="json"), "space": self._space()}

    def asked(self) -> dict[str, Any]:
        """What differs from the defaults; `from_json` reads it back as an equal. See `JobSpec.asked`."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        return {**data, "space": self._space()}

    def _space(self) -> dict[str, Any]:
        return {
            name: parameter.model_dump(mode="json", exclude_defaults=True)
            for name, parameter in self.space.items()
        }

    @classmethod
    def from_json(cls, data: Any) -> SweepSpec:
        """Raises InvalidInput naming every field that is wrong."""
        try:
            spec = cls.model_validate(data)
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "sweep") from None
        found = sweepchecks.faults(spec)
        if found:
            raise problems.in_data(found, "sweep")
        return spec

    @classmethod
    def counted(cls, data: Any, cells: int | None) -> SweepSpec:
        """A spec that was found to be right elsewhere, with the number of points of its grid."""
        return cls.model_validate(data).with_cells(cells)

    def with_cells(self, cells: int | None) -> SweepSpec:
        """The same, where it was counted before how many points its grid has; None when it was not."""
        self._cells = cells
        return self

    @property
    def cells(self) -> int | None:
        """How many points its grid has, without those that a constraint forbids or that it enqueued at
        first."""
        return self._cells if self.limit is not None else None


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
        found = sweepchecks.faults(spec)
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
