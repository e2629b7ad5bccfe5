"""What it costs to watch eight GPUs once a second: our agent as it runs in a cluster, and nvitop's
collector, each over the same stand-in for the driver's library."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil

from tests.bench.report import Row, paired
from tests.chaos.cluster import Cluster
from tests.waiting import until

STUB = Path(__file__).parents[1] / "agents" / "node" / "telemetry" / "stub_nvml.c"
GPUS = 8
SECONDS = 8.0
"""Of one measurement: as many samples."""

_NVITOP = """
import sys, time
from nvitop import Device, ResourceMetricCollector
seconds = float(sys.argv[1])
devices = Device.all()
assert len(devices) == int(sys.argv[2]), devices
ResourceMetricCollector(devices).daemonize(lambda metrics: True, interval=1.0)
time.sleep(3)
began = time.process_time()
time.sleep(seconds)
print((time.process_time() - began) / seconds)
"""


def stub(folder: Path) -> dict[str, str]:
    """Build the stand-in in `folder`; the environment in which a program finds it."""
    output = folder / "libnvidia-ml.so.1"
    words = ["gcc", "-O2", "-shared", "-fPIC", f"-DGPUS={GPUS}", "-o", str(output), str(STUB)]
    subprocess.run(words, check=True, timeout=60)
    return {"LD_LIBRARY_PATH": str(folder)}


def agents_cpu(cluster: Cluster, rounds: int) -> Row:
    """The share of a core that the cluster's agent takes, against nvitop's collector. The cluster must
    run over the stub, without simulated GPUs."""

    def seen() -> bool:
        (node,) = cluster.client.get("/v1/nodes")
        return len(node["gpus"]) == GPUS and node["seen_at"] is not None

    until(seen, f"{GPUS} GPUs")
    agent = cluster.agent()
    row = paired(
        f"CPU of an agent, {GPUS} GPUs at 1 Hz",
        lambda: used(agent),
        "nvitop's collector",
        lambda: nvitops(cluster.environ),
        "<= 1.5 and 1.5 % of a core",
        rounds,
    )
    return replace(row, unit="%", limit=1.5)


def used(process: psutil.Process) -> float:
    """Percent of a core that a process takes."""
    before = sum(process.cpu_times()[:2])
    time.sleep(SECONDS)
    return 100.0 * (sum(process.cpu_times()[:2]) - before) / SECONDS


def nvitops(environ: dict[str, str]) -> float:
    words = [sys.executable, "-c", _NVITOP, str(SECONDS), str(GPUS)]
    env = {**os.environ, "LD_LIBRARY_PATH": environ["LD_LIBRARY_PATH"]}
    done = subprocess.run(words, env=env, check=True, capture_output=True, text=True, timeout=120)
    return 100.0 * float(done.stdout)
