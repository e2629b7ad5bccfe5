"""Parameters of a pipeline: a type, a default, and what `--set name=value` may say."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.flows.references import Kind
from jobs.spec import fields
from jobs.spec.command import Scalar

Type = Literal["int", "float", "text", "bool"]
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "text": "text",
    "bool": "true or false",
}
KINDS: dict[str, Kind] = {"int": "number", "float": "number", "text": "text", "bool": "flag"}


def type_of(value: object) -> Type:
    """The type that a plain default implies."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else "text"


def fits(value: Scalar, wanted: Type) -> bool:
    if wanted == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return value is not None and type_of(value) == wanted


class Parameter(BaseModel):
    """One parameter. Without a default it has to be given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Type
    default: fields.Param = None
    choices: Annotated[tuple[fields.Param, ...], Field(strict=False, max_length=256)] = ()
    description: str = ""

    @field_validator("default", "choices")
    @classmethod
    def _of_its_type(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = info.data.get("type")
        for item in value if isinstance(value, tuple) else (value,):
            if wanted is not None and item is not None and not fits(item, wanted):
                raise ValueError(f"found {show(item)}; allowed: {_WORDS[wanted]}")
        return value

    @classmethod
    def of(cls, value: Self | object) -> object:
        """A plain value is a default, whose type it implies."""
        if isinstance(value, dict | Parameter):
            return value
        if value is None:
            raise ValueError("found nothing; allowed: a default, or {type: ...}")
        return {"type": type_of(value), "default": value}

    def accept(self, value: Scalar) -> Scalar:
        """The value, when it is of this parameter. Raises ValueError, in words."""
        if not fits(value, self.type):
            raise ValueError(f"found {show(value)}; allowed: {_WORDS[self.type]}")
        if self.choices and value not in self.choices:
            allowed = ", ".join(show(item) for item in self.choices)
            raise ValueError(f"found {show(value)}; allowed: {allowed}")
        return float(value) if self.type == "float" and isinstance(value, int) else value

    def read(self, text: str) -> Scalar:
        """What a command line says. Raises ValueError, in words."""
        value: Scalar = text
        if self.type == "bool":
            value = {"true": True, "false": False}.get(text, text)
        elif self.type in ("int", "float"):
            try:
                value = int(text) if self.type == "int" else float(text)
            except ValueError:
                value = text
            if isinstance(value, float) and not math.isfinite(value):
                value = text
        return self.accept(value)


ParameterField = Annotated[Parameter, BeforeValidator(Parameter.of)]


def settings(params: Mapping[str, Parameter], given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The value of each parameter. Raises InvalidInput: an unknown one, a wrong value, one missing."""
    for name, value in given.items():
        if name not in params:
            raise InvalidInput(f"--set {name}: {unknown(name, params, 'parameter')}")
        try:
            params[name].accept(value)
        except ValueError as error:
            raise InvalidInput(f"--set {name}: {error}") from None
    missing = [name for name, item in params.items() if item.default is None and name not in given]
    if missing:
        raise InvalidInput(
            f"no value for {', '.join(missing)}", f"Give it: `--set {missing[0]}=...`."
        )
    return {name: item.accept(given.get(name, item.default)) for name, item in params.items()}


def from_words(params: Mapping[str, Parameter], words: list[str]) -> dict[str, Scalar]:
    """`--set name=value`, many times. Raises InvalidInput."""
    given: dict[str, Scalar] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise InvalidInput(f"--set: found {show(word)}; allowed: NAME=VALUE")
        if name not in params:
            raise InvalidInput(f"--set {name}: {unknown(name, params, 'parameter')}")
        try:
            given[name] = params[name].read(text)
        except ValueError as error:
            raise InvalidInput(f"--set {name}: {error}") from None
    return given


def unknown(name: str, known: Mapping[str, object], what: str) -> str:
    """There is no such name, and which is meant."""
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"there is no {what} {show(name)}; did you mean {near[0]}?"
    allowed = ", ".join(list(known)[:20]) or "none: there are none"
    return f"there is no {what} {show(name)}; allowed: {allowed}"
