"""Jobs on a real GPU: what a rank sees, what is seen of it, and that a GPU is free when it is free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.gpu.conftest import LOAD, GpuCluster, smi, users
from tests.integration.conftest import EXAMPLES, until

pytestmark = pytest.mark.ray
GIB = 2**30


def test_a_rank_sees_its_gpu_alone_and_is_seen_on_it(cluster: GpuCluster, tmp_path: Path) -> None:
    gate = tmp_path / "end"
    job = cluster.load("--gpus", "1", gate=gate, options=("--hold", "4"))
    told = cluster.told(job)
    ((rank,),) = ([a["ranks"] for a in cluster.job(job)["attempts"]],)
    assert told["count"] == 1
    assert "GPU-" + told["uuid"] in rank[0]["gpus"]

    def busy() -> bool:
        (gpu,) = [g for g in cluster.gpus() if g["uuid"] == "GPU-" + told["uuid"]]
        return bool(
            gpu["util"] > 80
            and gpu["job"] == job
            and gpu["rank"] == 0
            and told["pid"] in gpu["processes"]
            and gpu["mem_used"] >= 4 * GIB
            and gpu["power"] > 200
        )

    until(busy, 30)
    assert told["pid"] in users()
    gate.touch()
    assert cluster.qd("wait", job).code == 0
    until(lambda: told["pid"] not in users(), 10)
    rates = [p["value"] for p in cluster.qd("metrics", job, "--name", "tflops", "--json").documents]
    assert max(rates) > 50


def test_halves_of_a_gpu_run_together_and_a_third_waits(
    cluster: GpuCluster, tmp_path: Path
) -> None:
    gates = [tmp_path / "a", tmp_path / "b"]
    count = len(smi("index"))
    if count != 1:
        pytest.skip("counts halves on a machine with one GPU")
    first, second = (cluster.load("--gpus", "0.5", gate=gate) for gate in gates)
    assert cluster.told(first)["uuid"] == cluster.told(second)["uuid"]
    third = cluster.submit("--gpus", "0.5", "--", "true")
    until(lambda: cluster.qd("explain", third, "--json").json["unblock"], 20)
    assert cluster.job(third)["state"] == "QUEUED"
    assert "GPU" in cluster.qd("explain", third).out
    gates[0].touch()
    assert cluster.qd("wait", third).code == 0
    gates[1].touch()
    assert cluster.qd("wait", first, second).code == 0


def test_training_on_the_gpu_outlives_the_controller(cluster: GpuCluster, tmp_path: Path) -> None:
    gate = tmp_path / "end"
    job = cluster.load("--gpus", "1", gate=gate)
    pid = cluster.told(job)["pid"]
    controller = _controller(cluster)
    os.kill(controller, signal.SIGKILL)
    until(lambda: _controller(cluster) not in (0, controller), 60)
    until(lambda: cluster.job(job)["state"] == "RUNNING", 30)
    assert cluster.told(job)["pid"] == pid
    assert pid in users()
    gate.touch()
    assert cluster.qd("wait", job).code == 0
    points = cluster.qd("metrics", job, "--name", "tflops", "--json").documents
    assert [p["step"] for p in points] == list(range(1, len(points) + 1))


def test_a_killed_rank_gives_its_memory_back_before_the_next_attempt(
    cluster: GpuCluster, tmp_path: Path
) -> None:
    gate = tmp_path / "end"
    half = float(smi("memory.total")[0][0]) / 1024 * 0.6
    job = cluster.load(
        "--gpus", "1", "--max-restarts", "1", gate=gate, options=("--hold", f"{half:.0f}")
    )
    first = cluster.told(job)["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: cluster.told(job).get("pid", first) != first, 60)
    assert first not in users()
    gate.touch()
    assert cluster.qd("wait", job).code == 0
    assert len(cluster.job(job)["attempts"]) == 2


def test_out_of_gpu_memory_is_said_in_words(cluster: GpuCluster) -> None:
    job = cluster.submit(
        "--gpus", "1", "--python", sys.executable,
        "--", "python", str(LOAD), "--hold", "500",
    )  # fmt: skip
    assert cluster.qd("wait", job).code == 1
    assert "out of memory" in cluster.qd("explain", job).out.lower()


def test_a_job_is_not_started_on_a_gpu_that_a_stranger_fills(
    cluster: GpuCluster, tmp_path: Path
) -> None:
    gib = float(smi("memory.total")[0][0]) / 1024 * 0.6
    stranger = subprocess.Popen(
        [sys.executable, str(LOAD), "--hold", f"{gib:.0f}"], stdout=subprocess.PIPE
    )
    try:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        job = cluster.submit("--gpus", "1", "--", "true")
        words = until(
            lambda: [
                line
                for line in cluster.qd("explain", job).out.splitlines()
                if "in use already" in line and str(stranger.pid) in line
            ],
            40,
        )
        assert "no job here started" in words[0]
        assert cluster.job(job)["state"] != "SUCCEEDED"
    finally:
        with suppress(psutil.Error):
            stranger.kill()
        stranger.communicate()
    assert cluster.qd("wait", job).code == 0


def test_digits_trains_with_nccl(cluster: GpuCluster) -> None:
    done = cluster.qd(
        "submit", str(EXAMPLES / "digits" / "job.yaml"), "--wait", "--procs", "1", "--gpus", "1",
        "--python", sys.executable,
    )  # fmt: skip
    assert done.code == 0, done.err + cluster.qd("logs", "last").out
    assert cluster.job("last")["metrics"]["val_acc"]["value"] > 0.95


def test_a_sweep_shares_the_gpu_and_leaves_it_free(cluster: GpuCluster, tmp_path: Path) -> None:
    script = tmp_path / "trial.py"
    script.write_text(
        "import sys, torch, quarterdeck\n"
        "x = torch.tensor(float(sys.argv[1]), device='cuda')\n"
        "quarterdeck.log(step=1, loss=float((x - 2) ** 2))\n"
        "print(torch.cuda.get_device_properties(0).uuid)\n"
    )
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "name: quarters\n"
        f"job: {{command: '{sys.executable} {script} {{x}}', resources: {{gpu: 0.25, cpu: 1}}}}\n"
        "space: {x: {low: 0.0, high: 4.0}}\n"
        "objective: {metric: loss, goal: minimize}\n"
        "trials: 8\nparallel: 4\n"
    )
    done = cluster.qd("sweep", str(sweep), "--watch")
    assert done.code == 0, done.err
    rows = cluster.qd("trials", "last", "--json").json
    assert len(rows) == 8
    assert {row["state"] for row in rows} == {"COMPLETE"}
    until(lambda: all(gpu["job"] is None for gpu in cluster.gpus()), 20)
    assert users() == set()


def _controller(cluster: GpuCluster) -> int:
    """Process id of the controller that answers; 0 while none does."""
    status = cluster.qd("status", "--json")
    return int(status.json.get("pid", 0)) if status.code == 0 else 0
