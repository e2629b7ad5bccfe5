"""Whether a record is what it is expected to be: of a data set's expectations, what one record can show.

Rules are those of `qd data check`: `type`, `required`, `min`, `max`, `allowed` and `pattern` of a column, and
`closed` of the table. What only a whole table shows (`unique`, `missing`, `references`...) is refused.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .settings import StreamError

TYPES = ("integer", "number", "text", "boolean", "time")
_OF_TABLE = ("columns", "closed")
_OF_COLUMN = ("type", "required", "min", "max", "allowed", "pattern")
_WHOLE = ("unique", "missing", "references", "min_rows", "max_rows")

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[Any], str]
    """Takes a value that is not missing; says what is wrong with it, or nothing."""


class Rules:
    """Args:
    table: the rules of one table, as in a file of expectations.

    Raises StreamError for a rule that cannot be checked here.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        _allowed("expect", table, _OF_TABLE)
        columns: Mapping[str, Mapping[str, Any]] = table.get("columns") or {}
        self._closed = bool(table.get("closed", False))
        self.types: dict[str, str] = {}
        self._checks: list[tuple[str, bool, list[Check]]] = []
        for name, rule in columns.items():
            _allowed(f"expect.columns.{name}", rule, _OF_COLUMN)
            kind = rule.get("type")
            if kind is not None:
                if kind not in TYPES:
                    raise StreamError(
                        f"expect.columns.{name}.type: found {kind!r}; allowed: {', '.join(TYPES)}"
                    )
                self.types[name] = kind
            self._checks.append((name, bool(rule.get("required")), _checks(name, rule, kind)))
        self._names = frozenset(columns)

    def problem(self, record: Mapping[str, Any]) -> str:
        """What is wrong with a record, in words; empty when nothing is."""
        for name, required, checks in self._checks:
            value = record.get(name)
            if value is None or value == "" or value != value:  # or NaN
                if required:
                    return f"{name} is missing"
                continue
            for check in checks:
                wrong = check(value)
                if wrong:
                    return f"{name} {wrong}"
        if self._closed:
            for name in record:
                if name not in self._names:
                    return f"{name} is not expected"
        return ""


def _allowed(where: str, given: Any, known: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        raise StreamError(f"{where}: found {given!r}; allowed: fields with values")
    for name in given:
        if name in _WHOLE:
            raise StreamError(f"{where}.{name}: it takes a whole table, and a stream has none")
        if name not in known:
            raise StreamError(f"{where}.{name}: no such field; allowed: {', '.join(known)}")


def _checks(name: str, rule: Mapping[str, Any], kind: str | None) -> list[Check]:
    checks: list[Check] = []
    if kind is not None:
        checks.append(_TYPED[kind])
    low, high = rule.get("min"), rule.get("max")
    if low is not None or high is not None:
        checks.append(_range(f"expect.columns.{name}", low, high))
    if rule.get("allowed") is not None:
        values = list(rule["allowed"])

        def among(value: Any) -> str:
            # 1 == True, and text of a CSV file without a type is text.
            same = any(
                value == one and isinstance(value, bool) == isinstance(one, bool) for one in values
            )
            return "" if same else f"is {_show(value)}, which is not allowed"

        checks.append(among)
    if rule.get("pattern") is not None:
        try:
            pattern = re.compile(rule["pattern"])
        except (re.error, TypeError) as error:
            raise StreamError(f"expect.columns.{name}.pattern: {error}") from None

        def matches(value: Any) -> str:
            fits = isinstance(value, str) and pattern.fullmatch(value) is not None
            return "" if fits else f"is {_show(value)}, which does not match {rule['pattern']}"

        checks.append(matches)
    return checks


def _show(value: Any) -> str:
    return repr(value)[:80]


def _bound(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _integer(value: Any) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool)
    return "" if fits else f"is {_show(value)}, not an integer"


def _number(value: Any) -> str:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if fits and isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, not a finite number"
    return "" if fits else f"is {_show(value)}, not a number"


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else f"is {_show(value)}, not text"


def _boolean(value: Any) -> str:
    return "" if isinstance(value, bool) else f"is {_show(value)}, not true or false"


def _time(value: Any) -> str:
    return "" if moment(value) is not None else f"is {_show(value)}, not a time"


_TYPED: dict[str, Check] = {
    "integer": _integer,
    "number": _number,
    "text": _text,
    "boolean": _boolean,
    "time": _time,
}


def moment(value: Any) -> datetime.datetime | None:
    """A time as ISO 8601 writes it, in UTC where it names no zone; None for anything else."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text[-1:] in ("Z", "z"):
        text = text[:-1] + "+00:00"
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.timezone.utc)  # noqa: UP017


def _range(where: str, low: Any, high: Any) -> Check:
    timed = isinstance(low, str) or isinstance(high, str)
    bounds: list[Any] = []
    for name, bound in (("min", low), ("max", high)):
        ours: Any = bound
        if bound is not None and timed:
            ours = moment(bound)
            if ours is None:
                raise StreamError(f"{where}.{name}: found {bound!r}; allowed: a number, or a time")
        bounds.append(ours)

    def inside(value: Any) -> str:
        found: Any = value
        if timed:
            found = moment(value)
            if found is None:
                return f"is {_show(value)}, not a time"
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"is {_show(value)}, not a number"
        if bounds[0] is not None and found < bounds[0]:
            return f"is {_show(value)}, below {_bound(low)}"
        if bounds[1] is not None and found > bounds[1]:
            return f"is {_show(value)}, above {_bound(high)}"
        return ""

    return inside


def typed(text: str, kind: str | None) -> Any:
    """The value of a CSV field. Without a type it is text; empty is missing.

    Raises ValueError when it is not of the type.
    """
    if text == "":
        return None
    if kind == "integer":
        return int(text)
    if kind == "number":
        return float(text)
    if kind == "boolean":
        word = text.strip().lower()
        if word not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return word == "true"
    return text
