"""Prometheus' own judgement of what we write."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROMTOOL = shutil.which("promtool")


def check_metrics(text: str) -> None:
    """Fails on what `promtool check metrics` has to say; skips the test without it."""
    if PROMTOOL is None:
        pytest.skip("there is no promtool")
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text.encode(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), done.stderr.decode()


def check_rules(file: Path) -> None:
    if PROMTOOL is None:
        pytest.skip("there is no promtool")
    done = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def value(text: str, series: str) -> float:
    """Of one sample, `name{labels}` as it is written."""
    found = [line for line in text.splitlines() if line.rpartition(" ")[0] == series]
    assert len(found) == 1, f"{series}: {found}"
    return float(found[0].rpartition(" ")[2])
