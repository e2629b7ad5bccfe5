"""YAML files from people: plain data, and where each piece of it stands.

Read event by event into our own containers, so limits hold before anything is built, and nothing can
be made but mappings, lists, text, numbers, true/false and null. There are no anchors, aliases, merge
keys, tags or second documents. Plain words mean what YAML 1.2 says: `1e-4` is a number and `12:30` is
text. Words on which YAML versions disagree (`yes`, `on`, ...) must be quoted or written as true/false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from jobs.base.errors import InvalidInput
from jobs.base.units import show

MAX_BYTES = 2**20
MAX_DEPTH = 20
MAX_NODES = 10_000
_MAX_DIGITS = 40
"""Longer numbers are not numbers that anyone meant, and converting them costs quadratic time."""

KeyPath = tuple[str | int, ...]
"""Mapping keys and list indices from the root, such as `("resources", "gpu")` or `("command", 0)`."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
_AMBIGUOUS = frozenset({"yes", "no", "on", "off"})
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_HEX_OCTAL = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPECIAL = {
    sign + dot: float(sign + "inf") for sign in ("", "+", "-") for dot in (".inf", ".Inf", ".INF")
} | {word: float("nan") for word in (".nan", ".NaN", ".NAN")}


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """What a file holds.

    `values` and `keys` say where each value and each mapping key starts; `texts` holds the source text
    of unquoted numbers, for fields in which `1.10` should not become `1.1`.
    """

    name: str
    data: Any
    values: dict[KeyPath, Mark] = field(default_factory=dict, repr=False)
    keys: dict[KeyPath, Mark] = field(default_factory=dict, repr=False)
    texts: dict[KeyPath, str] = field(default_factory=dict, repr=False)

    def where(self, path: KeyPath) -> Mark:
        """Where `path` is written: its key, or its value in a list, or the nearest thing around it."""
        for length in range(len(path), 0, -1):
            mark = self.keys.get(path[:length]) or self.values.get(path[:length])
            if mark is not None:
                return mark
        return self.values.get((), Mark(1, 1))


def load(path: Path) -> Document:
    """Read a YAML file. Raises InvalidInput with the file's name and, where there is one, the line."""
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InvalidInput(f"{name}: no such file", _similar_file(path)) from None
    except IsADirectoryError:
        raise InvalidInput(f"{name} is a folder; allowed: a YAML file") from None
    except OSError as error:
        raise InvalidInput(f"{name}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{name}: larger than 1 MiB; allowed: at most 1 MiB of YAML")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{name}:{line}: not text in UTF-8; allowed: a YAML file in UTF-8"
        ) from None
    return parse(text, name)


def parse(text: str, name: str = "<text>") -> Document:
    """Read YAML text; `name` stands for the file in errors. An empty text has the data None.

    Raises InvalidInput whose message starts with `name:line:`.
    """
    bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise InvalidInput(f"{name}:{line}: control character {bad.group()!a}; is this YAML?")
    loader = yaml.SafeLoader(text)
    try:
        return _Builder(name).build(_events(loader))
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(name, error) from None
    except (ValueError, OverflowError):  # PyYAML on "\UFFFFFFFF", or a version of 5,000 digits
        raise InvalidInput(f"{name}:{loader.line + 1}: not valid YAML: impossible number") from None
    finally:
        loader.dispose()


def _events(loader: yaml.SafeLoader) -> Iterator[yaml.Event]:
    while loader.check_event():
        yield loader.get_event()  # type: ignore[no-untyped-call]


def _similar_file(path: Path) -> str:
    other = {".yaml": ".yml", ".yml": ".yaml"}.get(path.suffix)
    if other is not None and path.with_suffix(other).is_file():
        return f"There is {path.with_suffix(other).name}."
    return ""


def _syntax_error(name: str, error: yaml.MarkedYAMLError) -> InvalidInput:
    mark = _place(error.problem_mark or error.context_mark)
    problem = error.problem or error.context or "bad syntax"
    hint = ""
    if "'\\t'" in problem:
        hint = "YAML is indented with spaces; replace the tab."
    elif "mapping values are not allowed" in problem:
        hint = "Quote a text that has ': ' in it, and check the indentation."
    elif problem.startswith("found character"):
        hint = "Quote a text that starts with a special character."
    where = f"; while {error.context.removeprefix('while ')}" if error.context else ""
    return InvalidInput(
        f"{name}:{mark.line}: not valid YAML: {problem}{where}",
        hint,
        errors=[_fact(name, mark, problem)],
    )


def _place(mark: Any) -> Mark:
    """PyYAML counts from 0, and its C and Python halves have unrelated classes for it."""
    return Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)


