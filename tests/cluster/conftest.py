"""One fleet for all tests of this folder, as long as they leave it well."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

import pytest

from tests.cluster.fleet import Fleet
from tests.cluster.hosts import cannot, network

WORKERS = 2


class Holder:
    """The fleet that is up, if one is."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.fleet: Fleet | None = None
        self.failed = False

    def get(self) -> Fleet:
        if self.fleet is None:
            self.fleet = Fleet(self._stack.enter_context(network()), WORKERS)
            self.fleet.up()
        return self.fleet

    def close(self) -> None:
        """Switch everything off."""
        self.fleet = None
        self._stack.close()


_HOLDER = pytest.StashKey[Holder]()


@pytest.fixture(scope="session")
def holder(request: pytest.FixtureRequest) -> Iterator[Holder]:
    if reason := cannot():
        pytest.skip(reason)
    held = request.config.stash[_HOLDER] = Holder()
    try:
        yield held
        if held.fleet is not None and not held.failed:
            held.fleet.down()
    finally:
        held.close()


@pytest.fixture
def fleet(holder: Holder) -> Iterator[Fleet]:
    """A head and two workers, well and idle. They must be so again at the end."""
    holder.failed = True  # until the opposite is proved
    fleet = holder.get()
    yield fleet
    if not holder.failed:
        fleet.until_well()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After a failure: say what the hosts have logged, and let the next test have a new fleet."""
    report = yield
    holder = item.config.stash.get(_HOLDER, None)
    if holder is not None and holder.fleet is not None:
        if call.when == "call":
            holder.failed = report.failed
        if report.failed:
            holder.failed = True
            for host in holder.fleet.network.hosts:
                report.sections.append((f"host {host.name}", host.logs(40)))
            holder.close()
    return report
