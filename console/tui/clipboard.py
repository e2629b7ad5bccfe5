"""Copying out of a terminal: which ways there are, and what may be claimed of each.

A terminal never says whether it took an OSC 52 sequence, so no more is said than that it was sent.
Inside tmux the text goes into tmux's own buffer, which is certain, and from there to the terminal.
Where neither can work the text is shown, to be marked with the mouse.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Literal

Way = Literal["tmux", "osc52", "show"]

OSC52_LIMIT = 74_000
"""Bytes. Many terminals drop a sequence of more than 100,000, and base64 makes four of three."""

_DEAF_TERMS = ("dumb", "linux", "vt100", "vt220")
_DEAF_PROGRAMS = ("Apple_Terminal",)
"""Terminals that are known to ignore OSC 52."""


def way(text: str, environ: Mapping[str, str]) -> Way:
    """How to copy `text` in the terminal that the environment tells of."""
    if environ.get("TMUX"):
        return "tmux"
    deaf = (
        environ.get("TERM", "") in _DEAF_TERMS
        or environ.get("TERM_PROGRAM", "") in _DEAF_PROGRAMS
        or bool(environ.get("STY"))  # GNU screen
    )
    return "show" if deaf or len(text.encode()) > OSC52_LIMIT else "osc52"


def to_tmux(text: str) -> bool:
    """Put it into tmux's buffer and pass it on to the terminal; False when tmux would not."""
    for options in (["-w", "-"], ["-"]):  # -w came with tmux 3.2
        try:
            done = subprocess.run(
                ["tmux", "load-buffer", *options],
                input=text.encode(),
                capture_output=True,
                timeout=2,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        if done.returncode == 0:
            return True
    return False


def excerpt(text: str) -> str:
    """What was copied, short enough for a note."""
    lines = text.count("\n") + 1
    return f"{lines} lines" if lines > 1 else text if len(text) <= 60 else f"{text[:57]}..."
