"""A disk that is full, broken or read-only from any call on: when it is well, all ends by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.disks import SCENARIOS

SOURCE = Path(__file__).with_name("diskfault.c")

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc is needed to build the library that refuses calls"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("library") / "diskfault.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(output)]
    subprocess.run([*command, str(SOURCE), "-ldl"], check=True, timeout=60)
    return output


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_disk_refuses_is_done_when_it_takes_it(
    name: str, library: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.faults.disks", str(library), str(tmp_path), name]
    environ = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 3, "the library refuses nothing"
