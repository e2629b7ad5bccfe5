"""One site for all tests of this folder: three bare hosts that the playbook has made a cluster of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.machines import CACHE, cannot, network
from tests.hosts.site import Site, wheelhouse


@pytest.fixture(scope="session")
def bare() -> Iterator[Site]:
    """Hosts with nothing of ours on them."""
    if reason := cannot():
        pytest.skip(reason)
    archive = wheelhouse(CACHE / "dist")
    with network("head", "w1", "w2") as made:
        made.power_on()
        yield Site(made, archive)


@pytest.fixture(scope="session")
def site(bare: Site) -> Site:
    """A cluster of a head and two workers, as `site.yml` leaves it."""
    bare.add_person("ben")
    bare.play("site.yml")
    return bare
