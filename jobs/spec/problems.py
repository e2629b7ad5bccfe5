"""From what pydantic found wrong to one error that a person can act on.

Each problem says where it is, what was found and what is allowed, with the nearest valid name for an
unknown one. Works for every model that is read from a file, from options or from the API.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.spec.yamlfile import Document, KeyPath, field_name

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping of names to values",
    "mapping_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "list_type": "a list",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_MAX_LINES = 30
"""What people see of a long list; scripts get more of it."""
MAX_PROBLEMS = 1000
"""A document with more is no typing error, and to word each of a million takes a minute."""
_SUGGESTED = 8
"""Problems that are looked at for what was meant: a comparison with all names takes a millisecond."""
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where, and a sentence."""

    path: KeyPath
    message: str


def find(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The problems in a validation error of `model`, in pydantic's order, none twice; the first
    `MAX_PROBLEMS` of very many."""
    found: dict[Problem, None] = {}
    for number, item in enumerate(error.errors(include_url=False)):
        path = tuple(_shortened(part) for part in item["loc"] if part != "[key]")
        found[Problem(path, _message(item, path, model, suggest=number < _SUGGESTED))] = None
        if len(found) == MAX_PROBLEMS:
            break
    return list(found)


def _shortened(part: int | str) -> int | str:
    """A name of a field as somebody made it up: of any length, and of any characters."""
    if isinstance(part, int) or (len(part) <= _LONGEST_NAME and part.isprintable()):
        return part
    return show(part, _LONGEST_NAME + 2)[1:-1]


def in_document(problems: Sequence[Problem], document: Document, at: KeyPath = ()) -> InvalidInput:
    """One error for all problems of a file, in the order of its lines: `file:line: field: ...`.

    `at` is where the model's data stand in the document. Facts for scripts are in `details["errors"]`.
    """
    placed = [(document.where((*at, *problem.path)), problem) for problem in problems]
    placed.sort(key=lambda item: (item[0].line, item[0].column))
    lines, facts = [], []
    for mark, problem in placed:
        field = field_name((*at, *problem.path))
        lines.append(f"{document.name}:{mark.line}: {_with(field, problem.message)}")
        facts.append(
            {
                "file": document.name,
                "line": mark.line,
                "column": mark.column,
                "field": field,
                "message": problem.message,
            }
        )
    return _one_error(lines, facts)


def in_options(problems: Sequence[Problem], names: Mapping[KeyPath, str]) -> InvalidInput:
    """One error for problems of command-line options: `--env RANK: ...`. `names` maps the path of a
    field to its option; what is below a mapped path follows it."""
    lines, facts = [], []
    for problem in problems:
        option = _option(problem.path, names)
        lines.append(_with(option, problem.message))
        facts.append({"field": option, "message": problem.message})
    return _one_error(lines, facts)


def in_data(problems: Sequence[Problem], root: str) -> InvalidInput:
    """One error for problems of a document that has no lines (an API call): `spec.nodes: ...`."""
    lines, facts = [], []
    for problem in problems:
        field = field_name((root, *problem.path))
        lines.append(_with(field, problem.message))
        facts.append({"field": field, "message": problem.message})
    return _one_error(lines, facts)


def _with(field: str, message: str) -> str:
    return f"{field}: {message}" if field else message


def _one_error(lines: list[str], facts: list[dict[str, Any]]) -> InvalidInput:
    rest = lines[1:]
    hint = ""
    if rest:
        also = "1 more problem" if len(rest) == 1 else f"{len(rest)} more problems"
        hint = "\n".join((f"{also}:", *(f"  {line}" for line in rest[:_MAX_LINES])))
        if len(rest) > _MAX_LINES:
            hint += f"\n  and {len(rest) - _MAX_LINES} more"
    return InvalidInput(lines[0], hint, errors=facts)


def _option(path: KeyPath, names: Mapping[KeyPath, str]) -> str:
    for length in range(len(path), 0, -1):
        name = names.get(path[:length])
        if name is not None:
            return " ".join((name, *map(str, path[length:])))
    return field_name(path)


def _message(
    item: ErrorDetails, path: KeyPath, model: type[BaseModel], *, suggest: bool = True
) -> str:
    kind, found, context = item["type"], show(item["input"]), item.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(path, model, suggest=suggest)
    if kind == "missing":
        return "missing; it is required"
    if kind == "value_error":  # ours: a whole sentence
        return str(context["error"])
    if kind == "literal_error":
        names = context["expected"].split("'")[1::2]
        near = _near(str(item["input"]), names) if suggest else []
        also = f"; did you mean {near[0]}?" if near else ""
        return f"found {found}; allowed: {context['expected']}{also}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"found {found}; allowed: {words} {context[key]:g}"
    if kind == "too_long":
        # pydantic stops counting at the limit, and then says None.
        return f"{len(item['input'])} entries; allowed: at most {context['max_length']}"
    if kind in _KINDS:
        return f"found {found}; allowed: {_KINDS[kind]}"
    return f"found {found}; {item['msg'][:1].lower()}{item['msg'][1:]}"


def _near(text: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(text, names, 1) if len(text) <= _LONGEST_NAME else []


def _unknown(path: KeyPath, model: type[BaseModel], *, suggest: bool) -> str:
    if not suggest:
        return "unknown field"
    here = _model_at(path[:-1], model)
    names = {name: name for name in here.model_fields}
    if here is model:  # `gpus: 2` is most often meant for `resources`
        for full, leaf in _nested(model):
            names.setdefault(leaf, full)
    near = _near(str(path[-1]), names)
    if near:
        return f"unknown field; did you mean {names[near[0]]}?"
    return f"unknown field; allowed: {', '.join(here.model_fields)}"


def _nested(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name in model.model_fields:
        inner = _model_at((name,), model)
        if inner is not model:
            yield from ((f"{name}.{leaf}", leaf) for leaf in inner.model_fields)


def _model_at(path: KeyPath, model: type[BaseModel]) -> type[BaseModel]:
    """The model that describes `path`; the nearest one around it when it is no model's."""
    for part in path:
        info = model.model_fields.get(str(part))
        if info is None:
            break
        for candidate in (info.annotation, *get_args(info.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return model
