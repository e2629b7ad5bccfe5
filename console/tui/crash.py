"""What is left when the console ends by a fault of its own: a screen of words, and a file to send."""

from __future__ import annotations

import platform
import time
import traceback
from importlib import metadata
from pathlib import Path

from rich.text import Text

from console.text import neutralise

NAME = "console-crash.log"


def last_words(error: BaseException | None, state: Path, *, place: str) -> Text:
    """Write the traceback to a file, and say what happened and what to do.

    Args:
        error: the fault.
        state: the folder that the file goes to.
        place: the screen that was open, as `--screen` takes it.
    """
    what = "unknown" if error is None else f"{type(error).__name__}: {error}".rstrip(": ")
    told = [
        f"qd: the console met a fault of its own and had to end: {neutralise(what)[:200]}",
        "",
        "Your jobs go on: the console only shows them.",
    ]
    try:
        told.append(
            f"The details are in {_written(error, state, place)}; please send it with your report."
        )
    except OSError as refused:
        told.append(f"The details could not be written to {state / NAME}: {refused.strerror}.")
    told.append("`qd` opens the console again where it was.")
    if place not in ("", "cluster"):
        told.append("If it ends again: `qd --screen cluster` opens another screen.")
    return Text("\n".join(told))


def _written(error: BaseException | None, state: Path, place: str) -> Path:
    """Append a fault to the file, after those before it."""
    state.mkdir(parents=True, exist_ok=True)
    path = state / NAME
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        version = metadata.version("quarterdeck")
    except metadata.PackageNotFoundError:
        version = "unknown"
    head = f"\n{at} quarterdeck {version}, Python {platform.python_version()}, screen {place}\n"
    body = "" if error is None else "".join(traceback.format_exception(error))
    with path.open("a", encoding="utf-8") as file:
        file.write(head + body)
    return path
