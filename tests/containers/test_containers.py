"""Ranks in real containers: a cluster of one machine, podman, and an image made of this machine's files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agents.node.staging import images
from tests.integration.conftest import REPOSITORY, Cluster, running, until

EXAMPLE = REPOSITORY / "examples" / "programs" / "container"
IMAGE = "localhost/quarterdeck-example:1"
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

_ONE_VERSION = """
mount --make-rprivate / && mount --rbind /sys/fs/cgroup/unified /mnt && umount -l /sys/fs/cgroup &&
mount --move /mnt /sys/fs/cgroup && exec "$0" "$@"
"""
"""A machine whose control groups are of both versions, as one that has those of the second."""

SLOW = """
import signal, subprocess, sys, time
def told(*_):
    print("told", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, told)
subprocess.Popen(["sleep", "600"])
print("up", sys.version.split()[0], flush=True)
while True:
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which podman keeps all that it has in a folder of this test's."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to give podman a store of its own")
    for program in ("podman", images.RUNTIME, "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("podman")
    store = f'driver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(f"[storage]\n{store}")
    return {"CONTAINERS_STORAGE_CONF": str(folder / "storage.conf")}


@pytest.fixture(scope="module")
def cluster(podman: dict[str, str]) -> Iterator[Cluster]:
    mixed = "version" in images.why_not()
    before = ["unshare", "--mount", "sh", "-c", _ONE_VERSION] if mixed else []
    subprocess.run(
        [sys.executable, "make_image.py"], cwd=EXAMPLE, env=os.environ | podman, check=True
    )
    with running(before, **podman) as here:
        yield here
    assert containers(podman) == []


def containers(podman: Mapping[str, str]) -> list[str]:
    """Those that podman knows."""
    done = subprocess.run(
        ["podman", "ps", "--all", "--format", "{{.Names}}"],
        env=os.environ | podman,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_example(cluster: Cluster, podman: dict[str, str]) -> None:
    done = cluster.qd("submit", str(EXAMPLE / "job.yaml"), "--wait")
    assert done.code == 0, [done.err, cluster.qd("logs", "last").out]
    job = cluster.qd("job", "last", "--json").json
    log = {line for _, line in cluster.lines(job["id"])}
    for rank in (0, 1):
        assert f"rank {rank} of 2, Python {sys.version.split()[0]}, uid 0" in log
    assert any(line.startswith("image: make_image.py files: bin ") for line in log)
    assert job["image"].startswith("sha256:")
    assert f"{IMAGE} ({job['image']})" in cluster.qd("job", "last").out
    assert job["metrics"]["loss"]["step"] == 4
    files = cluster.qd("files", "last").out
    for name in ("rank-0.txt", "rank-1.txt", "out-0.txt", "out-1.txt"):
        assert name in files
    assert containers(podman) == []


def test_an_exit_code_a_missing_image_and_memory(cluster: Cluster) -> None:
    done = cluster.qd(
        "submit", "--no-workdir", "--image", IMAGE, "--wait", "--", "sh", "-c", "exit 9"
    )
    assert done.code == 9
    done = cluster.qd("submit", "--no-workdir", "--image", "localhost/none:1", "--wait", "--", "sh")
    assert f"this node does not have it (it has {IMAGE})" in done.err
    hungry = "import time; x = bytearray(300 << 20); time.sleep(60)"
    words = ["--image", IMAGE, "--memory", "100MiB", "--wait", "--", "python", "-c", hungry]
    assert "ran out of memory" in cluster.qd("submit", "--no-workdir", *words).err


def test_a_stop_and_what_looks_into_a_rank(cluster: Cluster, podman: dict[str, str]) -> None:
    job = cluster.submit("--image", IMAGE, "--", "python", "-c", SLOW)
    until(lambda: cluster.lines(job))
    pid = until(lambda: _ranks(cluster, job)[0]["pid"])
    assert len(containers(podman)) == 1
    listing = cluster.qd("exec", job, "--", "python", "-c", "import os; print(os.listdir('/'))")
    assert "home" not in listing.out and "usr" in listing.out, "not the machine's own files"
    stacks = cluster.qd("stacks", job, "--json").json
    assert stacks["failed"] == {}, stacks
    assert cluster.qd("cancel", job).code == 0
    until(lambda: cluster.qd("job", job, "--json").json["state"] == "CANCELLED")
    (rank,) = _ranks(cluster, job)
    assert (rank["pid"], rank["exit_code"]) == (pid, 7)
    assert [line for _, line in cluster.lines(job)][1:] == ["told"]
    assert containers(podman) == []


def test_a_dead_guard_leaves_nothing(cluster: Cluster, podman: dict[str, str]) -> None:
    job = cluster.submit("--image", IMAGE, "--", "python", "-c", SLOW)
    until(lambda: cluster.lines(job))
    (folder,) = (cluster.where.state / "node" / "attempts").glob(f"*-{job}-*")
    handle = json.loads((folder / "handle.json").read_text())
    program = int((folder / "rank-0.pid").read_text())
    os.kill(handle["pid"], signal.SIGKILL)
    until(lambda: not Path(f"/proc/{program}").exists())
    cluster.qd("cancel", job)
    until(lambda: cluster.qd("job", job, "--json").json["ended_at"])
    until(lambda: containers(podman) == [])


def _ranks(cluster: Cluster, job: str) -> list[dict[str, object]]:
    ranks: list[dict[str, object]] = cluster.qd("job", job, "--json").json["attempts"][-1]["ranks"]
    return ranks
