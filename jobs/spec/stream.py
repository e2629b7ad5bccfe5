"""`stream:` of a job: a script that learns from records as they come (docs/streams.md)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.spec import fields
from jobs.spec.expecting import TableRule, load_expectations

_OF_TABLES = ("min_rows", "max_rows", "unique")
_OF_COLUMNS = ("missing", "unique", "references")
_HINT = "allowed: type, required, min, max, allowed and pattern of columns, and closed"


def _one_table(value: object) -> object:
    """The rules of one table, as they are or as a file of expectations has them."""
    if not isinstance(value, dict):
        return value
    if set(value) == {"table"}:
        return value["table"]
    tables = value.get("tables")
    if set(value) == {"tables"} and isinstance(tables, dict):
        if len(tables) != 1:
            raise ValueError(f"{len(tables)} tables; allowed: one, since all records are alike")
        return next(iter(tables.values()))
    return value


def _of_one_record(rule: TableRule) -> TableRule:
    """What one record can show. Raises ValueError for what only a whole table does."""
    for name in _OF_TABLES:
        if getattr(rule, name) not in (None, ()):
            raise ValueError(f"{name} is about a whole table, which a stream has not; {_HINT}")
    for column, wanted in rule.columns.items():
        for name in _OF_COLUMNS:
            if getattr(wanted, name) is not None and getattr(wanted, name) is not False:
                raise ValueError(
                    f"columns.{column}.{name} is about a whole table, which a stream has not; {_HINT}"
                )
    return rule


def _or_a_file(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "string", "minLength": 1}, *schema["anyOf"]]


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"found {show(path)}; allowed: a path of the node that begins with /")
    return path


_STREAM = re.compile(r"[^\s.*>/\\]{1,255}")
_SUBJECT = re.compile(r"[^\s.]+(\.[^\s.]+)*")


def _stream_name(name: str) -> str:
    if not _STREAM.fullmatch(name):
        raise ValueError(f"found {show(name)}; allowed: a name without spaces, dots, * and >")
    return name


def _subject(subject: str) -> str:
    if not _SUBJECT.fullmatch(subject):
        raise ValueError(f"found {show(subject)}; allowed: a subject such as readings.*")
    return subject


def _broker(address: str) -> str:
    if "@" in address:
        raise ValueError(
            "it has a user or a password, which everybody could read in the job; allowed: NATS_USER,"
            " NATS_PASSWORD or NATS_TOKEN among the job's secrets"
        )
    try:
        url = urlsplit(address)
        fits = url.scheme in ("nats", "tls") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or url.path or url.query or url.fragment:
        raise ValueError(f"found {show(address)}; allowed: nats://HOST:PORT or tls://HOST:PORT")
    return address


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Model):
    """Where records come from."""

    folder: Annotated[fields.LocalPath, AfterValidator(_absolute)] | None = Field(
        None, description="of the node: JSON lines and CSV files, and what is appended to them"
    )
    nats: Annotated[fields.Text, AfterValidator(_broker)] | None = Field(
        None,
        description="address of a broker with JetStream, such as nats://10.0.0.5:4222, or tls://",
    )
    stream: Annotated[fields.Text, AfterValidator(_stream_name)] | None = Field(
        None, description="name of the broker's stream"
    )
    subject: Annotated[fields.Text, AfterValidator(_subject)] | None = Field(
        None, description="of the messages that are read, such as readings.*; all by default"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.nats is None):
            raise ValueError("allowed: folder, or nats with the name of its stream")
        if (self.nats is None) != (self.stream is None):
            raise ValueError("nats and stream go together; allowed: both, or neither")
        if self.subject is not None and self.nats is None:
            raise ValueError("subject is for nats; allowed: without it")
        return self


class Commit(_Model):
    """When what was learned becomes durable: whichever is first."""

    records: Annotated[int, Field(ge=1)] = 100_000
    every: fields.Timeout = 30.0


class Release(_Model):
    """When the model is released."""

    records: Annotated[int | None, Field(ge=1)] = Field(
        None, description="after so many good records"
    )
    model: fields.ModelName | None = Field(
        None, description="each release becomes a version of this model"
    )


class Drift(_Model):
    """When the errors have become larger."""

    size: Annotated[float, Field(gt=0, le=10)] = Field(
        0.1, description="the change that matters, in standard deviations of the errors"
    )
    between: Annotated[float, Field(ge=1000, le=1e12)] = Field(
        1_000_000.0, description="mean number of records between two false alarms"
    )


class Stream(_Model):
    """What `quarterdeck_stream` does in the job's script."""

    source: Source
    expect: Annotated[
        TableRule | None,
        BeforeValidator(_one_table),
        AfterValidator(lambda r: r and _of_one_record(r)),
    ] = Field(
        None,
        description="what a record has to be; a file of expectations, or what is in it",
        json_schema_extra=_or_a_file,
    )
    commit: Commit = Commit()
    release: Release = Release()
    on_drift: Literal["note", "release"] = "note"
    drift: Drift = Drift()
    score: Literal["accuracy", "mae"] | None = Field(
        None, description="by default mae, the mean absolute error, if the first truth is a float"
    )
    window: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1000, description="records over which the score is taken"
    )
    rejects: fields.Bytes = Field(64 << 20, description="bytes of bad records that are kept")
    end: bool = Field(False, description="it ends once all that is there was read")

    def settings(self) -> dict[str, Any]:
        """What the script's side reads, `$QD_STREAM`: seconds and bytes, and only what is no default."""
        return self.model_dump(mode="json", exclude_defaults=True)


def with_expectations(stream: Any, file: Path) -> Any:
    """`stream:` as written in `file`, with the file that `expect` names in its place.

    Raises InvalidInput: that file is wrong. FileNotFoundError: there is none below the folder of this one.
    """
    if not isinstance(stream, dict) or not isinstance(stream.get("expect"), str):
        return stream
    name, folder = stream["expect"], file.parent.resolve()
    path = (folder / name).resolve()
    if not file.is_file() or not path.is_relative_to(folder) or not path.is_file():
        raise FileNotFoundError(name)
    found = load_expectations(path)
    tables = [found.table] if found.table is not None else list(found.tables.values())
    if len(tables) != 1:
        raise InvalidInput(
            f"{path}: {len(tables)} tables; allowed: one, since all records are alike"
        )
    assert tables[0] is not None
    return {**stream, "expect": tables[0].model_dump(exclude_unset=True)}
