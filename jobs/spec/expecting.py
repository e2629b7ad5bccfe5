"""What is expected of tables, as people write it: of a data set's, and of a stream's records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs.base.units import show
from jobs.spec import problems, yamlfile
from jobs.spec.problems import Problem

Scalar = str | int | float | bool
_MODEL = ConfigDict(extra="forbid", frozen=True)


class ColumnRule(BaseModel):
    """What must hold for one column. Missing values count for `required` and `missing` alone."""

    model_config = _MODEL

    type: Annotated[str | None, Field(pattern="^(integer|number|text|boolean|time)$")] = None
    required: bool = False  # no value is missing
    missing: Annotated[float | None, Field(ge=0, le=1)] = None  # share that may be missing
    unique: bool = False
    min: float | str | None = None  # a number, or a time as text
    max: float | str | None = None
    allowed: tuple[Scalar, ...] | None = None
    pattern: str | None = None  # a regular expression that matches the whole of every value
    references: str | None = None  # "users.csv.id": every value is one of that column's

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"found {show(value)}: {error}; allowed: a pattern") from None
        return value

    @field_validator("references")
    @classmethod
    def _is_a_column(cls, value: str | None) -> str | None:
        if value is not None and "." not in value.rpartition("/")[2]:
            raise ValueError(f"found {show(value)}; allowed: FILE.COLUMN, such as users.csv.id")
        return value


class TableRule(BaseModel):
    model_config = _MODEL

    min_rows: Annotated[int | None, Field(ge=0)] = None
    max_rows: Annotated[int | None, Field(ge=0)] = None
    columns: Annotated[dict[str, ColumnRule], Field(max_length=5000)] = {}
    closed: bool = False  # no column that is not named here
    unique: tuple[str, ...] = ()  # columns that together name a row


class Expectations(BaseModel):
    """Rules for each table by its path in the data set; `table` is for a set that has only one."""

    model_config = _MODEL

    tables: Annotated[dict[str, TableRule], Field(max_length=200)] = {}
    table: TableRule | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.tables and self.table is None:
            raise ValueError("it expects nothing; allowed: table, or tables by their path")
        return self


def load_expectations(path: Path) -> Expectations:
    """Raises InvalidInput, `file:line: field: what was found; allowed: ...`."""
    document = yamlfile.load(path)
    if not isinstance(document.data, dict):
        found = "the file is empty" if document.data is None else f"found {show(document.data)}"
        what = Problem((), f"{found}; allowed: table, or tables by their path")
        raise problems.in_document([what], document)
    try:
        return Expectations.model_validate(document.data)
    except ValidationError as error:
        raise problems.in_document(problems.find(error, Expectations), document) from None
