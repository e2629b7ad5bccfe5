"""The main job on a real cluster: from `qd submit` through Ray, guards and ranks to the registry."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.conftest import EXAMPLES, Cluster, until

pytestmark = pytest.mark.ray


def test_all_parts_are_well(cluster: Cluster) -> None:
    status = cluster.qd("status", "--json").json
    assert (status["state"], status["problems"]) == ("ok", [])
    assert status["cluster"] | {"jobs": {}} == {
        "nodes": 1, "gpus": 2, "simulated": True, "cpus": 4.0, "jobs": {},
    }  # fmt: skip
    (node,) = cluster.qd("nodes", "--json").json
    assert node["state"] == "READY"
    assert [gpu["simulated"] for gpu in node["gpus"]] == [True, True]
    assert cluster.qd("doctor").code == 0
    assert cluster.qd("top", "--once").code == 0


def test_any_command_runs_and_wait_ends_with_its_code(cluster: Cluster) -> None:
    assert cluster.qd("submit", "--no-workdir", "--wait", "--", "true").code == 0
    failed = cluster.qd("submit", "--no-workdir", "--wait", "--", "exit 7")
    assert failed.code == 7
    assert cluster.qd("wait", "last").code == 7
    killed = cluster.submit("--", "kill -9 $$")
    assert cluster.qd("wait", killed).code == 128 + signal.SIGKILL
    assert cluster.qd("wait", failed.out.split()[0], killed).code == 7


def test_digits_trains_on_two_ranks_to_a_recorded_accuracy(cluster: Cluster) -> None:
    done = cluster.qd(
        "submit", str(EXAMPLES / "digits" / "job.yaml"), "--watch",
        "--python", sys.executable, "--gpus", "2", "--env", "OMP_NUM_THREADS=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "[r0]" in done.out
    assert "[r1]" in done.out
    job = cluster.qd("job", "last", "--json").json
    assert job["state"] == "SUCCEEDED"
    assert job["metrics"]["val_acc"]["value"] > 0.95
    assert job["objective"]["value"] == job["metrics"]["val_acc"]["value"]
    (attempt,) = job["attempts"]
    assert [(rank["rank"], rank["exit_code"]) for rank in attempt["ranks"]] == [(0, 0), (1, 0)]
    assert [len(rank["gpus"]) for rank in attempt["ranks"]] == [1, 1]
    (artifact,) = job["artifacts"]
    assert (cluster.where.blobs / "sha256" / artifact["digest"][7:9]).is_dir()
    accuracies = cluster.qd("metrics", job["id"], "--name", "val_acc", "--json").documents
    assert [point["step"] for point in accuracies] == sorted(point["step"] for point in accuracies)
    assert accuracies[-1]["value"] > accuracies[0]["value"]


def test_a_torchrun_script_runs_unchanged_on_two_ranks(cluster: Cluster) -> None:
    done = cluster.qd(
        "submit", str(EXAMPLES / "plain" / "job.yaml"), "--wait", "--python", sys.executable
    )
    assert done.code == 0, done.err
    assert {rank for rank, _ in cluster.lines("last")} == {0, 1}


def test_a_ray_job_drives_the_cluster(cluster: Cluster) -> None:
    done = cluster.qd(
        "submit", str(EXAMPLES / "ray" / "job.yaml"), "--wait", "--python", sys.executable
    )
    assert done.code == 0, done.err
    volume = cluster.qd("job", "last", "--json").json["metrics"]["volume"]["value"]
    assert volume == pytest.approx(5.2638, abs=0.05)


RAY_PROGRAM = """
import os, sys, quarterdeck, ray
from beside import NAME

@ray.remote
class Actor:
    def work(self):
        print("printed by an actor of", NAME)
        quarterdeck.log(total=3)
        with open("written", "w") as file:
            file.write("x")
        names = ("GREETING", "TOKEN", "QD_JOB", "QD_NODE_STATE")
        return [sys.executable, os.getcwd(), *map(os.environ.get, names)]

