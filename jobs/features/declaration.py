"""What a transform says of itself in `features.yaml`: columns that it takes, and values that it gives.

A version of features is a folder: `features.json` (the declaration, in one form, so that comments and the
order of keys make no new version), the Python file, and further files that the code reads.
"""

from __future__ import annotations

import json
import re
import zoneinfo
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.spec import fields, problems, yamlfile
from jobs.spec.problems import Problem

DECLARATION = "features.json"
"""The declaration in a version's folder."""
FOLDER = "features"
"""Where the files of a version are among those of a model that was registered with it."""
MAX_COLUMNS = 1000
ROWS = "rows"
"""What a job that builds features calls the rows themselves; tables have their own names."""

_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*")
_COLUMN = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_BY = ("text", "integer", "boolean")

InputType = Literal["number", "integer", "text", "boolean", "time"]
OutputType = Literal["float32", "float64", "int32", "int64", "boolean", "text"]


def _column(text: str) -> str:
    if not _COLUMN.fullmatch(text):
        raise ValueError(f"found {show(text)}; allowed: a column's name, up to 200 characters")
    return text


ColumnName = Annotated[str, BeforeValidator(lambda v: _column(v) if isinstance(v, str) else v)]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Input(_Declared):
    """A column of a row as it comes. In a file, a type alone says the same as `{type: ...}`."""

    type: InputType
    missing: bool = Field(False, description="a value may be missing: NaN, NaT, empty text")
    zone: str | None = Field(None, description="of times that name none: UTC, Europe/Berlin")

    @model_validator(mode="before")
    @classmethod
    def _from_type(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        return None if value is None else _zone(value)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.missing and self.type in ("integer", "boolean"):
            raise ValueError(f"a missing {self.type} has no value; allowed: type: number")
        if self.zone is not None and self.type != "time":
            raise ValueError(f"zone: {self.type} has none; allowed: with type: time")
        return self


class Output(_Declared):
    """What the transform gives for each row: one value, or `width` of them."""

    type: OutputType
    width: Annotated[int, Field(ge=1, le=100_000)] | None = None
    missing: bool = Field(False, description="values may be NaN")

    @model_validator(mode="before")
    @classmethod
    def _from_type(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class Join(_Declared):
    """A point-in-time join: columns of the newest row of a table that was known when a row was made."""

    table: fields.Identifier = Field(description="a name for the table; the build says which data")
    on: ColumnName = Field(description="the row's time")
    at: ColumnName | None = Field(
        None, description="the table's time, from when its row was known; by default named as `on`"
    )
    by: Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=16)] = Field(
        (), description="columns that must be equal, by the same names on both sides"
    )
    columns: Annotated[
        dict[ColumnName, ColumnName], Field(min_length=1, max_length=MAX_COLUMNS)
    ] = Field(description="input: the table's column; a list where both have the same name")
    tolerance: fields.Timeout | None = Field(None, description="how old it may be at most")
    zone: str | None = Field(None, description="of the table's times that name none")

    @field_validator("columns", mode="before")
    @classmethod
    def _same_names(cls, value: Any) -> Any:
        return {name: name for name in value} if isinstance(value, list | tuple) else value

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        return None if value is None else _zone(value)

    @field_validator("table")
    @classmethod
    def _not_the_rows(cls, value: str) -> str:
        if value.lower() in (ROWS, "features"):
            raise ValueError(f"found {value}; allowed: another name")
        return value


