"""The `/` filter of tables: `user:mira gpu>4 state:running !eval text`.

Words are joined by "and". `field:text` matches a prefix of the field (so `state:run` finds RUNNING), but all
of a number or an id: `gpus:8` does not find 80, nor `sweep:s1` s10. `field>n`, `field<n` and `field=n`
compare numbers, a bare word is found anywhere in the row, and a leading `!` turns a word round.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")

_TERM = re.compile(r"(?P<field>[a-z_][a-z0-9_]*)(?P<op>[:<>=])(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class Filter(Generic[Row]):
    """A parsed filter. `problem` is a sentence when part of the text was not understood; that part
    is then left out, so that a table never empties while a word is still being typed."""

    text: str
    matches: Callable[[Row], bool]
    problem: str = ""


def parse(
    text: str,
    fields: Mapping[str, Callable[[Row], Any]],
    anywhere: Callable[[Row], str],
    ids: Collection[str] = ("id",),
) -> Filter[Row]:
    """A filter from what was typed.

    Args:
        text: what the user typed.
        fields: name -> value of a row (a string or a number).
        anywhere: the text of a row that bare words are looked for in.
        ids: fields that hold ids.
    """
    tests: list[Callable[[Row], bool]] = []
    problem = ""
    for word in text.split():
        negate = word.startswith("!") and len(word) > 1
        bare = word[1:] if negate else word
        term = _TERM.fullmatch(bare.lower())
        test: Callable[[Row], bool] | None
        if term is None:
            test = _contains(bare.lower(), anywhere)
        elif term["field"] not in fields:
            test = None
            problem = f"no field '{term['field']}'; there are {', '.join(fields)}"
        elif not term["value"]:
            continue
        else:
            value, op = fields[term["field"]], term["op"]
            if op == ":" and term["field"] in ids:
                op = "="
            test = _compare(value, op, term["value"])
            if test is None:
                problem = f"'{term['value']}' is not a number"
        if test is not None:
            tests.append(_negated(test) if negate else test)
    return Filter(text, lambda row: all(test(row) for test in tests), problem)


def _contains(needle: str, anywhere: Callable[[Row], str]) -> Callable[[Row], bool]:
    return lambda row: needle in anywhere(row).lower()


def _negated(test: Callable[[Row], bool]) -> Callable[[Row], bool]:
    return lambda row: not test(row)


def _compare(value: Callable[[Row], Any], op: str, wanted: str) -> Callable[[Row], bool] | None:
    try:
        number = float(wanted)
    except ValueError:
        match op:
            case ":":
                return lambda row: str(value(row)).lower().startswith(wanted)
            case "=":
                return lambda row: str(value(row)).lower() == wanted
            case _:
                return None

    def test(row: Row) -> bool:
        held = value(row)
        if op == ":" and (isinstance(held, (str, bool)) or held is None):
            return str(held).lower().startswith(wanted)
        if isinstance(held, str) or held is None:
            return op == "=" and str(held).lower() == wanted
        return bool(held > number if op == ">" else held < number if op == "<" else held == number)

    return test
