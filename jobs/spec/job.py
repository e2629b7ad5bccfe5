"""What a person asks to be run: one validated, immutable `JobSpec`.

Read from a file (`load_job`), from command-line options (`from_options`) or from the API
(`JobSpec.from_json`), with the same checks and the same words. Durations are held in seconds, sizes in
bytes. Importing this module imports pydantic (about 90 ms), so only code that submits does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from jobs.base.errors import InvalidInput
from jobs.base.names import CHECKPOINT
from jobs.base.units import show
from jobs.placement.capacity import Shape
from jobs.spec import fields, problems, yamlfile
from jobs.spec.command import Scalar, derive_name, fill, shell_argv
from jobs.spec.launch import Launcher, launcher
from jobs.spec.stream import Stream, with_expectations
from jobs.spec.yamlfile import Document, KeyPath

MAX_RANKS = 100_000
_MAX_ENVIRONMENT = 128 * 1024
"""Characters of all variables together: arguments and environment share what execve takes."""


class _Model(BaseModel):
    # Strict: `nodes: "2"` in a file is an error to point at, not a guess.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="null")


class Resources(_Model):
    """What each node gives to the job, for all of its processes there together."""

    gpu: fields.Gpus = Field(0.0, description="GPUs: a whole number, or a share of one (0.5)")
    cpu: fields.Cpus = Field(0.0, description="CPU cores; when absent, one for each process")
    memory: fields.Bytes | None = Field(None, description="memory, as 8GiB or a number of bytes")
    accelerator: fields.Text | None = Field(None, description="GPU model, such as H100")


class Objective(_Model):
    """The metric by which runs of this job are compared."""

    metric: fields.Text
    goal: Literal["maximize", "minimize"]


class OnStall(_Model):
    """What to do about a gang that makes no progress (see `jobs.life.stalls`)."""

    action: Literal["warn", "restart", "fail"] = Field(
        "warn", description="restart: from the last checkpoint, while max_restarts allows"
    )
    after: fields.Timeout | None = Field(
        None, description="the silence that is allowed; by default, it follows the job's own rhythm"
    )


class Checkpoint(_Model):
    """What a job's checkpoint folder begins with, whether it is kept, and how it is copied to the head."""

    model_config = ConfigDict(serialize_by_alias=True)  # pydantic has a method of the name

    copying: Literal["latest", "all", "off"] | None = Field(
        None,
        alias="copy",
        description="what is copied to the head while the job runs, so that it outlives the node: the "
        "newest checkpoint, all, or none; by default, a gang's newest",
    )
    every: fields.Every | None = Field(
        None,
        description="how often a new checkpoint is copied, at most: by default every 10 minutes, and every "
        "minute for a stream whose releases become versions of a model",
    )
    keep: fields.Copies = Field(3, description="how many copies stay on the head")
    artifact: bool = Field(
        False,
        description="when the job succeeds, its checkpoint folder becomes its artifact `checkpoint`",
    )
    start: fields.Digest | None = Field(
        None, description="such an artifact's digest, sha256:...; its files are there at the start"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_older_files(cls, given: Any) -> Any:
        """In those, `keep` was true for what is `artifact` now."""
        if isinstance(given, dict) and isinstance(given.get("keep"), bool):
            rest = {name: value for name, value in given.items() if name != "keep"}
            return {"artifact": given["keep"], **rest}
        return given


class Output(_Model):
    """What a job leaves to keep. In a file, a path alone says the same as `{path: ...}`."""

    path: fields.OutputPath = Field(
        description="below the work folder: a file, a folder, or a pattern such as out/**"
    )
    required: bool = Field(False, description="the job fails when it is not there")
    data: fields.DataName | None = Field(
        None, description="a data set: what the job leaves becomes its next version"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": fields.output_path(value)} if isinstance(value, str) else value

    @model_serializer
    def _as_path(self) -> Any:
        more: dict[str, Any] = {"required": True} if self.required else {}
        if self.data is not None:
            more["data"] = self.data
        return {"path": self.path, **more} if more else self.path

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        full = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"type": "string", "minLength": 1}, full]}


