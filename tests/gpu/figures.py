"""`python -m tests.gpu.figures`: what Quarterdeck costs a GPU node, as rows for docs/gpu-runs.md.

The peer for the cost of watching is nvitop's own collector, which reads the same driver once a second.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import psutil

from agents.node.telemetry.nvml import NvmlGpus
from tests.gpu.conftest import LOAD, GpuCluster, running, smi
from tests.integration.conftest import processes_of, until

SECONDS = 15
_NVITOP = """
import sys, time
from nvitop import ResourceMetricCollector
collector = ResourceMetricCollector(root_pids={1}, interval=1.0)
with collector(tag="figures"):
    time.sleep(3)
    began = time.process_time()
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        collector.collect()
        time.sleep(1)
print((time.process_time() - began) / float(sys.argv[1]) * 100)
"""


def bare() -> list[float]:
    """TFLOP/s of each second of the load, without Quarterdeck."""
    done = subprocess.run(
        [sys.executable, str(LOAD), "--seconds", str(SECONDS)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [float(line.split()[1]) for line in done.stdout.splitlines() if "tflops" in line]


def watched(cluster: GpuCluster) -> list[float]:
    """The same load as a job."""
    job = cluster.load("--gpus", "1", options=("--seconds", str(SECONDS)))
    assert cluster.qd("wait", job).code == 0
    points = cluster.qd("metrics", job, "--name", "tflops", "--json").documents
    return [point["value"] for point in points]


def cpu(process: psutil.Process, seconds: float) -> float:
    """Percent of a core."""
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / seconds * 100


def row(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


def middle(rates: list[float]) -> str:
    inner = rates[3:]  # clocks rise, caches fill
    return f"median {statistics.median(inner):.1f} TFLOP/s of {len(inner)} s"


def main() -> None:
    print("| what | figure |\n|---|---|")
    row("GPU", ", ".join(smi("name,driver_version,memory.total")[0]))
    source = NvmlGpus()
    times = []
    for _ in range(50):
        began = time.perf_counter()
        (first, *_) = source.sample({})
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(0.1)
    source.close()
    unread = [name for name, value in first.items() if value is None]
    row("one NVML sample", f"median {statistics.median(times):.2f} ms, worst {max(times):.2f} ms")
    row("fields that this GPU does not give", ", ".join(unread) or "none")
    with running() as cluster:
        without, within = bare(), watched(cluster)
        row("the load alone", middle(without))
        row("the load as a job", middle(within))
        ratio = statistics.median(within[3:]) / statistics.median(without[3:])
        row("job ÷ alone", f"{ratio:.4f}")
        job = cluster.load("--gpus", "1")
        (agent,) = [
            process
            for process in processes_of(cluster.where.state.parent)
            if process.cmdline()[0].startswith("ray::AgentActor")
        ][:1]
        row("agent while the GPU works, 1 Hz", f"{cpu(agent, SECONDS):.2f} % of a core")
        pid = cluster.told(job)["pid"]
        (gpu,) = [g for g in cluster.gpus() if pid in g["processes"]]
        keys = ("util", "mem_used", "power", "temp", "sm_clock", "throttle", "pcie_rx")
        row("a sample under load", json.dumps({key: gpu[key] for key in keys}))
        nvitop = subprocess.run(
            [sys.executable, "-c", _NVITOP, str(SECONDS)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        row("nvitop's collector, 1 Hz", f"{nvitop.stdout.strip() or nvitop.stderr[-200:]} %")
        assert cluster.qd("cancel", job).code == 0
        until(lambda: all(gpu["job"] is None for gpu in cluster.gpus()), 30)
        first_line(cluster)


def first_line(cluster: GpuCluster) -> None:
    """How long `qd submit` takes to a first line that was computed on the GPU."""
    code = "import torch; print('sum', torch.ones(3, device='cuda').sum().item(), flush=True)"
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = cluster.qd(
            "submit", "--no-workdir", "--watch", "--gpus", "1", "--python", sys.executable,
            "--", "python", "-c", code,
        )  # fmt: skip
        assert done.code == 0, done.err
        assert "sum 3.0" in done.out
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
    alone = time.perf_counter() - began
    row(
        "a CUDA one-liner, submitted and watched to its end",
        f"{statistics.median(times):.2f} s; alone {alone:.2f} s",
    )


if __name__ == "__main__":
    main()
