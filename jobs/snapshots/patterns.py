"""Patterns that name what a run wrote: `out/model.onnx`, `out/**`, `lightning_logs/version_*/`.

`*` and `?` stay within a name, `**` crosses folders. A pattern that matches a folder means all that is in
it, so `out`, `out/` and `out/**` are the same for a folder `out`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.base.paths import SafePath
from jobs.snapshots.ignore import translate

_MAX_CROSSING = 3
"""Each of them multiplies what a long path costs to look at."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A checked pattern. `text` is its plain form: no `./`, no `//`; a `/` at the end stays."""

    text: str
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises ValueError for what could lead out of the folder that it is for."""
        plain = str(SafePath.parse(text))
        if plain.count("**") > _MAX_CROSSING:
            raise ValueError(f"has more than {_MAX_CROSSING} '**'; allowed: fewer")
        folder = text.endswith("/")
        end = "/.*" if folder else "(?:/.*)?"
        return cls(plain + "/" * folder, re.compile(translate(plain) + end, re.DOTALL))

    def matches(self, path: str) -> bool:
        """Whether a file at this path is meant, by itself or with a folder that it is in."""
        return self.regex.fullmatch(path) is not None

    @property
    def is_plain(self) -> bool:
        """Whether it can mean one file: no wildcards, no `/` at the end."""
        return not self.text.endswith("/") and not any(char in self.text for char in "*?[")


def below(pattern: str, path: str) -> str:
    """The path of an output's file within the output: `out/` has `out/a/b` as `a/b`. A pattern with
    wildcards leaves paths as they are."""
    return path.removeprefix(pattern.rstrip("/") + "/") if pattern else path