class JobSpec(_Model):
    """A job: `nodes` times `procs_per_node` processes of one command."""

    name: fields.Name = Field("", description="by default, taken from the command")
    kind: Literal["gang", "ray", "service"] = Field(
        "gang",
        description="gang: ranks as torchrun starts them; ray: one driver with RAY_ADDRESS; service: "
        "listens on $HOST:$PORT, and runs on for as long as the controller is away",
    )
    command: fields.CommandField = Field(
        description="run by /bin/sh -c when it is text; a list is run as it is"
    )
    workdir: fields.LocalPath = Field(".", description="the folder that is sent with the job")
    include: Annotated[tuple[fields.Text, ...], Field(strict=False, max_length=64)] = Field(
        (), description="patterns such as data/**: sent with the folder even where git ignores them"
    )
    python: fields.LocalPath | None = Field(
        None, description="interpreter: a path, an environment's folder, or a version such as 3.12"
    )
    requirements: fields.InnerPath | None = Field(
        None,
        description="requirements file in the work folder; its environment is built and cached",
    )
    image: fields.Image | None = Field(
        None, description="container image that the ranks run in; it brings its own Python"
    )
    mounts: Annotated[tuple[fields.Mount, ...], Field(strict=False, max_length=64)] = Field(
        (), description="paths of the node that the container sees: /data, /data:/mnt, /data:ro"
    )
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    procs_per_node: fields.Procs = Field(
        1, description="processes on each node; gpu: one for each GPU, as torchrun has it"
    )
    launch: Launcher | None = Field(
        None,
        description="torchrun (for more than one process): RANK, WORLD_SIZE, MASTER_ADDR and so on; "
        "plain (for one): none of them; jax: what jax.distributed.initialize() finds by itself; mpi: "
        "Open MPI's variables",
    )
    resources: Resources = Resources()
    env: Annotated[dict[fields.EnvName, fields.EnvValue], Field(max_length=256)] = Field(
        {},
        description="variables; null unsets one, $NAME in the value of NAME is what the node has, "
        "and PYTHONPATH is put before ours",
    )
    secrets: Annotated[tuple[fields.EnvName, ...], Field(strict=False, max_length=64)] = Field(
        (), description="variables whose values are taken from the submitter's environment"
    )
    data: Annotated[dict[fields.Identifier, fields.DataRef], Field(max_length=64)] = Field(
        {},
        description="versions of data sets, such as train: digits@3; the path is in $QD_DATA_TRAIN",
    )
    features: fields.DataRef | None = Field(
        None,
        description="a version of features, such as rides@2; its folder is in $QD_DATA_FEATURES",
    )
    models: Annotated[dict[fields.Identifier, fields.ModelRef], Field(max_length=64)] = Field(
        {},
        description="versions of models, such as base: llm@production; the folder is in $QD_MODEL_BASE",
    )
    params: Annotated[dict[fields.Identifier, fields.Param], Field(max_length=256)] = Field(
        {}, description="quarterdeck.params; {name} in the command is replaced"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 0
    timeout: fields.Timeout | None = None
    on_stall: OnStall = OnStall()
    lease: fields.Lease = Field(90.0, description="how long ranks run on without the controller")
    on_node_loss: Literal["restart", "wait"] | None = Field(
        None,
        description="restart: ranks stop when their lease ends, and the gang starts again; wait: no lease "
        "ends them, and the gang starts again only once the node is known to have gone down; by default, "
        "what the cluster is set to",
    )
    grace: fields.Patience = Field(10.0, description="between SIGTERM and SIGKILL")
    notice: fields.Patience = Field(5.0, description="should_stop() is true before SIGTERM")
    outputs: Annotated[dict[fields.Identifier, Output], Field(max_length=64)] = Field(
        {}, description="what rank 0's node has of these is kept when the job succeeds"
    )
    checkpoint: Checkpoint = Checkpoint()
    resume: Literal["snapshot", "workdir"] = Field(
        "snapshot",
        description="what the work folder of an attempt after the first begins with: what was submitted, "
        "or with it also what the attempt before wrote there (workdir)",
    )
    metrics: fields.Metrics = Field(
        (),
        description="metrics that the log has: a ready set (nanogpt, keras, lightning, hf), or patterns "
        "such as {loss: 'loss ([0-9.eE+-]+)', step: 'iter ([0-9]+)'}",
    )
    stream: Stream | None = Field(
        None, description="a job without end, whose script learns from records as they come"
    )
    objective: Objective | None = None
    tags: Annotated[dict[fields.Key, fields.TagValue], Field(max_length=32)] = {}

    @field_validator("image")
    @classmethod
    def _an_image_has_its_own(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if info.data.get("kind") == "ray":
            raise ValueError("kind ray runs with the cluster's own Ray; allowed: kind gang")
        for name in ("python", "requirements"):
            if info.data.get(name) is not None:
                raise ValueError(
                    f"{name} is given too; allowed: an image without it: it brings its own"
                )
        return value

    @field_validator("mounts")
    @classmethod
    def _mounts_are_in_a_container(
        cls, value: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        if value and info.data.get("image") is None:
            raise ValueError("there is no image; allowed: mounts of a job with an image")
        return value

    @field_validator("nodes", "procs_per_node")
    @classmethod
    def _one_driver(cls, value: int | Literal["gpu"], info: ValidationInfo) -> int | str:
        if info.data.get("kind") == "ray" and value != 1:
            raise ValueError(f"found {value}; allowed: 1 for kind ray, which runs one driver")
        if value == "gpu":
            return value
        if info.field_name == "procs_per_node" and value * info.data.get("nodes", 1) > MAX_RANKS:
            raise ValueError(f"found {value}; allowed: at most {MAX_RANKS} ranks in all")
        return value

    @field_validator("launch")
    @classmethod
    def _a_driver_has_no_ranks(
        cls, value: Launcher | None, info: ValidationInfo
    ) -> Launcher | None:
        if info.data.get("kind") == "ray" and value not in (None, "plain"):
            raise ValueError(f"found {value}; allowed: plain for kind ray, whose driver is no rank")
        return value

    @field_validator("resources")
    @classmethod
    def _a_process_for_each_gpu(cls, value: Resources, info: ValidationInfo) -> Resources:
        if info.data.get("procs_per_node") == "gpu" and value.gpu < 1:
            raise ValueError("gpu is below 1; allowed: 1 or more, since procs_per_node is gpu")
        return value

    @field_validator("on_stall")
    @classmethod
    def _restarts_are_there(cls, value: OnStall, info: ValidationInfo) -> OnStall:
        if value.action == "restart" and info.data.get("max_restarts") == 0:
            raise ValueError("restart needs max_restarts of 1 or more, which is 0; allowed: fail")
        return value

    @field_validator("on_node_loss")
    @classmethod
    def _services_do_not_wait(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value == "wait" and info.data.get("kind") == "service":
            raise ValueError(
                "found wait; allowed: restart for kind service, of which copies may run"
            )
        return value

    @field_validator("params")
    @classmethod
    def _params_fit_the_command(
        cls, value: dict[str, Scalar], info: ValidationInfo
    ) -> dict[str, Scalar]:
        try:
            fill(info.data.get("command", ""), value)
        except InvalidInput as error:
            raise ValueError(f"{error.message}; allowed: a simple word, or another place") from None
        return value

    @field_validator("env")
    @classmethod
    def _environment_fits(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        size = sum(len(name) + len(text or "") + 2 for name, text in value.items())
        if size > _MAX_ENVIRONMENT:
            raise ValueError(f"{size} characters in all; allowed: at most {_MAX_ENVIRONMENT}")
        return value

    @field_validator("checkpoint")
    @classmethod
    def _checkpoint_has_a_name(cls, value: Checkpoint, info: ValidationInfo) -> Checkpoint:
        if value.artifact and CHECKPOINT in info.data.get("outputs", {}):
            raise ValueError(f"kept under the name of the output '{CHECKPOINT}'; allowed: another")
        return value

    @field_validator("secrets")
    @classmethod
    def _secrets_are_distinct(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for number, name in enumerate(value):
            if name in value[:number]:
                raise ValueError(f"{name} is listed twice")
            if name in info.data.get("env", {}):
                raise ValueError(f"{name} is in env too; allowed: one of the two")
        return value

    @field_validator("data", "models")
    @classmethod
    def _each_has_a_variable(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        kind = "DATA" if info.field_name == "data" else "MODEL"
        seen: dict[str, str] = {}
        for name in value:
            other = seen.setdefault(name.upper(), name)
            if other != name:
                raise ValueError(f"{other} and {name} would both be QD_{kind}_{name.upper()}")
        return value

    @field_validator("stream")
    @classmethod
    def _one_rank_without_end(cls, value: Stream | None, info: ValidationInfo) -> Stream | None:
        if value is None:
            return None
        known = info.data
        if known.get("kind", "gang") != "gang":
            raise ValueError(f"the kind is {known['kind']}; allowed: a stream of kind gang")
        if known.get("nodes", 1) != 1 or known.get("procs_per_node", 1) not in (1, "gpu"):
            raise ValueError("the job has several ranks; allowed: one, which reads the stream")
        if known.get("timeout") is not None and not value.end:
            raise ValueError("timeout is given too; allowed: neither, or end: true")
        checkpoint = known.get("checkpoint")
        if (
            value.release.model
            and checkpoint is not None
            and checkpoint.copying not in (None, "all")
        ):
            raise ValueError(
                f"release.model needs copies of all releases, and checkpoint.copy is {checkpoint.copying};"
                " allowed: all, which is the default"
            )
        return value

    @field_validator("features")
    @classmethod
    def _features_have_the_variable(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and any(name.upper() == "FEATURES" for name in info.data.get("data", {})):
            raise ValueError(
                "data has a set `features`, which has its variable; allowed: one of both"
            )
        return value

    @model_validator(mode="after")
    def _fill_defaults(self) -> Self:
        """Defaults that follow from other fields. Set past the freeze, and past `model_fields_set`, so
        that they are derived anew when the field they follow from is overridden."""
        if "name" not in self.model_fields_set:
            self.__dict__["name"] = derive_name(self.command)
        given = self.resources.model_fields_set
        if "cpu" not in given:
            values = dict(self.resources) | {"cpu": float(self.procs)}
            self.__dict__["resources"] = Resources.model_construct(_fields_set=given, **values)
        return self

    def argv(self) -> list[str]:
        """The program and its arguments, as execve takes them, with `params` filled in."""
        command = fill(self.command, self.params)
        return shell_argv(command) if isinstance(command, str) else list(command)

    @property
    def procs(self) -> int:
        """Processes on each node."""
        if self.procs_per_node == "gpu":
            return max(1, int(self.resources.gpu))
        return self.procs_per_node

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.nodes * self.procs

    @property
    def launcher(self) -> Launcher:
        """How its processes learn of each other, where the spec leaves it open too."""
        return launcher(self.launch, self.kind, self.world_size)

    @property
    def copying(self) -> Literal["latest", "all", "off"]:
        """Which of its checkpoints are copied, where the spec leaves it open too. Only ranks of a gang are
        started again with what they have written."""
        if self.checkpoint.copying is not None:
            return self.checkpoint.copying
        if self.publishes:
            return "all"
        return "latest" if self.kind == "gang" else "off"

    @property
    def publishes(self) -> bool:
        """Whether its checkpoints hold releases that become versions of a model."""
        return self.stream is not None and self.stream.release.model is not None

    @property
    def copying_asked(self) -> bool:
        """Whether it is to be copied where that protects from nothing, too."""
        return self.checkpoint.copying is not None or self.publishes

    @property
    def copying_every(self) -> float:
        """Seconds between two copies."""
        if self.checkpoint.every is not None:
            return self.checkpoint.every
        return 60.0 if self.publishes else 600.0

    @property
    def endless(self) -> bool:
        """Whether it runs until somebody ends it."""
        return self.stream is not None and not self.stream.end

    @property
    def total_gpus(self) -> float:
        return self.nodes * self.resources.gpu

    @property
    def total_cpus(self) -> float:
        return self.nodes * self.resources.cpu

    def shape(self) -> Shape:
        needs = self.resources
        return Shape(
            nodes=self.nodes,
            procs=self.procs,
            cpus=needs.cpu,
            gpus=needs.gpu,
            memory=needs.memory or 0,
            accelerator=needs.accelerator or "",
            container=self.image is not None,
        )

    def filled(self, params: Mapping[str, Scalar]) -> JobSpec:
        """This job with `params` over its own, which `argv()` fills into the command.

        The command itself keeps its places, so that a record shows both what was asked and with which
        values. Raises InvalidInput for a value that is no parameter or cannot be quoted in the command.
        """
        values = self.model_dump(exclude_unset=True) | {"params": {**self.params, **params}}
        return JobSpec.from_json(values)

    def to_json(self) -> dict[str, Any]:
        """All fields, with defaults: seconds, bytes, lists. `from_json` reads it back as an equal."""
        return self.model_dump(mode="json")

    def asked(self) -> dict[str, Any]:
        """What differs from the defaults; `from_json` reads it back as an equal.

        For a controller of another version, which need not know a field that nobody has set.
        """
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_json(cls, data: Any) -> JobSpec:
        """Raises InvalidInput naming every field that is wrong."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "spec") from None


def load_job(path: Path) -> tuple[JobSpec, Document]:
    """Read a job file. Raises InvalidInput, `file:line: field: what was found; allowed: ...`."""
    document = yamlfile.load(path)
    return job_in(document), document


def job_in(document: Document, at: KeyPath = ()) -> JobSpec:
    """The job at `at` in a document (a sweep may hold one inline). Raises InvalidInput."""
    data = document.data
    for part in at:
        data = data[part]
    if not isinstance(data, dict):
        found = "the file is empty" if data is None and not at else f"found {show(data)}"
        what = problems.Problem((), f"{found}; allowed: a job, at least 'command: ...'")
        raise problems.in_document([what], document, at)
    try:
        return JobSpec.model_validate(_as_written(data, document, at))
    except ValidationError as error:
        raise problems.in_document(problems.find(error, JobSpec), document, at) from None


def _as_written(data: dict[str, Any], document: Document, at: KeyPath) -> dict[str, Any]:
    """Numbers as their source text where text is wanted: a tag `1.10` is not `1.1`."""

    def text(path: KeyPath, value: Any) -> Any:
        return document.texts.get((*at, *path), value)

    result = dict(data)
    for name in ("env", "tags"):
        if isinstance(data.get(name), dict):
            result[name] = {key: text((name, key), value) for key, value in data[name].items()}
    for name in ("name", "command"):
        if isinstance(data.get(name), list):
            items = enumerate(data[name])
            result[name] = [text((name, number), value) for number, value in items]
        elif name in data:
            result[name] = text((name,), data[name])
    try:
        if "stream" in data:
            result["stream"] = with_expectations(data["stream"], Path(document.name))
    except FileNotFoundError as error:
        what = problems.Problem(
            ("stream", "expect"), f"there is no file {error} in the folder of this one"
        )
        raise problems.in_document([what], document, at) from None
    return result


_OPTIONS: dict[str, tuple[str, KeyPath]] = {
    name: (f"--{name.replace('_', '-')}", (name,))
    for name in JobSpec.model_fields
    if name not in ("command", "resources", "on_stall", "checkpoint", "stream")
}
_OPTIONS |= {
    "stall_action": ("--on-stall", ("on_stall", "action")),
    "stall_after": ("--stall-after", ("on_stall", "after")),
    "gpus": ("--gpus", ("resources", "gpu")),
    "cpus": ("--cpus", ("resources", "cpu")),
    "memory": ("--memory", ("resources", "memory")),
    "accelerator": ("--accelerator", ("resources", "accelerator")),
    "secrets": ("--secret", ("secrets",)),
    "tags": ("--tag", ("tags",)),
    "outputs": ("--output", ("outputs",)),
    "mounts": ("--mount", ("mounts",)),
}
_PAIRS = frozenset({"env", "tags", "outputs", "data"})
_OPTION_NAMES: dict[KeyPath, str] = {path: option for option, path in _OPTIONS.values()} | {
    ("command",): "COMMAND",
    ("on_stall",): "--on-stall",
}


def from_options(command: Sequence[str], base: JobSpec | None = None, **options: Any) -> JobSpec:
    """A job from the command line, or `base` (read from a file) with options over it.

    `options` are fields of JobSpec plus `gpus`, `cpus`, `memory`, `accelerator`, `stall_action` and
    `stall_after`; None means not given. `env`, `tags`, `outputs` and `data` take a mapping or a
    sequence of `name=value`, and add to those of `base`, as `metrics` do. A command of one word
    with spaces in it is a shell command. Raises InvalidInput with the option's name, TypeError for an
    option that does not exist.
    """
    values: dict[str, Any] = base.model_dump(exclude_unset=True) if base is not None else {}
    if command:
        is_shell = len(command) == 1 and len(command[0].split()) > 1
        values["command"] = command[0] if is_shell else list(command)
    for name, value in options.items():
        if name not in _OPTIONS:
            raise TypeError(f"from_options() has no option {name!r}")
        if value is None:
            continue
        option, path = _OPTIONS[name]
        if name == "metrics":
            value = [*values.get(name, ()), *_metric_sets(value)]
        if name in _PAIRS:
            value = values.get(name, {}) | _pairs(option, value)
        if len(path) == 2:
            part = str(path[0])
            values[part] = values.get(part, {}) | {path[1]: value}
        else:
            values[name] = value
    try:
        return JobSpec.model_validate(values)
    except ValidationError as error:
        raise problems.in_options(problems.find(error, JobSpec), _OPTION_NAMES) from None


def _metric_sets(items: Iterable[str]) -> list[Any]:
    """Ready sets by name; what has a `=` is a pattern, and all of those are one set."""
    items = list(items)
    patterns = dict(item.split("=", 1) for item in items if "=" in item)
    return [item for item in items if "=" not in item] + ([patterns] if patterns else [])


def _pairs(option: str, value: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    pairs: dict[str, Any] = {}
    for item in value:
        name, equals, text = item.partition("=")
        if not equals:
            also = ", or NAME of a variable that is set here" if option == "--env" else ""
            raise InvalidInput(f"{option}: found {show(item)}; allowed: NAME=VALUE{also}")
        pairs[name] = text
    return pairs
