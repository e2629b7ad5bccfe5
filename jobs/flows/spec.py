"""What a person asks to be run one after the other: one validated, immutable `PipelineSpec`.

Read from a file (`load_pipeline`) or from the API (`PipelineSpec.from_json`), with the same checks and
the same words. What steps say of each other is checked after each of them is well-formed
(`jobs.flows.checks`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from jobs.base.names import CHECKPOINT
from jobs.base.units import show
from jobs.flows import checks, conditions, graph, uses
from jobs.flows.acts import (
    FILES,
    Act,
    Approval,
    DataCheck,
    Deploy,
    Evaluate,
    GateStep,
    Message,
    Register,
    with_file,
)
from jobs.flows.params import ParameterField
from jobs.flows.references import Reference, template
from jobs.flows.schedules import Schedule
from jobs.spec import fields, problems, yamlfile
from jobs.spec.command import NAME, Scalar
from jobs.spec.job import JobSpec, job_in, load_job
from jobs.spec.problems import Problem
from jobs.spec.yamlfile import Document, KeyPath
from jobs.sweeps.spec import SweepSpec, load_sweep

MAX_TASKS = 10_000
MAX_STEPS = 1_000
MAX_RETRIES = 100

Kind = Literal[
    "job", "sweep", "data-check", "register", "evaluate", "gate", "approval", "deploy", "notify"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a step may be."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _readable(text: str) -> str:
    conditions.parse(text)
    return text


def _referring(value: Scalar) -> Scalar:
    template(value)
    return value


def _referring_text(text: str) -> str:
    template(text)
    return text


def _of_an_output(text: str) -> str:
    whole = template(text).whole
    if whole is None or whole.form != "output":
        raise ValueError(f"found {show(text)}; allowed: ${{steps.STEP.outputs.NAME}}")
    return text


def _distinct(values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    for number, value in enumerate(values):
        if any(type(value) is type(other) and value == other for other in values[:number]):
            raise ValueError(f"{show(value)} is listed twice")
    return values


def _as_words(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_notify(value: object) -> object:
    """A command, a job, or a message to channels."""
    if isinstance(value, dict) and "text" in value and "command" not in value:
        return Message.model_validate(value)
    if isinstance(value, JobSpec | Message):
        return value
    return JobSpec.model_validate(value if isinstance(value, dict) else {"command": value})


CHECK_FILE = "expectations.json"
"""Where the job of a data check finds what is expected."""


def check_job(check: DataCheck) -> JobSpec:
    """The job of a data check: `qd data check`, on the node that has the data."""
    command = f'python -m console.cli.main data check "$QD_DATA_SET" --expect {CHECK_FILE}'
    given = check.model_dump(exclude_unset=True, include={"python", "resources"})
    return JobSpec.model_validate({"command": command, **given})


Names = Annotated[
    tuple[fields.Identifier, ...],
    Field(strict=False, max_length=MAX_STEPS),
    BeforeValidator(_as_words),
]
Matrix = Annotated[
    dict[
        fields.Identifier,
        Annotated[
            tuple[fields.Param, ...],
            Field(strict=False, min_length=1, max_length=MAX_TASKS),
            AfterValidator(_distinct),
        ],
    ],
    Field(max_length=16),
]


class Step(_Model):
    """One step: a job, a sweep, or something that the controller does itself; and what it needs."""

    needs: Names = Field((), description="steps that come first; those it refers to do anyway")
    job: JobSpec | None = Field(None, description="a job file beside this one, or the job itself")
    sweep: SweepSpec | None = Field(None, description="a sweep file, or the sweep itself")
    data_check: DataCheck | None = Field(
        None, alias="data-check", description="a data version against a file of expectations"
    )
    register_: Register | None = Field(
        None, alias="register", description="a version of a model, of what a run has left"
    )
    evaluate: Evaluate | None = Field(
        None, description="a version, measured on a version of a data set"
    )
    gate: GateStep | None = Field(None, description="a version against a gate file")
    approval: Approval | None = Field(None, description="waits until people have approved")
    deploy: Deploy | None = Field(None, description="a rollout, seen through to its verdict")
    notify: Annotated[JobSpec | Message, BeforeValidator(_as_notify)] | None = Field(
        None,
        description="a message to channels, or a command; {pipeline}, {state}, {failed} and {reason} "
        "are filled in",
    )
    data: Annotated[
        dict[fields.Identifier, Annotated[str, AfterValidator(_referring_text)]],
        Field(max_length=64),
    ] = Field({}, description="over the job's data; ${...} is filled in")
    inputs: Annotated[
        dict[fields.InnerPath, Annotated[str, AfterValidator(_of_an_output)]],
        Field(max_length=64),
    ] = Field({}, description="path in the work folder: ${steps.STEP.outputs.NAME}")
    params: Annotated[
        dict[fields.Identifier, Annotated[fields.Param, AfterValidator(_referring)]],
        Field(max_length=256),
    ] = Field({}, description="over the job's params; ${...} is filled in")
    when: Annotated[str, AfterValidator(_readable)] | None = Field(
        None, description="run only if this holds"
    )
    matrix: Matrix = Field({}, description="one run of the step for each combination")
    parallel: Annotated[int, Field(ge=1, le=MAX_TASKS)] = Field(
        MAX_TASKS, description="how many of a matrix at a time"
    )
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = 0
    timeout: fields.Timeout | None = Field(None, description="of each try")
    cache: bool = Field(True, description="take the result of an equal run from before")
    always: bool = Field(False, description="run however the steps before have ended")
    on_failure: bool = Field(False, description="run only if a step before has failed")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if self.of_kind(kind) is not None]
        if len(given) != 1:
            found = "none of them" if not given else " and ".join(given)
            raise ValueError(f"found {found}; allowed: one of {', '.join(KINDS)}")
        return self

    def of_kind(self, kind: str) -> JobSpec | SweepSpec | Act | None:
        """What it asks for, if it is of this kind."""
        found = getattr(self, "register_" if kind == "register" else kind.replace("-", "_"))
        assert found is None or isinstance(found, JobSpec | SweepSpec | Act)
        return found

    @cached_property
    def kind(self) -> Kind:
        return next(kind for kind in KINDS if self.of_kind(kind) is not None)

    @property
    def inner(self) -> JobSpec | SweepSpec | Act:
        """What it asks for."""
        found = self.of_kind(self.kind)
        assert found is not None
        return found

    @property
    def act(self) -> Act | None:
        """What the controller does, of a step that is no job and no sweep."""
        return self.inner if isinstance(self.inner, Act) else None

    @property
    def is_job(self) -> bool:
        """Whether it runs as one job."""
        return isinstance(self.inner, JobSpec | DataCheck)

    @cached_property
    def base(self) -> JobSpec | None:
        """The job that it runs, or of which its sweep runs trials."""
        match self.inner:
            case JobSpec() as job:
                return job
            case SweepSpec() as sweep:
                return sweep.job
            case DataCheck() as check:
                return check_job(check)
            case _:
                return None

    @property
    def outputs(self) -> dict[str, str]:
        """What other steps may take from it: name -> path. The checkpoint folder has none."""
        if self.job is None:
            return {}
        kept = {CHECKPOINT: ""} if self.job.checkpoint.artifact else {}
        return {name: output.path for name, output in self.job.outputs.items()} | kept

    @cached_property
    def references(self) -> tuple[tuple[KeyPath, Reference], ...]:
        """What it takes, with where that is written."""
        found: list[tuple[KeyPath, Reference]] = []
        for path, text in self.inputs.items():
            found += [(("inputs", path), item) for item in template(text).references]
        for name, value in self.params.items():
            found += [(("params", name), item) for item in template(value).references]
        for name, text in self.data.items():
            found += [(("data", name), item) for item in template(text).references]
        if self.act is not None:
            for name, text in self.act.texts().items():
                found += [((self.kind, name), item) for item in template(text).references]
        if self.when is not None:
            found += [(("when",), item) for item in conditions.parse(self.when).references]
        return tuple(found)

    def instances(self) -> list[dict[str, Scalar]]:
        """The values of its matrix for each run; one without any where there is no matrix."""
        names = list(self.matrix)
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*(self.matrix[name] for name in names))
        ]

    @property
    def count(self) -> int:
        total = 1
        for values in self.matrix.values():
            total *= len(values)
        return total


_INNER = {
    "job",
    "sweep",
    "data_check",
    "register_",
    "evaluate",
    "gate",
    "approval",
    "deploy",
    "notify",
}


class PipelineSpec(_Model):
    """Steps, and in which order they run: each after those that it needs."""

    name: fields.Name = "pipeline"
    params: Annotated[dict[fields.Identifier, ParameterField], Field(max_length=256)] = Field(
        {}, description="a default, or {type: int|float|text|bool, default, choices, description}"
    )
    steps: Annotated[dict[fields.Identifier, Step], Field(min_length=1, max_length=MAX_STEPS)]
    parallel: Annotated[int, Field(ge=1, le=MAX_TASKS)] = Field(
        MAX_TASKS, description="how many jobs and sweeps at a time"
    )
    timeout: fields.Timeout | None = Field(None, description="of the whole run")
    schedule: Schedule | None = Field(
        None, description="when it runs by itself; for qd schedule add"
    )

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """What each step waits for: what it names and what it refers to. One that runs at the end
        (`always`, `on_failure`) and names nothing waits for all others, but those that need it."""
        found: dict[str, tuple[str, ...]] = {}
        for name, step in self.steps.items():
            referred = [item.step for _, item in step.references if item.step in self.steps]
            named = [other for other in step.needs if other in self.steps]
            found[name] = tuple(dict.fromkeys([*named, *referred]))
        last = {n for n, step in self.steps.items() if step.always or step.on_failure}
        for name in self.steps:
            if name not in last or self.steps[name].needs:
                continue
            users = graph.after(found, [name])
            ordinary = [other for other in self.steps if other not in last | users]
            found[name] = tuple(dict.fromkeys([*found[name], *ordinary]))
        return found

    @property
    def secrets(self) -> tuple[str, ...]:
        bases = [step.base for step in self.steps.values()]
        names = (name for base in bases if base is not None for name in base.secrets)
        return tuple(dict.fromkeys(names))

    def to_json(self) -> dict[str, Any]:
        """All fields, with defaults. `from_json` reads it back as an equal."""
        data = self.model_dump(mode="json", exclude={"steps"})
        data["steps"] = {}
        for name, step in self.steps.items():
            item = step.model_dump(mode="json", exclude=_INNER)
            data["steps"][name] = {step.kind: step.inner.to_json(), **item}
        return data

    @classmethod
    def from_json(cls, data: Any) -> PipelineSpec:
        """Raises InvalidInput naming every field that is wrong."""
        try:
            spec = cls.model_validate(data)
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "pipeline") from None
        if found := checks.faults(spec):
            raise problems.in_data(found, "pipeline")
        return spec


def load_pipeline(path: Path, users: tuple[Path, ...] = ()) -> tuple[PipelineSpec, dict[str, Path]]:
    """Read a pipeline file, and the job, sweep and pipeline files that it names.

    Args:
        users: the files of which each uses the next, and the last one this.

    Returns:
        The pipeline, and for each step the folder from which its `workdir` counts.

    Raises:
        InvalidInput: `file:line: field: what was found; allowed: ...`.
    """
    document = yamlfile.load(path)
    data, folder = document.data, path.absolute().parent
    if not isinstance(data, dict):
        read = "the file is empty" if data is None else f"found {show(data)}"
        what = Problem((), f"{read}; allowed: a pipeline, with steps")
        raise problems.in_document([what], document)
    data = dict(data)
    if "name" in data:
        data["name"] = document.texts.get(("name",), data["name"])
    elif not _derived(path):
        data["name"] = "pipeline"
    else:
        data["name"] = _derived(path)
    folders: dict[str, Path] = {}
    inlined: dict[str, list[str]] = {}
    if isinstance(data.get("steps"), dict):
        data["steps"] = _used(document, data["steps"], folders, inlined, (*users, path))
        steps = {}
        for name, step in data["steps"].items():
            steps[name] = step
            if name not in folders:
                steps[name], folders[name] = _step(document, name, step, folder)
        data["steps"] = steps
    user = {step: name for name, names in inlined.items() for step in names}
    try:
        spec = PipelineSpec.model_validate(data)
        found = checks.faults(spec)
    except ValidationError as error:
        found = [_placed(item) for item in problems.find(error, PipelineSpec)]
    if found:
        raise problems.in_document([_in_user(problem, user) for problem in found], document)
    return spec, folders


def _used(
    document: Document,
    steps: dict[str, Any],
    folders: dict[str, Path],
    inlined: dict[str, list[str]],
    files: tuple[Path, ...],
) -> dict[str, Any]:
    """The steps with those of other files in place of the steps that use these.

    Args:
        folders: takes those of their steps.
        inlined: takes the names of the steps in place of a step.
        files: those of which each uses the next, this one last.
    """
    found: dict[str, Any] = {}
    for name, step in steps.items():
        if not (isinstance(step, dict) and "uses" in step):
            found[name] = step
            continue
        at: KeyPath = ("steps", name)
        wrong = uses.misplaced(step)
        if not wrong:
            spec, inner = _other(document, at, files, step["uses"])
            wrong = uses.faults(spec.params, step.get("params", {}))
        if wrong:
            told = [Problem((*at, *one.path), one.message) for one in wrong]
            raise problems.in_document(told, document)
        needs = uses.expanded(step.get("needs", []), inlined)
        place = uses.Inlining(name, spec, step.get("params", {}), needs, step.get("when"))
        try:
            new = place.steps()
        except ValueError as error:
            raise problems.in_document([Problem((*at, "uses"), str(error))], document) from None
        for other in new:
            if other in steps or other in found:
                what = Problem(
                    (*at, "uses"), f"{other} is a step of this file, too; allowed: another name"
                )
                raise problems.in_document([what], document)
        found |= new
        inlined[name] = list(new)
        folders |= {f"{name}_{other}": where for other, where in inner.items()}
    for name, step in found.items():
        if isinstance(step, dict) and "needs" in step:
            found[name] = {**step, "needs": uses.expanded(step["needs"], inlined)}
    return found


def _other(
    document: Document, at: KeyPath, files: tuple[Path, ...], name: str
) -> tuple[PipelineSpec, dict[str, Path]]:
    """The pipeline file that a step uses."""
    file = files[-1].absolute().parent / name
    what = ""
    if not file.is_file():
        what = f"there is no file {name} beside the pipeline's"
    elif file.resolve() in [one.resolve() for one in files]:
        circle = " uses ".join(one.name for one in (*files, file))
        what = f"{circle}: a circle; allowed: files that do not use each other"
    elif len(files) > uses.MAX_DEPTH:
        what = f"files that use files that use files ...; allowed: at most {uses.MAX_DEPTH}"
    if what:
        raise problems.in_document([Problem((*at, "uses"), what)], document)
    return load_pipeline(file, files)


def _in_user(problem: Problem, user: Mapping[str, str]) -> Problem:
    """A problem of a step from another file is told where that is used."""
    path = problem.path
    if len(path) < 2 or path[0] != "steps" or path[1] not in user:
        return problem
    inner = ".".join(str(part) for part in path[1:])
    return Problem(("steps", user[str(path[1])], "uses"), f"{inner}: {problem.message}")


def load_scheduled(path: Path) -> tuple[PipelineSpec, dict[str, Path]]:
    """What a schedule runs: a pipeline file, or a job or sweep file as a pipeline of one step that is
    never taken from before. Raises InvalidInput."""
    data = yamlfile.load(path).data
    if not isinstance(data, dict) or "steps" in data:
        return load_pipeline(path)
    found: dict[str, JobSpec | SweepSpec]
    if "space" in data:
        sweep, folder = load_sweep(path)
        name, found = sweep.name, {"sweep": sweep}
    else:
        job, _ = load_job(path)
        name, folder, found = job.name, path.absolute().parent, {"job": job}
    step = Step.model_validate({**found, "cache": False})
    return PipelineSpec(name=name, steps={"run": step}), {"run": folder}


def _derived(path: Path) -> str:
    """A name from the file's, where that is one."""
    stem = path.stem
    return stem if NAME.fullmatch(stem) else ""


