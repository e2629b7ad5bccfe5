"""What a Ray driver asks of Ray for its tasks; with the real Ray in tests/integration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.node.staging.environment import WORKER_FOLDER

LOOK = """
import json, quarterdeck_ray
given = json.loads('''{given}''')
made = quarterdeck_ray.runtime_env(given or None)
begin = made.pop("worker_process_setup_hook")
print(json.dumps(made))
"""
BEGIN = """
import os, sys, quarterdeck_ray
begin = quarterdeck_ray.runtime_env({"worker_process_setup_hook": "own.hook"})["worker_process_setup_hook"]
os.environ["QD_NODE_STATE"] = "the agent's"
del os.environ["TOKEN"]
begin()
print("two", "words")
print(":task_name:mine\\n", end="")
sys.stderr.write("err\\n")
os.system("echo child")
print(os.getcwd(), os.environ["TOKEN"], "QD_NODE_STATE" in os.environ, os.environ["OWN"])
print(sys.stdout is sys.__stdout__)
"""


def run(program: str, folder: Path, **env: str) -> str:
    """What a driver prints that runs `program` in an attempt's folder."""
    (folder / "work").mkdir(exist_ok=True)
    (folder / "work" / "own.py").write_text("import os\ndef hook(): os.environ['OWN'] = 'called'\n")
    base = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{WORKER_FOLDER}:{folder / 'work'}",
        "QD_WORK_DIR": str(folder / "work"),
        "QD_RAY_LOG": str(folder / "rank-0.log"),
        "QD_RAY_SECRETS": "TOKEN",
        "QD_RAY_DRIVER_ONLY": "OMP_NUM_THREADS",
        "TOKEN": "s3cret",
        "GREETING": "hi",
        "OMP_NUM_THREADS": "3",
        "RAY_ADDRESS": "10.0.0.1:6379",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "QD_RAY_FOR_TASKS": "RAY_CHDIR_TO_TRIAL_DIR",
    }
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=base | env, cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def made(folder: Path, given: dict[str, Any] | None = None, **env: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        run(LOOK.replace("{given}", json.dumps(given)), folder, **env)
    )
    return answer


def test_tasks_get_the_drivers_interpreter_and_variables(tmp_path: Path) -> None:
    env = made(tmp_path)
    assert env["py_executable"] == sys.executable
    assert env["env_vars"]["GREETING"] == "hi"
    assert env["env_vars"]["RAY_CHDIR_TO_TRIAL_DIR"] == "0", "the job says so"
    assert not {"TOKEN", "OMP_NUM_THREADS", "RAY_ADDRESS"} & env["env_vars"].keys()
    assert "working_dir" not in env, "one machine: they work in the folder itself"


def test_what_the_program_asks_for_goes_first(tmp_path: Path) -> None:
    env = made(tmp_path, {"env_vars": {"GREETING": "mine"}, "pip": ["x"], "working_dir": "/mine"})
    assert env["env_vars"]["GREETING"] == "mine"
    assert "py_executable" not in env, "Ray makes one for it"
    assert env["working_dir"] == "/mine"


def test_nodes_without_the_work_folder_get_a_copy_that_is_not_huge(tmp_path: Path) -> None:
    assert made(tmp_path, QD_RAY_NODES="1")["working_dir"] == str(tmp_path / "work")
    with (tmp_path / "work" / "data").open("wb") as file:
        file.truncate(101 * 1024 * 1024)
    assert "working_dir" not in made(tmp_path, QD_RAY_NODES="1")


def test_a_worker_begins_in_the_work_folder_and_prints_into_the_jobs_log(tmp_path: Path) -> None:
    log = tmp_path / "rank-0.log"
    log.write_text("before\n")
    assert run(BEGIN, tmp_path) == ""
    assert log.read_text().splitlines() == [
        "before",
        "two words",
        "err",
        "child",
        f"{tmp_path / 'work'} s3cret False called",
        "True",
    ]


def test_on_another_node_it_prints_where_ray_has_it(tmp_path: Path) -> None:
    assert "two words" in run(BEGIN, tmp_path)


def test_numbers_of_a_report_are_metrics(tmp_path: Path) -> None:
    program = (
        "import numpy, quarterdeck_ray\n"
        "quarterdeck_ray._log({'loss': 0.5, 'n': numpy.int64(3), 'done': True, 'who': 'me',"
        " 'nested': {'a': 1}}, '00001/', 4)"
    )
    run(program, tmp_path, QD_METRICS_FILE=str(tmp_path / "metrics-0.jsonl"))
    points = [json.loads(line) for line in (tmp_path / "metrics-0.jsonl").read_text().splitlines()]
    assert [(p["n"], p["s"], p["v"]) for p in points] == [("00001/loss", 4, 0.5), ("00001/n", 4, 3)]


@pytest.mark.parametrize("name", ["Nothing", "train"])
def test_there_is_no_other_callback(tmp_path: Path, name: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run(f"import quarterdeck_ray; quarterdeck_ray.{name}", tmp_path)
