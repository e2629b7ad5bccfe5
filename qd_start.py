"""Where `qd` and all our processes begin, so that no other module of the same name replaces one of ours.

A folder on PYTHONPATH comes before the installed packages, so one that holds `agents/`, `jobs.py` or
`console/` (with PYTHONPATH=. that is wherever a command is typed) would replace ours. Here what PYTHONPATH
names comes last. This module stands alone at the top level because its own name has to be found first: the
`qd` script imports it, and processes that we start run it as a file, `python -P qd_start.py MODULE WORDS`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def ordered(path: list[str], named: str, root: str) -> list[str]:
    """The search path with `root` on it, and behind all else what PYTHONPATH (`named`) names."""
    foreign = {_absolute(word) for word in named.split(os.pathsep)} - {root} if named else set()
    late = [entry for entry in path if _absolute(entry) in foreign]
    own = [entry for entry in path if entry not in late]
    return [*own, *([] if root in own else [root]), *late]


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)  # noqa: PTH100 - links as they are, as in sys.path
    except OSError:  # the current folder was removed
        return entry


def _put_ours_first() -> None:
    root = str(Path(__file__).resolve().parent)
    sys.path[:] = ordered(sys.path, os.environ.get("PYTHONPATH", ""), root)


def qd() -> int:
    """The `qd` script; its exit code."""
    _put_ours_first()
    from console.cli.main import main

    return main()


def module() -> None:
    """Be the module that the first word names."""
    import runpy  # `qd` does not wait for it

    _put_ours_first()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    module()