def _step(document: Document, name: str, step: Any, folder: Path) -> tuple[Any, Path]:
    """A step with the job or sweep that it names in place, and the folder that they are in."""
    if not isinstance(step, dict):
        return step, folder
    step = dict(step)
    at: KeyPath = ("steps", name)
    for kind in ("job", "sweep"):
        if isinstance(step.get(kind), str):
            file = folder / step[kind]
            if not file.is_file():
                what = Problem((*at, kind), f"there is no file {step[kind]} beside the pipeline's")
                raise problems.in_document([what], document)
            if kind == "sweep":
                step[kind], folder = load_sweep(file)
            else:
                step[kind], _ = load_job(file)
                folder = file.parent
        elif kind in step and kind == "job":
            step[kind] = job_in(document, (*at, kind))
    if isinstance(step.get("notify"), dict) and "text" not in step["notify"]:
        step["notify"] = job_in(document, (*at, "notify"))
    for kind in FILES:
        if isinstance(step.get(kind), dict):
            try:
                step[kind] = with_file(kind, step[kind], folder)
            except FileNotFoundError as error:
                missing = f"there is no file {error} beside the pipeline's"
                place = Problem((*at, kind, FILES[kind]), missing)
                raise problems.in_document([place], document) from None
    return step, folder


def _placed(problem: Problem) -> Problem:
    """Without the numbers and words that pydantic adds for one name written without a list."""
    path = problem.path
    if len(path) == 4 and path[0] == "steps" and path[2] == "needs":
        return Problem(path[:3], problem.message)
    return problem


def as_values(values: Mapping[str, Scalar]) -> str:
    """The values of a matrix, `lr=0.1,width=64`."""
    return ",".join(f"{name}={show(value).strip(chr(39))}" for name, value in values.items())
