"""Steps that the controller takes itself, in the name of who started the pipeline: what each asks for.

Their fields may refer to parameters and to what earlier steps leave: `model: ${steps.register.model}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from jobs.base.errors import InvalidInput
from jobs.data.expectations import Expectations, load_expectations
from jobs.flows.references import template
from jobs.models.conditions import parse_condition
from jobs.models.evaluations import Evaluation, Measuring
from jobs.models.gates import Gate, load_gate
from jobs.models.names import alias_name
from jobs.services.spec import Percent, ServiceSpec
from jobs.services.watching import LogField, MonitorField
from jobs.spec import fields
from jobs.spec.job import Resources

Wanted = Literal["model", "data", "job", "text"]
"""What a field takes: a version of a model or of a data set, a job, or any text."""


def _referring(text: str) -> str:
    template(text)
    return text


Value = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_referring)]


class Act(BaseModel):
    """Base of all. `WANTS` are the fields that may refer to something, with what they take; `LEAVES`
    is what other steps may take of it, `${steps.STEP.NAME}`. `LASTS`: it may take a while."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    WANTS: ClassVar[Mapping[str, Wanted]] = {}
    LEAVES: ClassVar[tuple[str, ...]] = ()
    LASTS: ClassVar[bool] = False

    def texts(self) -> dict[str, str]:
        """The fields that may refer to something, as written."""
        return {name: getattr(self, name) for name in self.WANTS}

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True)


class DataCheck(Act):
    """A version of a data set, held against expectations, by a job."""

    WANTS = {"data": "data"}
    LEAVES = ("data",)
    LASTS = True

    data: Value = Field(description="the data set: digits, digits@3, ${params.data}")
    expect: Expectations = Field(description="a file of expectations, or what is in it")
    python: fields.LocalPath | None = Field(
        None, description="an interpreter with quarterdeck[data]; by default the controller's"
    )
    resources: Resources = Resources()


class Register(Act):
    """A version of a model, of what a run has left."""

    WANTS = {"model": "text", "run": "job"}
    LEAVES = ("model",)

    model: Value = Field(description="the model's name")
    run: Value = Field(description="the run: ${steps.STEP.job}")
    outputs: Annotated[tuple[fields.Identifier, ...], Field(strict=False, max_length=64)] = Field(
        (), description="which outputs; by default all files"
    )


class Evaluate(Measuring, Act):
    """A version of a model, measured on a version of a data set, by a job."""

    WANTS = {"model": "model", "data": "data"}
    LEAVES = ("model", "data", "evaluation")
    LASTS = True

    model: Value = Field(description="the version: ${steps.STEP.model}, or digits:3")
    data: Value = Field(description="the hold-out version: digits-test, digits-test@1")

    def evaluation(self, data: str) -> Evaluation:
        """What is asked. `data`: the version, with references filled in."""
        given = self.model_dump(mode="json", exclude_unset=True, exclude={"model", "data"})
        return Evaluation.from_json({**given, "data": data})


class GateStep(Act):
    """A version of a model, held against a gate."""

    WANTS = {"model": "model"}
    LEAVES = ("model", "evidence")

    model: Value = Field(description="the version: ${steps.STEP.model}, or digits:3")
    name: str = Field(min_length=1, max_length=128, description="what the result is called")
    conditions: list[str] = Field(min_length=1, max_length=200, description="all of them must hold")
    first: Literal["pass", "fail"] = "pass"
    data: str | None = Field(
        None, min_length=1, max_length=200, description="the data of the evaluations that are meant"
    )

    @field_validator("conditions")
    @classmethod
    def _readable(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_condition(text)
        return value

    def gate(self) -> Gate:
        return Gate(name=self.name, conditions=self.conditions, first=self.first, data=self.data)


class Approval(Act):
    """Waits until people have approved a version of a model."""

    WANTS = {"model": "model"}
    LEAVES = ("model",)
    LASTS = True

    model: Value = Field(description="the version: ${steps.STEP.model}, or digits:3")


class Deploy(Act):
    """A rollout of a version of a model, seen through to its verdict."""

    WANTS = {"model": "model"}
    LEAVES = ("model",)
    LASTS = True

    model: Value = Field(description="the version: ${steps.STEP.model}, or digits:3")
    to: Literal["staging", "production"] = "production"
    service: fields.Name | None = Field(None, description="its name; by default the model's")
    alias: str | None = Field(
        None, description="an alias that points to the version once it is promoted"
    )
    canary: Annotated[tuple[Percent, ...], Field(strict=False, max_length=20)] | None = None
    rest: fields.Patience | None = None
    least: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    truths: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    patience: fields.Timeout | None = None
    start_within: fields.Timeout | None = None
    warm: fields.Timeout | None = None
    slower: Annotated[float, Field(gt=1, le=100)] | None = None
    replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    bind: str | None = None
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    python: fields.LocalPath | None = None
    resources: Resources | None = None
    log: LogField | None = None
    monitor: MonitorField = None

    @field_validator("alias")
    @classmethod
    def _an_alias(cls, value: str | None) -> str | None:
        try:
            return None if value is None else alias_name(value)
        except InvalidInput as error:
            raise ValueError(error.message) from None

    @model_validator(mode="after")
    def _as_a_service(self) -> Deploy:
        try:
            ServiceSpec.from_json({"name": "x", "command": "x", **self.options()})
        except InvalidInput as error:
            raise ValueError(error.message) from None
        return self

    def options(self) -> dict[str, Any]:
        """Fields of the service over those that follow from the model."""
        given = self.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        named = {"name": self.service} if self.service is not None else {}
        own = ("model", "to", "service", "alias")
        return {name: value for name, value in given.items() if name not in own} | named


class Message(Act):
    """A note to channels of `alerts.yaml`."""

    WANTS = {"text": "text"}

    text: Value = Field(description="{pipeline}, {name}, {state}, {failed}, {reason} are filled in")
    to: Annotated[
        tuple[fields.Identifier, ...],
        Field(strict=False, max_length=32),
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = Field((), description="channels; all of them by default")
    severity: Literal["info", "warning", "error"] = "info"


FILES = {"data-check": "expect", "gate": "file"}
"""Kinds of steps that may name a file beside the pipeline's, and the field that names it."""


def with_file(kind: str, value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A step as written, with what is in the file that it names in its place. Raises InvalidInput, also
    FileNotFoundError where there is none."""
    name = value.get(FILES[kind])
    if not isinstance(name, str):
        return value
    file = folder / name
    if not file.is_file():
        raise FileNotFoundError(name)
    if kind == "data-check":
        return {**value, "expect": load_expectations(file)}
    rest = {key: item for key, item in value.items() if key != "file"}
    return load_gate(file).model_dump(exclude_unset=True) | rest
