"""Our processes in a folder that holds modules named like ours, as many a repository does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.base import python
from qd_start import ordered

ROOT = str(python.ROOT)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose modules end whoever imports them."""
    for name in ("agents/__init__.py", "jobs.py", "console/__init__.py"):
        file = tmp_path / "repository" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise SystemExit('taken for one of ours')\n")
    return tmp_path / "repository"


@pytest.fixture
def home() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="qdt-") as folder:
        yield folder


@pytest.mark.parametrize("named", [None, "src:.", "here"])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["console.cli.main", "--help"], 0, "Usage"),
        (["console.cli.main", "status"], 5, "qd up"),
        (["agents.supervisor", "--help"], 0, "usage"),
        (["agents.supervisor", "stop"], 0, '"stopped"'),
        (["agents.fabric.driver"], 0, ""),  # without its arguments it ends
        (["agents.supervisor.ray_head", "--version"], 0, "version"),
        (["console.remote.carrier"], 2, "usage"),
        (["console.gateway.forks"], 1, "IndexError"),
        (["agents.daemon"], 1, "dialects:nonsense"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_folder_of_the_user_replaces_no_module_of_ours(
    hostile: Path, home: str, named: str | None, words: list[str], code: int, said: str
) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": home, "QD_HOME": home}
    environ["QD_DATABASE_URL"] = "nonsense://"
    if named is not None:
        environ["PYTHONPATH"] = str(hostile) if named == "here" else named
    done = subprocess.run(
        python.module(*words), cwd=hostile, env=environ, capture_output=True, text=True, timeout=60
    )
    assert "taken for one of ours" not in done.stderr
    assert said in done.stdout + done.stderr
    assert done.returncode == code


def test_a_folder_of_the_user_does_not_replace_the_qd_script(hostile: Path, home: str) -> None:
    """Where the wheel or the checkout is installed, PYTHONPATH comes before it."""
    script = home + "/qd"
    Path(script).write_text("import sys\nfrom qd_start import qd\nsys.exit(qd())\n")
    environ = {"PATH": os.environ["PATH"], "HOME": home, "QD_HOME": home}
    environ["PYTHONPATH"] = f".:{hostile}:{ROOT}"
    done = subprocess.run(
        [sys.executable, script, "status"], cwd=hostile, env=environ, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert "taken for one of ours" not in done.stderr
    assert "qd up" in done.stdout
    assert done.returncode == 5


def test_what_pythonpath_names_is_found_after_all_else(hostile: Path) -> None:
    """Where packages that we need are on PYTHONPATH alone, they are found."""
    assert ordered(["/lib", "/mine", "/site"], "/mine", "/site") == ["/lib", "/site", "/mine"]
    assert ordered(["/lib", "/site"], "", "/code") == ["/lib", "/site", "/code"]
    assert ordered(["/code", "/mine", "/lib"], "/code:/mine", "/code") == ["/code", "/lib", "/mine"]
    (hostile / "unique.py").write_text("print('found')\n")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(hostile)}
    command = python.module("unique")
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20)
    assert done.stdout == "found\n"


def test_workers_that_ray_starts_find_ours_first() -> None:
    assert python.search_path("") == ROOT
    assert python.search_path(f".:/data/lib:src:{ROOT}:") == f"{ROOT}:/data/lib"
