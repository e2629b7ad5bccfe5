"""A rank is in its guard's cgroup from its first moment on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.node.guard import cgroups


@pytest.fixture
def cgroup() -> Iterator[str]:
    made = cgroups.make(f"qd-test-{os.getpid()}")
    if made is None:
        pytest.skip("no cgroup can be made here")
    yield made
    Path(made).rmdir()


def of_child(cgroup: str | None) -> str:
    """What a child says of the cgroup that it is in."""
    read, write = os.pipe()
    pid = cgroups.fork_into(cgroup)
    if pid == 0:
        os.write(write, Path("/proc/self/cgroup").read_bytes())
        os._exit(7)
    os.close(write)
    with os.fdopen(read) as file:
        told = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    return told


def test_a_child_is_born_in_it(cgroup: str) -> None:
    assert Path(cgroup).name in of_child(cgroup)
    assert Path(cgroup).name not in of_child(None)


def test_where_the_kernel_cannot_the_child_moves_in(
    cgroup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_SYS_CLONE3", 1000)  # no such call
    assert Path(cgroup).name in of_child(cgroup)


def test_a_cgroup_that_is_gone_keeps_nobody_from_starting() -> None:
    assert of_child("/sys/fs/cgroup/there-is-no-such")
