"""`qd down --force` stops everything, whatever has become of the disk that the cluster's state is on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster, small_disks

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]

SMALL, LARGE = 64 << 10, 512 << 10


def mounted(*words: str) -> None:
    if subprocess.run(["mount", *words], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")


@contextlib.contextmanager
def full(cluster: Cluster) -> Iterator[None]:
    with (cluster.places.state / "ballast").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield


@contextlib.contextmanager
def read_only(cluster: Cluster) -> Iterator[None]:
    state = str(cluster.places.state)
    mounted("--rbind", state, state)
    try:
        mounted("-o", "remount,bind,ro", state)
        yield
    finally:
        subprocess.run(["umount", "-R", "--lazy", state], check=True)


@contextlib.contextmanager
def gone(cluster: Cluster) -> Iterator[None]:
    """Another, empty disk is where the state was, and takes nothing."""
    state = str(cluster.places.state)
    mounted("-t", "tmpfs", "-o", "ro", "tmpfs", state)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)


@contextlib.contextmanager
def damaged(cluster: Cluster) -> Iterator[None]:
    where = cluster.places
    for path in (where.cluster_file, where.database, *where.node.glob("attempts/*/handle.json")):
        path.write_bytes(os.urandom(4096))
    yield


@pytest.mark.parametrize(
    ("fault", "controller"),
    [(full, True), (read_only, True), (gone, True), (damaged, True), (gone, False)],
)
def test_everything_is_stopped(
    fault: Callable[[Cluster], contextlib.AbstractContextManager[None]], controller: bool
) -> None:
    home = Path(tempfile.mkdtemp(prefix="qdc-", dir="/tmp"))
    cluster = Cluster(home, simulate_gpus=1)
    where = cluster.places
    with ExitStack() as stack:
        stack.callback(
            shutil.rmtree, home, ignore_errors=True
        )  # last, once nothing is mounted there
        stack.enter_context(small_disks({where.state: SMALL, where.node: LARGE}))
        if not where.state.is_mount():
            pytest.skip("a small file system cannot be mounted here")
        cluster.up()
        try:
            cluster.steady()
            if not controller:  # neither it nor its supervisor will ever answer
                supervisor = json.loads(where.cluster_file.read_text())["supervisor"]["pid"]
                os.kill(cluster.controller().pid, signal.SIGSTOP)
                os.kill(supervisor, signal.SIGSTOP)
            stack.enter_context(fault(cluster))
            done = cluster.qd("down", "--force")
            left = [" ".join(process.cmdline()) for process in cluster.processes()]
            assert done.returncode == 0, done.stderr
            assert left == [], done.stderr
            assert "The cluster is down." in done.stdout
            assert not where.ray_temp.exists()
        finally:
            for process in cluster.processes():
                with contextlib.suppress(Exception):
                    process.kill()