class Declaration(_Declared):
    """The whole of it."""

    code: fields.InnerPath = Field("features.py", description="the Python file")
    function: fields.Identifier = "transform"
    files: Annotated[tuple[fields.InnerPath, ...], Field(strict=False, max_length=1000)] = Field(
        (), description="further files that the code reads, below the same folder"
    )
    requires: Annotated[tuple[str, ...], Field(strict=False, max_length=100)] = Field(
        (), description="packages by exact version, numpy==2.4.6: refused wherever they differ"
    )
    inputs: Annotated[dict[ColumnName, Input], Field(min_length=1, max_length=MAX_COLUMNS)]
    outputs: Annotated[dict[ColumnName, Output], Field(min_length=1, max_length=MAX_COLUMNS)]
    keep: Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=MAX_COLUMNS)] = Field(
        (), description="columns that a build copies unchanged, such as a label"
    )
    rowwise: bool = Field(True, description="false: it looks at other rows, so it cannot be served")
    joins: Annotated[tuple[Join, ...], Field(strict=False, max_length=32)] = ()

    @field_validator("requires")
    @classmethod
    def _pinned(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _PIN.fullmatch(text):
                raise ValueError(f"found {show(text)}; allowed: an exact version, numpy==2.4.6")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in self.keep:
            if name in self.outputs:
                raise ValueError(f"keep: {show(name)} is an output too; allowed: one of the two")
        if DECLARATION in (self.code, *self.files):
            raise ValueError(
                f"files: {DECLARATION} is the declaration's own; allowed: another name"
            )
        tables: set[str] = set()
        given: set[str] = set()
        for number, join in enumerate(self.joins):
            where = f"joins.{number}"
            if join.table.upper() in tables:
                raise ValueError(f"{where}.table: {join.table} is joined twice; allowed: once")
            tables.add(join.table.upper())
            for name in (join.on, *join.by, *join.columns):
                if name not in self.inputs:
                    raise ValueError(f"{where}: {show(name)} is no input; allowed: one of inputs")
            if self.inputs[join.on].type != "time":
                raise ValueError(f"{where}.on: {show(join.on)} is no time; allowed: type: time")
            for name in join.by:
                if self.inputs[name].type not in _BY:
                    raise ValueError(
                        f"{where}.by: {show(name)} is {self.inputs[name].type}; "
                        f"allowed: {', '.join(_BY)}"
                    )
            for name in join.columns:
                if name in given or name == join.on or name in join.by:
                    raise ValueError(f"{where}.columns: {show(name)} comes twice; allowed: once")
                given.add(name)
        for join in self.joins:
            for name in (join.on, *join.by):
                if name in given:
                    raise ValueError(
                        f"joins: {show(name)} comes from a table itself; allowed: a row's own column"
                    )
        return self

    def to_bytes(self) -> bytes:
        """The one form of it, which is a file of the version."""
        return json.dumps(self.to_json(), sort_keys=False, ensure_ascii=False, indent=1).encode()

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def row_columns(self) -> list[str]:
        """Inputs that are columns of the rows themselves."""
        joined = {name for join in self.joins for name in join.columns}
        return [name for name in self.inputs if name not in joined]

    @classmethod
    def from_json(cls, data: Any) -> Declaration:
        """Raises InvalidInput naming every field that is wrong."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "features") from None


def from_bytes(data: bytes) -> Declaration:
    """What `to_bytes` wrote, and nothing else. Raises InvalidInput."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidInput(f"{DECLARATION} is not JSON") from None
    found = Declaration.from_json(document)
    if found.to_bytes() != data:
        raise InvalidInput(f"{DECLARATION} is not in its one form", "`qd features add` writes it.")
    return found


def load_declaration(path: Path) -> Declaration:
    """Read a file. Raises InvalidInput, `file:line: field: what was found; allowed: ...`."""
    document = yamlfile.load(path)
    if not isinstance(document.data, dict):
        found = "the file is empty" if document.data is None else f"found {show(document.data)}"
        what = Problem((), f"{found}; allowed: inputs and outputs")
        raise problems.in_document([what], document)
    try:
        return Declaration.model_validate(document.data)
    except ValidationError as error:
        raise problems.in_document(problems.find(error, Declaration), document) from None


def _zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError, OSError):
        raise ValueError(
            f"found {show(text)}; allowed: a zone such as UTC, Europe/Berlin"
        ) from None
    return text
