"""What the console imports: start-up time is import time."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import console.tui.core

HEAVY = (
    "pydantic",
    "ray",
    "sqlmodel",
    "sqlalchemy",
    "optuna",
    "httpx",
    "fastapi",
    "uvicorn",
    "numpy",
)


def modules(statement: str) -> list[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_the_console_imports_no_heavy_machinery() -> None:
    loaded = modules("import console.tui.app, console.tui.source")
    assert [name for name in loaded if name.split(".")[0] in HEAVY] == []
    assert [name for name in loaded if name.startswith("agents")] == []


def test_the_core_knows_no_textual() -> None:
    core = [m.name for m in pkgutil.walk_packages(console.tui.core.__path__, "console.tui.core.")]
    assert len(core) > 30
    loaded = modules(f"import {', '.join(core)}")
    assert [name for name in loaded if name.split(".")[0] in ("textual", *HEAVY)] == []
