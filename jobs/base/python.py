"""How our own processes are started, such that a user's folder with `agents/` or `jobs.py` in it does not
replace our modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `jobs/`, `agents/` and `console/`."""
_START = ROOT / "qd_start.py"


def module(name: str, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command that runs a module of ours with this interpreter; `options` are the interpreter's.

    -P: the folder in which it starts has no say in what is imported.
    """
    return [sys.executable, "-P", *options, str(_START), name, *words]


def search_path(own: str) -> str:
    """PYTHONPATH for processes that others start and that import our modules (Ray's workers): ours
    before the absolute folders of `own`; relative ones mean something else for every process."""
    absolute = [
        word for word in own.split(os.pathsep) if word.startswith("/") and word != str(ROOT)
    ]
    return os.pathsep.join([str(ROOT), *absolute])
