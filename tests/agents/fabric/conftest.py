from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.base.places import Places, places


@dataclass(frozen=True)
class Cluster:
    """A real embedded cluster with a controller that does nothing: the tests are the controller."""

    where: Places
    environ: dict[str, str]

    def supervisor(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "agents.supervisor", *words],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def start(self, *words: str) -> dict[str, Any]:
        return self.supervisor("start", "--controller", "idle_controller", *words)

    def record(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.where.cluster_file.read_text())
        return value

    def pid(self, program: str) -> int:
        """The process of this cluster's Ray whose command line ends its first word with `program`."""
        session = self.record()["ray"]["process"]["pid"]
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    first = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
                except OSError:
                    continue
                if int(fields[3]) == session and first.endswith(program):
                    return int(folder.name)
        raise AssertionError(f"no {program} in session {session}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    home = Path(tempfile.mkdtemp(prefix="qdt-"))
    (home / "idle_controller.py").write_text("import time\nwhile True: time.sleep(60)\n")
    environ = dict(os.environ) | {
        "QD_HOME": str(home),
        "QD_NODE_NAME": "n1",
        "PYTHONPATH": str(home),
    }
    here = Cluster(places(environ), environ)
    here.start("--cpus", "4", "--simulate-gpus", "2")
    yield here
    answer = here.supervisor("stop", "--ranks")
    shutil.rmtree(home, ignore_errors=True)
    assert answer.get("stopped"), answer
    assert not here.where.ray_temp.exists()