ray.init()
told = ray.get(Actor.remote().work.remote())
assert told == [sys.executable, os.getcwd(), "hi", "s3cret", os.environ["QD_JOB"], None], told
"""


def test_tasks_of_a_ray_job_run_as_its_driver_does(cluster: Cluster, tmp_path: Path) -> None:
    """In its folder, with its variables, secrets and interpreter; its log and metrics have theirs."""
    (tmp_path / "drive.py").write_text(RAY_PROGRAM)
    (tmp_path / "beside.py").write_text("NAME = 'ball'\n")
    (tmp_path / "job.yaml").write_text(
        "kind: ray\ncommand: python drive.py\nenv: {GREETING: hi}\nsecrets: [TOKEN]\n"
        f"outputs: {{left: written}}\npython: {sys.executable}\n"
    )
    environ = cluster.environ | {"TOKEN": "s3cret"}
    done = replace(cluster, environ=environ).qd("submit", str(tmp_path / "job.yaml"), "--wait")
    assert done.code == 0, cluster.qd("logs", "last").out
    assert (0, "printed by an actor of ball") in cluster.lines("last")
    job = cluster.qd("job", "last", "--json").json
    assert job["metrics"]["total"]["value"] == 3
    assert cluster.qd("cat", "last", "left").out == "x"


RANK = """
import json, os
seen = {name: value for name, value in os.environ.items()}
score = open("/proc/self/oom_score_adj").read()
print(json.dumps([seen, os.nice(0), int(score)]))
"""


def test_ranks_get_what_torchrun_gives(cluster: Cluster) -> None:
    job = cluster.submit(
        "--procs", "2", "--gpus", "2", "--wait", "--", "python", "-c", RANK
    ).split()[0]
    told = [(rank, json.loads(line)) for rank, line in cluster.lines(job)]
    assert len(told) == 2
    for rank, (environ, nice, score) in told:
        expected = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
            "NODE_RANK": 0, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1",
        }  # fmt: skip
        assert {name: environ.get(name) for name in expected} == {
            name: str(value) for name, value in expected.items()
        }
        assert int(environ["MASTER_PORT"]) > 1024
        assert not [name for name in environ if name.startswith("RAY_")], "the token above all"
        assert environ["PYTHONUNBUFFERED"] == "1"
        assert (nice, score) == (0, 0), "what Ray leaves on its children is taken off"
    (_, one), (_, two) = told
    assert one[0]["MASTER_PORT"] == two[0]["MASTER_PORT"]
    # Simulated GPUs are none that CUDA could open.
    assert one[0]["CUDA_VISIBLE_DEVICES"] == two[0]["CUDA_VISIBLE_DEVICES"] == ""


def test_explain_says_why_a_job_waits_and_what_would_help(cluster: Cluster) -> None:
    holder = cluster.submit("--cpus", "4", "--", "exec sleep 100")
    until(lambda: cluster.qd("job", holder, "--json").json["state"] == "RUNNING")
    waiting = cluster.submit("--cpus", "2", "--", "true")
    story = until(lambda: _reasons(cluster, waiting))
    assert story["state"] == "QUEUED"
    assert any("CPU" in reason for reason in story["reasons"])
    assert any(holder in change["change"] for change in story["unblock"])
    assert holder in cluster.qd("explain", waiting).out
    assert cluster.qd("cancel", holder).code == 0
    assert cluster.qd("wait", waiting).code == 0
    assert cluster.qd("wait", holder).code == 1


def _reasons(cluster: Cluster, job: str) -> dict[str, list[dict[str, str]]] | None:
    story: dict[str, list[dict[str, str]]] = cluster.qd("explain", job, "--json").json
    return story if story["unblock"] else None


def test_explain_names_the_rank_that_failed_first(cluster: Cluster) -> None:
    command = "if [ $RANK = 1 ]; then echo out of luck; exit 3; fi; exec sleep 100"
    job = cluster.submit("--procs", "2", "--", command)
    assert cluster.qd("wait", job).code == 3
    failure = cluster.qd("explain", job, "--json").json["first_failure"]
    assert (failure["rank"], failure["exit_code"], failure["tail"]) == (1, 3, ["out of luck"])
    (node,) = cluster.qd("nodes", "--json").json
    assert failure["node"] == node["name"]
    assert "out of luck" in cluster.qd("explain", job).out
    shot = cluster.submit("--", "kill -11 $$")
    assert cluster.qd("wait", shot).code == 128 + signal.SIGSEGV
    assert cluster.qd("explain", shot, "--json").json["first_failure"]["signal"] == "SIGSEGV"


SPIN = """
def wait_for_peers():
    import time
    time.sleep(100)
print("here")
wait_for_peers()
"""


def test_stacks_shows_where_all_ranks_are(cluster: Cluster) -> None:
    job = cluster.submit("--procs", "2", "--", "python", "-c", SPIN)
    until(lambda: len(cluster.lines(job)) == 2)
    told = cluster.qd("stacks", job)
    assert told.code == 0, told.err
    assert "wait_for_peers" in told.out
    assert cluster.qd("cancel", job).code == 0


def test_the_same_key_is_the_same_job(cluster: Cluster) -> None:
    first = cluster.qd("submit", "--no-workdir", "--key", "nightly", "--json", "--", "true").json
    again = cluster.qd("submit", "--no-workdir", "--key", "nightly", "--json", "--", "true").json
    assert (first["created"], again["created"]) == (True, False)
    assert first["id"] == again["id"]


def test_code_travels_and_the_run_knows_which(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "said.py").write_text("print('from the work folder')\n")
    job = cluster.qd("submit", "--wait", "--workdir", str(tmp_path), "--", "python said.py")
    assert job.code == 0, job.err
    assert cluster.lines("last") == [(0, "from the work folder")]
    assert cluster.qd("job", "last", "--json").json["snapshot"].startswith("sha256:")
