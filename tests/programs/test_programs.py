"""The examples of `examples/programs`, run unchanged on a real cluster of one machine."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.integration.conftest import REPOSITORY, Cluster
from tests.programs.conftest import PROGRAMS, lines, metrics, run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
slow = pytest.mark.slow


def test_a_script_as_nanogpt_is(cluster: Cluster) -> None:
    """One rank without a word of ranks, data that git ignores, curves from what it prints."""
    subprocess.run([sys.executable, "prepare.py"], cwd=PROGRAMS / "charlm", check=True)
    log = run(cluster, "charlm", "--python", sys.executable)
    assert log[0].startswith("step 0: train loss ")
    found = metrics(cluster)
    assert found.keys() == {"loss", "time_ms", "mfu", "train_loss", "val_loss"}
    assert found["loss"] < 3.2
    points = cluster.qd("metrics", "last", "--json", "--name", "loss").documents
    assert [point["step"] for point in points] == list(range(0, 201, 5)), "each `iter` line"


def test_torchrun_is_the_command(cluster: Cluster) -> None:
    """Its children write to one pipe: their lines may run together, as they do in a shell."""
    log = "".join(run(cluster, "torchrun", "--python", sys.executable))
    assert all(f"rank {rank} of 2: total 3" in log for rank in (0, 1))
    points = cluster.qd("metrics", "last", "--json", "--name", "share").documents
    assert {point["rank"]: point["value"] for point in points} == {0: 1.0, 1: 2.0}
    assert metrics(cluster) == {"share": 1.0}, "the curve is that of its rank 0"


@slow
def test_lightning_starts_its_second_process(cluster: Cluster, environments: Path) -> None:
    log = run(cluster, "lightning", "--python", str(environments / "torch"))
    assert {"rank 0 of 2", "rank 1 of 2"} <= set(log)
    assert metrics(cluster)["train_loss"] < 0.1, "from its event files"
    files = cluster.qd("files", "last", "--json").out
    assert "events.out.tfevents" in files
    assert '"place": "output"' in files


@slow
def test_the_trainer_of_transformers_writes_curves(cluster: Cluster, environments: Path) -> None:
    run(cluster, "transformers", "--python", str(environments / "torch"))
    found = metrics(cluster)
    assert found["train/loss"] < 3
    assert found["eval/loss"] < 3


@slow
def test_accelerates_own_test(cluster: Cluster, environments: Path) -> None:
    log = run(cluster, "accelerate", "--python", str(environments / "torch"))
    assert (
        "Training yielded the same results on one CPU or distributed setup with batch split." in log
    )


@slow
def test_jax_finds_its_processes(cluster: Cluster, environments: Path) -> None:
    log = run(cluster, "jax", "--python", str(environments / "jax"))
    assert {f"process {rank} of 2: total 3" for rank in (0, 1)} <= set(log)


@slow
def test_ray_train_reports_into_the_jobs_metrics(cluster: Cluster, environments: Path) -> None:
    log = run(cluster, "ray-train", "--python", str(environments / "torch"))
    job = cluster.qd("job", "last", "--json").json["id"]
    for worker in (0, 1):
        assert log.count(f"worker {worker} of job {job}, hello") == 1
    assert metrics(cluster).keys() == {"loss", "epoch"}
    assert metrics(cluster)["epoch"] == 4


@slow
def test_ray_tune_has_a_curve_for_each_trial(cluster: Cluster, environments: Path) -> None:
    log = run(cluster, "ray-tune", "--python", str(environments / "torch"))
    assert "best: {'x': 3.0}" in log
    assert metrics(cluster) == {
        f"{number:05}/score": pytest.approx((2 - number) ** 2 + 0.2) for number in range(3)
    }


@slow
def test_ray_data_runs_functions_of_the_work_folder(cluster: Cluster, environments: Path) -> None:
    log = run(cluster, "ray-data", "--python", str(environments / "torch"))
    assert "sum: 999000" in log
    assert f"a batch of 100 with {environments / 'torch' / 'bin' / 'python'}" in log


@slow
def test_an_environment_that_uv_made(cluster: Cluster, environments: Path, tmp_path: Path) -> None:
    uv = environments / "jax" / "bin" / "uv"
    made = tmp_path / "env"
    subprocess.run([uv, "venv", "-q", "--offline", "--python", sys.executable, made], check=True)
    done = cluster.qd(
        "submit", "--no-workdir", "--python", str(made), "--wait", "--",
        "python", "-c", "import sys; print(sys.prefix)",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert lines(cluster) == [str(made)]


@slow
@pytest.mark.timeout(900)
def test_a_language_model_is_fine_tuned_judged_and_served(
    cluster: Cluster, environments: Path, tmp_path: Path
) -> None:
    """`examples/llm`, whole; the service goes through the front, streaming included."""
    folder = REPOSITORY / "examples" / "llm"
    qd = tmp_path / "qd"
    qd.write_text(f'#!/bin/sh\nexec {shlex.join(cluster.command())} "$@"\n')
    qd.chmod(0o755)
    environ = cluster.environ | {"QD": str(qd)}
    done = subprocess.run(
        ["sh", str(folder / "release.sh"), str(environments / "torch")],
        env=environ, capture_output=True, text=True, check=False, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "seven, of course." in done.stdout and "may not be deployed to production" in done.stderr
    url = cluster.qd("deployments", "chat", "--json").json[0]["url"]
    body = json.dumps({"model": "llm", "stream": True, "prompt": "What is 9 + 9?"}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        events = answer.read().decode().split("\n\n")
    assert events[-2] == "data: [DONE]" and len(events) > 10
    pieces = [json.loads(event[6:])["choices"][0]["text"] for event in events[:-2]]
    assert "".join(pieces) == "eighteen, of course."
    cluster.qd("undeploy", "chat")
