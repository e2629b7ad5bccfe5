"""The validated types that specs are made of.

Their validators raise `ValueError` with a whole sentence, "found ...; allowed: ...", which
`jobs/spec/problems.py` puts behind the name of the field. (A `TypeError` would pass through pydantic as a
bug, so the wrong type is a `ValueError` too.)
"""
# ruff: noqa: TRY004

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationInfo,
    WithJsonSchema,
)

from jobs.base.paths import SafePath
from jobs.base.units import format_duration, parse_duration, parse_size, show
from jobs.metrics.patterns import MAX_PATTERN, NUMBER_SHORT, READY, STEP, Reader, expanded
from jobs.snapshots.patterns import Pattern
from jobs.spec import mounts
from jobs.spec.command import NAME, Command, Scalar
from jobs.spec.launch import why_reserved

MAX_COMMAND = 32 * 1024
"""Characters. A longer program belongs into a file; the kernel allows 128 KiB for one argument."""
MAX_ARGUMENTS = 1024
MAX_ENV_VALUE = 32 * 1024
_MAX_PROCS = 1024
_MAX_INT = 2**63

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DATA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(?:@(?:[1-9][0-9]{0,8}|latest))?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(?:[:@][A-Za-z0-9][A-Za-z0-9._+-]{0,62})?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE = re.compile(
    r"(?:[a-z0-9.-]+(?::[0-9]{1,5})?/)?[a-z0-9._/-]*[a-z0-9]"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
"""A reference as container tools read it: registry, name, tag, digest."""


def _matching(pattern: re.Pattern[str], allowed: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"found {show(text)}; allowed: {allowed}")
        return text

    return AfterValidator(check)


def _text(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        _printable(text, limit)
        if not text.strip():
            raise ValueError("empty; allowed: text")
        return text

    return AfterValidator(check)


def _printable(text: str, limit: int) -> None:
    if "\0" in text:
        raise ValueError("has a NUL byte; allowed: text without NUL bytes")
    if len(text) > limit:
        raise ValueError(f"{len(text)} characters; allowed: at most {limit}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not text in Unicode; allowed: text that UTF-8 can hold") from None


def _written(limit: int) -> BeforeValidator:
    return BeforeValidator(_writer(limit))


def _writer(limit: int) -> Callable[[object], str]:
    """Text, or a number that stands for its text; true/false and nothing are asked for in quotes."""

    def check(value: object) -> str:
        if isinstance(value, bool):
            word = show(value)
            raise ValueError(f'found {word} without quotes; allowed: text: "{word}"')
        if value is None:
            raise ValueError('found nothing; allowed: text: "" when it should be empty')
        if isinstance(value, int | float):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f"found {show(value)}; allowed: text")
        _printable(value, limit)
        return value

    return check


_text_of_variable = _writer(MAX_ENV_VALUE)


def _env_name(name: str, info: ValidationInfo) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise ValueError(
            f"found {show(name)}; allowed: a variable name of letters, digits and _, up to 128"
        )
    if why := why_reserved(name, info.data or {}):
        raise ValueError(why)
    return name


def _env_value(value: object) -> str | None:
    """Text as `_written` takes it; null leaves the variable out."""
    return None if value is None else _text_of_variable(value)


def _procs(value: object) -> int | str:
    if value == "gpu":
        return "gpu"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"found {show(value)}; allowed: a whole number, or gpu: one for each GPU")
    if not 1 <= value <= _MAX_PROCS:
        words = "at least 1, or gpu: one for each GPU" if value < 1 else f"at most {_MAX_PROCS}"
        raise ValueError(f"found {value}; allowed: {words}")
    return value


def _command(value: object) -> Command:
    form = 'a command such as "python train.py", or a list of arguments'
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(f"empty; allowed: {form}")
        _printable(value, MAX_COMMAND)
        return value.strip()
    if not isinstance(value, list | tuple):
        raise ValueError(f"found {show(value)}; allowed: {form}")
    if not value or not str(value[0]).strip():
        raise ValueError(f"no program to run; allowed: {form}")
    if len(value) > MAX_ARGUMENTS:
        raise ValueError(f"{len(value)} arguments; allowed: at most {MAX_ARGUMENTS}")
    for number, part in enumerate(value, start=1):
        if isinstance(part, bool) or not isinstance(part, str | int | float):
            raise ValueError(f"argument {number} is {show(part)}; allowed: text (quote it)")
    arguments = tuple(str(part) for part in value)
    for part in arguments:
        _printable(part, MAX_COMMAND)
    if sum(map(len, arguments)) > MAX_COMMAND:
        raise ValueError(f"{sum(map(len, arguments))} characters; allowed: at most {MAX_COMMAND}")
    return arguments


def _scalar(value: object) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"found {show(value)}; allowed: a finite number")
    if isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT:
        raise ValueError(f"found {show(value)}; allowed: a number of 64 bits")
    if isinstance(value, str):
        _printable(value, 4096)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"found {show(value)}; allowed: text, a number, true, false or null")


def _gpus(value: float) -> float:
    if value < 0 or value > 1024 or (value != int(value) and not 0.01 <= value < 1):
        raise ValueError(
            f"found {show(value)}; allowed: a whole number up to 1024, or a share of one GPU "
            "from 0.01 to below 1"
        )
    return value


