"""Which files a snapshot leaves out: `.qdignore` and `.gitignore`, in the syntax of the latter.

A blank line or one that starts with `#` says nothing. `*` and `?` stay within a name, `**` crosses
folders, a `/` at the start or in the middle ties the pattern to the root, one at the end means folders
only, and `!` takes a path back in. The last pattern that matches decides. As in git, what lies in an
ignored folder cannot be taken back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.base.paths import SafePath

FILE_NAME = ".qdignore"

ALWAYS = frozenset({".git", ".hg", ".svn", "__pycache__"})
"""Folders that are never part of a snapshot, with or without git."""

COMMON = ALWAYS | {
    ".cache", ".eggs", ".hypothesis", ".ipynb_checkpoints", ".mypy_cache", ".nox", ".pytest_cache",
    ".ruff_cache", ".tox", "node_modules",
}  # fmt: skip
"""What is left out of a folder that has no git to say what belongs to it. Environments are found by
their `pyvenv.cfg`, whatever they are called."""


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: re.Pattern[str]
    folders_only: bool
    ignore: bool


@dataclass(frozen=True, slots=True)
class Ignore:
    """The rules of one file. Paths are relative to the folder that it is in."""

    rules: tuple[_Rule, ...] = ()
    taken_back: tuple[str, ...] = ()
    """The patterns with `!`: what they name travels even where git ignores it."""

    @classmethod
    def parse(cls, text: str) -> Ignore:
        lines = text.splitlines()
        rules = (_rule(line) for line in lines)
        back = tuple(line.strip()[1:] for line in lines if line.startswith("!"))
        return cls(tuple(rule for rule in rules if rule is not None), back)

    def says(self, path: str, is_folder: bool = False) -> bool | None:
        """Whether the path itself is ignored, not looking at the folders it is in. None: no rule names it."""
        for rule in reversed(self.rules):
            if (is_folder or not rule.folders_only) and rule.regex.fullmatch(path):
                return rule.ignore
        return None

    def ignores(self, path: str, is_folder: bool = False) -> bool:
        """The same, where what no rule names is not ignored."""
        return self.says(path, is_folder) is True

    def leaves_out(self, path: SafePath) -> bool:
        """Whether a file is ignored, by itself or with one of the folders it is in."""
        if not self.rules:
            return False
        return any(self.ignores(parent, True) for parent in path.parents) or self.ignores(str(path))


def _rule(line: str) -> _Rule | None:
    text = line.rstrip()
    if text.endswith("\\") and text != line:  # a space that was meant
        text += " "
    if not text or text.startswith("#"):
        return None
    ignore = not text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    tied = "/" in text
    text = text.lstrip("/")
    if not text:
        return None
    prefix = "" if tied else "(?:.*/)?"
    return _Rule(re.compile(prefix + translate(text), re.DOTALL), folders_only, ignore)


_TOKEN = re.compile(r"(\*\*/)|(/\*\*$)|(\*+)|(\?)|(\[[!^]?\]?[^\]/]*\])|\\?(.)", re.DOTALL)


def translate(pattern: str) -> str:
    """The regular expression of a pattern of names and wildcards, tied to the root."""
    result = ""
    for deep, below, star, one, chars, plain in _TOKEN.findall(pattern):
        if deep:
            result += "(?:.*/)?"
        elif below:
            result += "/.+"
        elif star:
            result += "[^/]*"
        elif one:
            result += "[^/]"
        elif chars:
            body = chars[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            result += f"[^/{body[1:]}]" if body[0] in "!^" else f"[{body}]"
        else:
            result += re.escape(plain)
    return result
