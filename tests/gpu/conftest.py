"""A real cluster on the real GPUs of this machine, and what the driver's own tool says of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.base.places import places
from tests.integration.conftest import Cluster, processes_of, until

LOAD = Path(__file__).with_name("load.py")


def smi(query: str, kind: str = "gpu") -> list[list[str]]:
    """Rows of `nvidia-smi --query-KIND=QUERY`."""
    done = subprocess.run(
        ["nvidia-smi", f"--query-{kind}={query}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line]


def users() -> set[int]:
    """Processes that compute on a GPU, by the driver's account."""
    return {int(row[0]) for row in smi("pid", "compute-apps")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if why := _missing():
        here = Path(__file__).parent
        for item in items:
            if item.path.is_relative_to(here):
                item.add_marker(pytest.mark.skip(reason=why))


def _missing() -> str:
    if shutil.which("nvidia-smi") is None or not Path("/dev/nvidia0").exists():
        return "needs an NVIDIA GPU and its driver"
    probe = [sys.executable, "-c", "import torch; raise SystemExit(not torch.cuda.is_available())"]
    if subprocess.run(probe, capture_output=True, check=False, timeout=120).returncode != 0:
        return "needs a torch that can use CUDA"
    return ""


class GpuCluster(Cluster):
    """A cluster on real GPUs."""

    def load(self, *words: str, gate: Path | None = None, options: tuple[str, ...] = ()) -> str:
        """Submit the load with these options of `qd submit`; the job's id, once it computes."""
        told = ["--gate", str(gate)] if gate is not None else []
        job = self.submit(
            *words, "--python", sys.executable, "--", "python", str(LOAD), *told, *options
        )
        until(lambda: self.told(job), 60)
        return job

    def told(self, job: str) -> dict[str, Any]:
        """What the newest attempt's rank 0 said of its GPU; empty before it did."""
        said = [line for rank, line in self.lines(job) if rank == 0 and line.startswith("{")]
        return dict(json.loads(said[-1])) if said else {}

    def job(self, job: str) -> dict[str, Any]:
        return dict(self.qd("job", job, "--json").json)

    def gpus(self) -> list[dict[str, Any]]:
        (node,) = self.qd("nodes", "--json").json
        return list(node["gpus"])


@pytest.fixture(scope="package")
def cluster() -> Iterator[GpuCluster]:
    with running() as here:
        yield here


@pytest.fixture(autouse=True)
def the_gpus_are_free(cluster: GpuCluster) -> Iterator[None]:
    """A test that fails holds no GPU that the next one needs."""
    yield
    open_jobs = [job["id"] for job in cluster.qd("jobs", "--json").json if job["ended_at"] is None]
    if open_jobs:
        cluster.qd("cancel", *open_jobs)
        cluster.qd("wait", *open_jobs)


@contextmanager
def running() -> Iterator[GpuCluster]:
    """A cluster on this machine's GPUs; nothing of it may be left, on the GPUs neither."""
    home = Path(tempfile.mkdtemp(prefix="qdg-"))
    environ = {k: v for k, v in os.environ.items() if k not in ("CONDA_PREFIX", "QD_DEBUG")}
    environ |= {"QD_HOME": str(home), "VIRTUAL_ENV": sys.prefix, "NO_COLOR": "1"}
    here = GpuCluster(places(environ), environ)
    before = users()
    up = here.qd("up", "--json")
    try:
        assert up.code == 0, up.err
        yield here
    finally:
        down = here.qd("down", "--force", "--json")
        left = processes_of(home)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(home, ignore_errors=True)
    assert down.code == 0, down.err
    assert left == []
    assert users() <= before, "nothing of ours computes any more"
