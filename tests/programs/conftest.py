"""Frameworks that nobody here wrote, each in an environment of its own, which `make test-programs` makes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import REPOSITORY, Cluster
from tests.integration.conftest import cluster as cluster  # a fixture: one for this folder

PROGRAMS = REPOSITORY / "examples" / "programs"


@pytest.fixture(scope="session")
def environments() -> Path:
    """The folder of the environments."""
    folder = REPOSITORY / ".programs"
    if not folder.is_dir():
        pytest.skip("`make test-programs` makes the environments")
    return folder


def _qd(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that may take minutes, since frameworks are slow to import on a busy machine, and whose
    output may hold a traceback: Ray logs one when it is slow to answer."""
    return subprocess.run(
        cluster.command(*words),
        env=cluster.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=350,
    )


def lines(cluster: Cluster) -> list[str]:
    """What the newest job wrote."""
    done = _qd(cluster, "logs", "last", "--json")
    return [json.loads(line)["line"] for line in done.stdout.splitlines()]


def run(cluster: Cluster, name: str, *words: str) -> list[str]:
    """Submit an example and see it end well; its log."""
    done = _qd(cluster, "submit", str(PROGRAMS / name / "job.yaml"), "--wait", *words)
    assert done.returncode == 0, "\n".join([done.stderr, *lines(cluster)[-20:]])
    return lines(cluster)


def metrics(cluster: Cluster) -> dict[str, float]:
    """The last value of each metric of the newest job."""
    found = cluster.qd("job", "last", "--json").json["metrics"]
    return {name: metric["value"] for name, metric in found.items()}
