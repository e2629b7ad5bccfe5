"""What a person asks to be served: one validated `ServiceSpec`, from a file or from the API.

A service is any program that listens on $HOST:$PORT. Each of its replicas is a job of the cluster.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.services.rollout import Plan
from jobs.services.scaling import ScaleField
from jobs.services.watching import LOG_VARIABLE, LogField, LogSpec, MonitorField
from jobs.spec import fields, problems, yamlfile
from jobs.spec.job import JobSpec, Resources
from jobs.spec.problems import Problem

_SERVED = ("command", "workdir", "include", "python", "requirements", "image", "mounts", "env", "resources",
           "nodes", "procs_per_node", "launch", "priority", "grace", "lease")  # fmt: skip
"""Fields that are the job's own."""

_WHOLE_PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,4095}")

Percent = Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate with its chain, and its private key, both in PEM: files on the node of the front."""

    cert: str
    key: str


def _tls(value: Any) -> TlsFiles | Literal[False] | None:
    if value is None or value is False or isinstance(value, TlsFiles):
        return value
    if isinstance(value, dict) and value.keys() == {"cert", "key"}:
        found = [value["cert"], value["key"]]
        if all(isinstance(path, str) and _WHOLE_PATH.fullmatch(path) for path in found):
            return TlsFiles(*found)
    raise ValueError(
        f"found {show(value)}; allowed: `{{cert: PATH, key: PATH}}` with whole paths, or false"
    )


def _written(value: TlsFiles | Literal[False] | None) -> Any:
    return asdict(value) if isinstance(value, TlsFiles) else value


Tls = Annotated[TlsFiles | Literal[False] | None, PlainValidator(_tls), PlainSerializer(_written)]


class ServiceSpec(BaseModel):
    """A service: `replicas` times one job, behind one address."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: fields.Name = Field(description="one name, one address at each target")
    version: fields.Text | None = Field(None, description="by default, the number of the release")
    model: fields.ModelRef | None = Field(
        None, description="the version of a model that it serves; the folder is in $QD_MODEL"
    )
    command: fields.CommandField = Field(description="it listens on $HOST:$PORT")
    ready: str = Field("/", description="a path that answers 200 when a replica can take requests")
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    scale: ScaleField = Field(
        None, description="bounds such as 1-4, or `{min, max, ...}`: the number follows the load"
    )
    bind: str = Field("127.0.0.1", description="address of the node of the front to listen on")
    port: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None, description="where the front listens; by default a free one, which stays the same"
    )
    keys: bool | None = Field(
        None,
        description="whether requests need an API key; by default as before: once it has had one",
    )
    tls: Tls = Field(
        None, description="`{cert: PATH, key: PATH}`, or false for plain HTTP; by default as before"
    )
    workdir: fields.LocalPath = "."
    include: Annotated[tuple[fields.Text, ...], Field(strict=False, max_length=64)] = ()
    python: fields.LocalPath | None = None
    requirements: fields.InnerPath | None = None
    image: fields.Image | None = None
    mounts: Annotated[tuple[fields.Mount, ...], Field(strict=False, max_length=64)] = ()
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    procs_per_node: fields.Procs = 1
    launch: Literal["torchrun", "plain", "jax", "mpi"] | None = None
    resources: Resources = Resources()
    env: Annotated[dict[fields.EnvName, fields.EnvValue], Field(max_length=256)] = {}
    priority: Annotated[int, Field(ge=0, le=100)] = 60
    grace: fields.Patience = 10.0
    lease: fields.Lease = Field(
        90.0, description="how long its node may be silent before a replica starts elsewhere"
    )
    canary: Annotated[tuple[Percent, ...], Field(strict=False, max_length=20)] = Field(
        (), description="percent of the requests, rising; none: all at once when it is ready"
    )
    shadow: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = Field(
        None, description="percent of the requests that it gets copies of first, for comparison"
    )
    agree: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = Field(
        None, description="percent of rows answered the same with which `shadow` ends by itself"
    )
    rest: fields.Patience = Field(60.0, description="how long each step is watched at least")
    least: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        20, description="requests that each step must have seen"
    )
    truths: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0, description="answers whose truth each step must have learnt by `qd feedback`"
    )
    patience: fields.Timeout = Field(600.0, description="how long a step waits for them")
    start_within: fields.Timeout = Field(300.0, description="how long it may take to be ready")
    warm: fields.Timeout = Field(
        900.0, description="how long the version before stays ready to take the traffic back"
    )
    slower: Annotated[float, Field(gt=1, le=100)] = Field(
        1.5, description="a request is slow that takes longer than so many times the running p95"
    )

    log: LogField = Field(LogSpec(), description="which requests our model server writes down")
    monitor: MonitorField = Field(None, description="how the log is compared with a reference")

    @field_validator("ready")
    @classmethod
    def _a_path(cls, value: str) -> str:
        if not value.startswith("/") or any(char <= " " or char > "~" for char in value):
            raise ValueError(f"found {show(value)}; allowed: a path such as /health")
        return value

    @field_validator("bind")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not value or any(not (char.isalnum() or char in ".:[]-*") for char in value):
            raise ValueError(f"found {show(value)}; allowed: an address such as 127.0.0.1")
        return value

    @field_validator("canary")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"found {show(list(value))}; allowed: rising numbers below 100")
        return value

    @model_validator(mode="after")
    def _bounded(self) -> ServiceSpec:
        given, scale = self.first_replicas, self.scale
        if given is not None and scale is not None and scale.within(given) != given:
            raise ValueError(
                f"replicas is {given}, and scale {scale.words()}; allowed: within the bounds"
            )
        return self

    @model_validator(mode="after")
    def _compared(self) -> ServiceSpec:
        if self.agree is not None and self.shadow is None:
            raise ValueError("agree is given without shadow, which compares answers")
        return self

    @property
    def ours(self) -> bool:
        """Whether our model server answers."""
        return any("quarterdeck_serve" in part for part in self._words())

    @property
    def first_replicas(self) -> int | None:
        """With how many it begins; None where nobody said."""
        return self.replicas if "replicas" in self.model_fields_set else None

    def plan(self) -> Plan:
        """How a release of it gets its traffic."""
        return Plan(
            steps=self.canary,
            rest=self.rest,
            least=self.least,
            truths=self.truths,
            patience=self.patience,
            ready=self.start_within,
            warm=self.warm,
            slower=self.slower,
            shadow=self.shadow or 0.0,
            agree=self.agree,
        )

    def job(self, version: str) -> JobSpec:
        """The job of one replica. Raises InvalidInput for what no job can be."""
        own = self.model_dump(exclude_unset=True, include=set(_SERVED))
        tags = {"service": self.name, "version": version}
        if self.model is not None:
            own["models"] = {"model": self.model}
        if self.ours:
            own["env"] = {LOG_VARIABLE: self.log.to_text()} | dict(own.get("env", {}))
        return JobSpec.from_json(
            {"priority": self.priority} | own | {"name": self.name, "kind": "service", "tags": tags}
        )

    def _words(self) -> tuple[str, ...]:
        return (self.command,) if isinstance(self.command, str) else self.command

    def to_json(self) -> dict[str, Any]:
        """The fields that were given; `from_json` reads it back as an equal."""
        return self.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def from_json(cls, data: Any) -> ServiceSpec:
        """Raises InvalidInput naming every field that is wrong."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "service") from None


def load_service(path: Path) -> ServiceSpec:
    """Read a service file. Raises InvalidInput, `file:line: field: what was found; allowed: ...`."""
    document = yamlfile.load(path)
    data = document.data
    if not isinstance(data, dict):
        found = "the file is empty" if data is None else f"found {show(data)}"
        what = Problem((), f"{found}; allowed: a service, at least name and command")
        raise problems.in_document([what], document)
    data = dict(data)
    for name in ("name", "version"):
        if name in data:
            data[name] = document.texts.get((name,), data[name])
    if isinstance(data.get("env"), dict):
        data["env"] = {
            key: document.texts.get(("env", key), value) for key, value in data["env"].items()
        }
    try:
        spec = ServiceSpec.model_validate(data)
    except ValidationError as error:
        raise problems.in_document(problems.find(error, ServiceSpec), document) from None
    try:
        spec.job("1")
    except InvalidInput as error:
        raise InvalidInput(f"{document.name}: {error.message}", error.hint) from None
    return spec
