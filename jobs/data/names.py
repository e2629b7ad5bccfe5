"""How a data set's version is written: `digits@3`, or `digits` for the newest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.base.errors import InvalidInput
from jobs.base.units import show

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_REF = re.compile(rf"({_NAME.pattern})(?:@([1-9][0-9]{{0,8}}|latest))?")


@dataclass(frozen=True, slots=True)
class DataRef:
    """A version of a data set; number None is the newest."""

    name: str
    number: int | None = None

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name}@{self.number}"


def check_name(text: str) -> str:
    """The same text. Raises InvalidInput unless it can be a data set's name."""
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{show(text)} cannot be the name of a data set",
            "Letters, digits, '.', '_' and '-', up to 63, beginning with a letter or digit.",
        )
    return text


def parse_ref(text: str) -> DataRef:
    """Raises InvalidInput."""
    match = _REF.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"{show(text)} is not a data set", "A name, or a name and a version: digits@3."
        )
    name, number = match.groups()
    return DataRef(name, None if number in (None, "latest") else int(number))
