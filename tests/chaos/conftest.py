"""One real cluster for the tests of a file: what they kill comes back, and the next one kills again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.cluster import Cluster, running


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