def _path(text: str) -> str:
    return str(SafePath.parse(text))


def output_path(text: str) -> str:
    """The plain form of an output's pattern. Raises ValueError."""
    return Pattern.parse(text).text


def _metrics(value: object) -> tuple[str | dict[str, str], ...]:
    """Sets of patterns; one of them may stand without a list around it."""
    items: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    for item in items:
        if not isinstance(item, str | dict):
            raise ValueError(f"found {show(item)}; allowed: {', '.join(READY)}, or patterns")
        if isinstance(item, dict):
            _pattern_set(item)
    for patterns in expanded(items):
        Reader(patterns)
    return tuple(items)


def _pattern_set(patterns: dict[object, object]) -> None:
    for name, text in patterns.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"found {show(name)}: {show(text)}; allowed: names and expressions")
        _printable(name, 200)
        _printable(text, MAX_PATTERN)
    if not set(patterns) - {STEP}:
        raise ValueError(f"no metric; allowed: patterns such as loss: 'loss {NUMBER_SHORT}'")


def _copies(value: object) -> object:
    if type(value) is int and 1 <= value <= 1000:
        return value
    raise ValueError(f"found {show(value)}; allowed: a number of copies, 1 to 1000")


def _seconds(minimum: float, maximum: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        seconds = parse_duration(value)
        if not minimum <= seconds <= maximum:
            raise ValueError(
                f"found {show(value)}; allowed: {format_duration(minimum)} to "
                f"{format_duration(maximum)}"
            )
        return seconds

    return check


_DURATION_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": r"^\s*(\d+(\.\d+)?|(\d+(\.\d+)?\s*(ms|[wdhms])\s*)+)$"},
        ]
    }
)
_PATTERNS_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"type": "string"},
}
_WRITTEN_SCHEMA = WithJsonSchema({"type": ["string", "number"]})

Lease = Annotated[float, BeforeValidator(_seconds(5, 86_400)), _DURATION_SCHEMA]
"""Seconds. Below 5 s a renewal that is a little late would stop the job."""
Patience = Annotated[float, BeforeValidator(_seconds(0, 3600)), _DURATION_SCHEMA]
Timeout = Annotated[float, BeforeValidator(_seconds(1, 365 * 86_400)), _DURATION_SCHEMA]
Every = Annotated[float, BeforeValidator(_seconds(0, 365 * 86_400)), _DURATION_SCHEMA]
Bytes = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=1),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 1}),
]
Gpus = Annotated[
    float,
    Field(allow_inf_nan=False),
    AfterValidator(_gpus),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1024}),
]
Cpus = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
Name = Annotated[str, _matching(NAME, "letters, digits, '.', '_' and '-', up to 63, not '-' first")]
Identifier = Annotated[
    str, _matching(_IDENTIFIER, "letters, digits and _, up to 63, no digit first")
]
Key = Annotated[str, _matching(_KEY, "letters, digits, '.', '_', '/' and '-', up to 63")]
ModelRef = Annotated[
    str, _matching(_MODEL, "a version of a model such as llm, llm:3, llm:1.4.0 or llm@production")
]
DataRef = Annotated[str, _matching(_DATA, "a data set such as digits or digits@1")]
DataName = Annotated[str, _matching(_SET, "the name of a data set, without a version")]
ModelName = Annotated[str, _matching(_SET, "the name of a model, without a version")]
Copies = Annotated[int, BeforeValidator(_copies)]
"""How many stay."""
Digest = Annotated[str, _matching(_DIGEST, "sha256: and 64 hex digits")]
Image = Annotated[str, _matching(_IMAGE, "an image such as docker.io/pytorch/pytorch:2.9.0")]
Mount = Annotated[
    str, _matching(mounts.PATTERN, "a path of the node such as /data, /data:/mnt or /data:ro")
]
Text = Annotated[str, _text(256)]
LocalPath = Annotated[str, _text(4095)]
"""A path on the submitter's machine or on nodes: anywhere."""
InnerPath = Annotated[str, AfterValidator(_path)]
"""A path below the work folder that cannot leave it."""
OutputPath = Annotated[str, AfterValidator(output_path)]
"""A pattern below the work folder that cannot leave it: a file, a folder, or `out/**`."""
Metrics = Annotated[
    tuple[str | dict[str, str], ...],
    BeforeValidator(_metrics),
    Field(max_length=16),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(READY)},
                _PATTERNS_SCHEMA,
                {"type": "array", "items": {"anyOf": [{"type": "string"}, _PATTERNS_SCHEMA]}},
            ]
        }
    ),
]
"""Where a job's log has its metrics: ready sets by name, and patterns."""
EnvName = Annotated[str, AfterValidator(_env_name)]
EnvValue = Annotated[
    str | None,
    BeforeValidator(_env_value),
    WithJsonSchema({"type": ["string", "number", "null"]}),
]
Procs = Annotated[
    int | Literal["gpu"],
    BeforeValidator(_procs),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": _MAX_PROCS}, {"const": "gpu"}]}
    ),
]
"""Processes on each node: a number, or `gpu` for one on each GPU."""
TagValue = Annotated[str, _written(256), _WRITTEN_SCHEMA]
CommandField = Annotated[
    Command,
    BeforeValidator(_command),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_COMMAND},
                {"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}},
            ]
        }
    ),
]
Param = Annotated[
    Scalar,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]
