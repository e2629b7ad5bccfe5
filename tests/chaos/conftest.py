"""One real cluster for the tests of a file: what they kill comes back, and the next one kills again.
Tests of single moments have a plane in this process instead, where those can be hit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents.controller.conftest import make_plane, plane
from tests.chaos.cluster import Cluster, running

__all__ = ["cluster", "make_plane", "nothing_left", "plane", "small_disk"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with a cluster: nothing of its jobs is left."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").check_nothing_left()


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], None]]:
    """Puts a file system of so many KiB on a folder; again, to give it another size."""
    mounted: list[Path] = []

    def mount(folder: Path, kib: int) -> None:
        options = f"size={kib}k" + (",remount" if folder in mounted else "")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        if folder not in mounted:
            mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
