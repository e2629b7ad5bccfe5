"""Lines of a log as they are read: levels and tracebacks coloured, JSON as words, what is folded. Pure."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from console.text import neutralise
from console.tui.core.draw.lines import Line, Span
from console.tui.core.jobs.logs import Lines

LONGEST_BLOCK = 400
"""Lines of a traceback at most; a longer one is not folded beyond that."""
FEWEST_HIDDEN = 3
"""Lines that folding must save, or it is not worth a look."""
GAP = 30.0
"""Seconds without a line, after which the next one says how long it was."""

_LEVELS = {
    "CRITICAL": "error",
    "FATAL": "error",
    "ERROR": "error",
    "WARNING": "warn",
    "WARN": "warn",
    "INFO": "info",
    "DEBUG": "dim",
    "TRACE": "dim",
}
_LEVEL = re.compile(r"\b(CRITICAL|FATAL|ERROR|WARNING|WARN|INFO|DEBUG|TRACE)\b")
_LEVEL_WITHIN = 80
"""Characters at the beginning of a line in which its level is looked for."""
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r"\s+File \".*\", line \d+")
_RAISED = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt|Exit|Warning|Timeout)\b(:|$)")
_NAMES = {
    "level": ("level", "levelname", "severity", "lvl"),
    "text": ("message", "msg", "event"),
    "time": ("time", "timestamp", "ts", "asctime"),
}


@lru_cache(maxsize=4096)
def dressed(text: str) -> Line:
    """A line with its level, or what it is of a traceback, in its tone."""
    if _TRACEBACK in text or _RAISED.match(text):
        return (Span(text, "error"),)
    if _FRAME.match(text):
        return (Span(text, "warn"),)
    found = _LEVEL.search(text, 0, _LEVEL_WITHIN)
    if found is None:
        return (Span(text),)
    tone = _LEVELS[found[1]]
    if tone == "dim":
        return (Span(text, tone),)
    begin, end = found.span()
    return (Span(text[:begin]), Span(text[begin:end], tone), Span(text[end:]))


@lru_cache(maxsize=4096)
def unpacked(text: str) -> Line | None:
    """A JSON object as words: its time, level and message, then the rest; None for any other line."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(held, dict) or not held:
        return None
    named = {
        what: next((name for name in names if name in held), "") for what, names in _NAMES.items()
    }
    out: list[Span] = []
    if named["time"]:
        out.append(Span(f"{_word(held[named['time']])} ", "dim"))
    if named["level"]:
        level = _word(held[named["level"]])
        out.append(Span(f"{level} ", _LEVELS.get(level.upper(), "")))
    if named["text"]:
        out.append(Span(f"{_word(held[named['text']])} "))
    for name, value in held.items():
        if name not in named.values():
            out += [Span(f"{_word(name)}=", "dim"), Span(f"{_word(value)} ")]
    return tuple(out)


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return neutralise(" ".join(text.split("\n")))


class Blocks:
    """Tracebacks among lines: of each, which lines are hidden when it is folded. The header, the last frame
    and what was raised stay. It is made anew when lines come."""

    def __init__(self, log: Lines) -> None:
        self._log = log
        self._hidden: dict[int, range] = {}  # line -> what is hidden of its block

    def hidden_of(self, number: int) -> range:
        """What is hidden of the traceback that a line belongs to; empty where there is none."""
        if (known := self._hidden.get(number)) is not None:
            return known
        begin = self._begin(number)
        if begin is None:
            return range(0)
        end = self._end(begin)
        if number >= end:
            return range(0)
        frames = [n for n in range(begin + 1, end) if _FRAME.match(self._log.text(n))]
        hidden = range(begin + 1, frames[-1]) if frames else range(0)
        if len(hidden) < FEWEST_HIDDEN:
            hidden = range(0)
        self._hidden |= dict.fromkeys(range(begin, end), hidden)
        return hidden

    def _begin(self, number: int) -> int | None:
        """The first line of the traceback that a line is in or ends."""
        log, rank = self._log, self._log.rank(number)
        for at in range(number, max(log.first, number - LONGEST_BLOCK) - 1, -1):
            if log.rank(at) != rank:
                return None
            text = log.text(at)
            if _TRACEBACK in text:
                return at
            if at < number and not text.startswith((" ", "\t")):
                return None
        return None

    def _end(self, begin: int) -> int:
        """The line after what was raised."""
        log, rank = self._log, self._log.rank(begin)
        for at in range(begin + 1, min(log.end, begin + LONGEST_BLOCK)):
            if log.rank(at) != rank:
                return at
            if not log.text(at).startswith((" ", "\t")):
                return at + 1
        return min(log.end, begin + LONGEST_BLOCK)


def folded_words(hidden: range) -> str:
    """What stands after the header of a traceback that is folded."""
    return f" {len(hidden)} lines folded, z shows them"