def _fact(name: str, mark: Mark, message: str, field: str = "") -> dict[str, Any]:
    """One entry of `details["errors"]`, for editors and scripts."""
    return {
        "file": name,
        "line": mark.line,
        "column": mark.column,
        "field": field,
        "message": message,
    }


@dataclass
class _Open:
    """A container that is being filled."""

    path: KeyPath
    items: dict[str, Any] | list[Any]
    key: str | None = None  # of a mapping: the key whose value comes next


class _Builder:
    """Turns events into a Document. One object a document; no recursion, so depth cannot hurt."""

    def __init__(self, name: str) -> None:
        self._document = Document(name, None)
        self._open: list[_Open] = []
        self._root: Any = None
        self._nodes = 0
        self._documents = 0

    def build(self, events: Iterator[yaml.Event]) -> Document:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise self._error(event, "a second document; allowed: one document a file")
            elif isinstance(event, yaml.AliasEvent):
                raise self._error(event, f"alias *{event.anchor}; allowed: no anchors or aliases")
            elif isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open.pop()
        done = self._document
        return Document(done.name, self._root, done.values, done.keys, done.texts)

    def _node(self, event: yaml.NodeEvent) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES} values; allowed: {MAX_NODES} a file")
        if event.anchor is not None:
            raise self._error(event, f"anchor &{event.anchor}; allowed: no anchors or aliases")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise self._error(event, f"tag {show(tag)}; allowed: plain YAML without tags")
        if isinstance(event, yaml.ScalarEvent) and _SURROGATE.search(event.value):
            raise self._error(event, "half of a surrogate pair; allowed: text that UTF-8 can hold")
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.items, dict) and parent.key is None:
            self._take_key(parent, event)
            return
        if parent is None:
            path: KeyPath = ()
        elif parent.key is not None:
            path = (*parent.path, parent.key)
        else:
            path = (*parent.path, len(parent.items))
        self._document.values[path] = _place(event.start_mark)
        value = self._value(event, path)
        if parent is None:
            self._root = value
        elif isinstance(parent.items, dict):
            assert parent.key is not None
            parent.items[parent.key] = value
            parent.key = None
        else:
            parent.items.append(value)
        if isinstance(value, dict | list):
            if len(self._open) == MAX_DEPTH:
                raise self._error(event, f"nested deeper than {MAX_DEPTH} levels")
            self._open.append(_Open(path, value))

    def _take_key(self, parent: _Open, event: yaml.NodeEvent) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._error(event, "a mapping or list as a key; allowed: text")
        key = event.value
        if key == "<<" and event.style is None:
            raise self._error(event, "merge key <<; allowed: each field written out")
        path = (*parent.path, key)
        if path in self._document.keys:
            first = self._document.keys[path].line
            raise self._error(event, f"{show(key)} is given twice (first on line {first})")
        self._document.keys[path] = _place(event.start_mark)
        parent.key = key

    def _value(self, event: yaml.NodeEvent, path: KeyPath) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return {}
        if isinstance(event, yaml.SequenceStartEvent):
            return []
        assert isinstance(event, yaml.ScalarEvent)
        if event.style is not None or event.tag == "!":
            return event.value
        text = event.value
        if text.lower() in _AMBIGUOUS:
            raise self._error(
                event,
                f"unquoted {text}, which YAML readers take for different things; "
                f'allowed: "{text}" in quotes, or true or false',
                field_name(path),
            )
        value = self._plain(event, text, path)
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._document.texts[path] = text
        return value

    def _plain(self, event: yaml.Event, text: str, path: KeyPath) -> Any:
        """An unquoted scalar by the core schema of YAML 1.2. Digits with a leading zero stay text:
        one version reads them as octal, the other as decimal."""
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if text in _SPECIAL:
            return _SPECIAL[text]
        is_int, is_base = _INT.fullmatch(text), _HEX_OCTAL.fullmatch(text)
        if not (is_int or is_base or _FLOAT.fullmatch(text)):
            return text
        if len(text) > _MAX_DIGITS:
            raise self._error(event, f"a number of {len(text)} characters", field_name(path))
        if is_base:
            return int(text, 0)
        return int(text) if is_int else float(text)

    def _error(self, event: yaml.Event, what: str, field: str = "") -> InvalidInput:
        mark, name = _place(event.start_mark), self._document.name
        prefix = f"{field}: " if field else ""
        return InvalidInput(
            f"{name}:{mark.line}: {prefix}{what}", errors=[_fact(name, mark, what, field)]
        )


def field_name(path: KeyPath) -> str:
    """A path as people write it: `resources.gpu`, `command[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
