"""A cluster started and used from a folder whose modules are named like ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobs.base import python
from jobs.base.places import places

pytestmark = pytest.mark.ray

PROGRAM = "import agents, jobs, console; print(agents.whose, jobs.whose, console.whose)"


@pytest.mark.parametrize("named", [".", "here"])
def test_from_up_to_down_in_a_folder_with_modules_named_like_ours(
    tmp_path: Path, named: str
) -> None:
    """The cluster is ours, and the job's modules are the job's."""
    for name in ("agents/__init__.py", "jobs.py", "console/__init__.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("whose = 'mine'\n")
    (tmp_path / "train.py").write_text(PROGRAM)
    home = Path(tempfile.mkdtemp(prefix="qdt-"))
    environ = {**os.environ, "QD_HOME": str(home)}
    environ["PYTHONPATH"] = str(tmp_path) if named == "here" else named

    def qd(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            python.module("console.cli.main", *words),
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=100,
        )

    try:
        up = qd("up", "--cpus", "2", "--simulate-gpus", "1")
        assert up.returncode == 0, up.stderr
        done = qd("submit", "--wait", "--python", sys.executable, "--", "python", "train.py")
        assert done.returncode == 0, done.stderr
        assert "mine mine mine" in qd("logs", "j1", "--raw").stdout
    finally:
        down = qd("down", "--force")
        left = places(environ).ray_temp
        shutil.rmtree(home, ignore_errors=True)
    assert down.returncode == 0, down.stderr
    assert not left.exists()
