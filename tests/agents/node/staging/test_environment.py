"""What a rank finds in its environment (pure)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.node.guard.launch import write_launch
from agents.node.interfaces import interface_of
from agents.node.staging import environment
from jobs.wire.messages import GpuFacts, LaunchRequest
from tests.agents.node.conftest import plan_of

FOLDER = Path("/a/c-j4.2")


def request(**changes: Any) -> LaunchRequest:
    base: dict[str, Any] = {
        "key": "c-j4.2",
        "epoch": 1,
        "master_addr": "10.0.0.1",
        "master_port": 21000,
        "node_addresses": ["10.0.0.1", "10.0.0.2"],
        "secrets": {},
        "lease_until": 0.0,
        "ray_address": "10.0.0.1:6379",
    }
    return LaunchRequest(**{**base, **changes})  # type: ignore[typeddict-item]


def node(*gpus: GpuFacts, python: str | None = None) -> environment.Node:
    base = environment.base_environment({"PATH": "/bin"})
    return environment.Node(FOLDER, Path("/ck/c-j4"), "c-j4.2@/a", python, gpus, base)


def gpu(uuid: str, simulated: bool = False) -> GpuFacts:
    return GpuFacts(index=0, uuid=uuid, model="M", memory=1, simulated=simulated)


PLAN = {"procs": 2, "first_rank": 2, "node_rank": 1, "nnodes": 2, "world_size": 4, "cpus": 8}


def test_gloo_is_told_the_interface_of_the_cluster_unless_somebody_chose_one() -> None:
    """By itself it takes the address of the host's name, which is often 127.0.1.1."""
    here = replace(node(), interface="eth1")
    plan = plan_of("c-j4.2", 1, "x", **PLAN)
    assert environment.common(plan, request(), here)["GLOO_SOCKET_IFNAME"] == "eth1"
    base = environment.base_environment({"GLOO_SOCKET_IFNAME": "ib0"})
    chosen = environment.common(plan, request(), replace(here, base=base))
    assert chosen["GLOO_SOCKET_IFNAME"] == "ib0", "whoever runs the node"
    plan = plan_of("c-j4.2", 1, "x", **PLAN, env={"GLOO_SOCKET_IFNAME": "eth0"})
    assert environment.common(plan, request(), here)["GLOO_SOCKET_IFNAME"] == "eth0", "the job"
    alone = plan_of("c-j4.2", 1, "x")
    assert "GLOO_SOCKET_IFNAME" not in environment.common(alone, request(), here)


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


def test_what_torchrun_gives_and_a_second_node_finds() -> None:
    plan = plan_of("c-j4.2", 1, "x", seed=7, params={"lr": 0.1}, **PLAN)
    env = environment.common(plan, request(), node(gpu("GPU-1"), gpu("GPU-2")))
    env |= environment.of_rank(plan, request(), FOLDER, 1)
    expected = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "NODE_RANK": "1",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "21000",
        "TORCHELASTIC_RUN_ID": "j4.2",
        "TORCHELASTIC_RESTART_COUNT": "1",
        "JAX_COORDINATOR_ADDRESS": "10.0.0.1:21001",
        "JAX_PROCESS_ID": "3",
        "JAX_NUM_PROCESSES": "4",
        "CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2",
        "OMP_NUM_THREADS": "4",
        "PYTHONUNBUFFERED": "1",
        "QD_JOB": "j4",
        "QD_RUN": "j4.2",
        "QD_RANK": "3",
        "QD_SEED": "7",
        "QD_GUARD": "c-j4.2@/a",
        "QD_METRICS_FILE": "/a/c-j4.2/metrics-3.jsonl",
        "QD_STOP_FILE": "/a/c-j4.2/stop",
        "QD_STOP_LISTENER_FILE": "/a/c-j4.2/listening-3",
        "QD_CHECKPOINT_DIR": "/ck/c-j4",
        "QD_WORK_DIR": "/a/c-j4.2/work",
        "QD_PARAMS": '{"lr": 0.1}',
    }
    assert {name: env.get(name) for name in expected} == expected
    assert (Path(env["PYTHONPATH"]) / "quarterdeck.py").exists()
    tf = json.loads(env["TF_CONFIG"])
    assert tf["task"] == {"type": "worker", "index": 3}
    assert tf["cluster"]["worker"][1:3] == ["10.0.0.1:21003", "10.0.0.2:21002"]


def test_gpus_of_others_are_hidden_and_simulated_ones_are_none_for_cuda() -> None:
    plan = plan_of("c-j4.2", 1, "x")
    assert environment.common(plan, request(), node())["CUDA_VISIBLE_DEVICES"] == ""
    env = environment.common(plan, request(), node(gpu("SIM-1", simulated=True)))
    assert (env["CUDA_VISIBLE_DEVICES"], env["QD_SIMULATED_GPUS"]) == ("", "SIM-1")


def test_a_single_process_gets_no_tf_config_and_no_seed() -> None:
    plan = plan_of("c-j4.2", 1, "x")
    env = environment.common(plan, request(), node()) | environment.of_rank(
        plan, request(), FOLDER, 0
    )
    assert "TF_CONFIG" not in env
    assert "QD_SEED" not in env


def test_what_the_user_sets_wins_but_over_our_mark() -> None:
    wanted = {"OMP_NUM_THREADS": "1", "NCCL_DEBUG": "INFO", "QD_GUARD": "stray", "PATH": "/mine"}
    env = environment.common(plan_of("c-j4.2", 1, "x", env=wanted, **PLAN), request(), node())
    assert (env["OMP_NUM_THREADS"], env["NCCL_DEBUG"], env["PATH"]) == ("1", "INFO", "/mine")
    assert env["QD_GUARD"] == "c-j4.2@/a"


def test_nothing_of_the_agent_passes_that_is_not_named() -> None:
    base = environment.base_environment(
        {
            "PATH": "/bin",
            "HOME": "/root",
            "LC_ALL": "C",
            "https_proxy": "http://p",
            "NCCL_SOCKET_IFNAME": "eth0",
            "RAY_AUTH_TOKEN": "secret",
            "RAY_ADDRESS": "x",
            "QD_HOME": "/q",
            "PYTHONPATH": "/p",
            "PYTHONHOME": "/p",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "VIRTUAL_ENV": "/v",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
    )
    names = {"PATH", "HOME", "LC_ALL", "https_proxy", "NCCL_SOCKET_IFNAME", "LANG"}
    assert set(base) == names


def test_only_a_ray_job_is_told_where_ray_is_and_how_to_get_in(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/t")
    ray_node = environment.Node(tmp_path, tmp_path / "ck", "t", None, (), {"PATH": "/bin"})
    for kind, address in (("gang", None), ("ray", "10.0.0.1:6379")):
        plan = plan_of("c-j4.2", 1, "x", kind=kind)
        assert environment.common(plan, request(), ray_node).get("RAY_ADDRESS") == address
        write_launch(tmp_path, plan, request(), ray_node)
        secrets = json.loads((tmp_path / "secrets.json").read_text())
        assert secrets.get("RAY_AUTH_TOKEN_PATH") == ("/t" if kind == "ray" else None)
        assert "RAY_AUTH" not in (tmp_path / "launch.json").read_text()
        assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_ray_driver_has_ray_run_its_tasks_as_it_runs_itself() -> None:
    plan = plan_of("c-j4.1", 1, "x", kind="ray", env={"OMP_NUM_THREADS": "1", "RAY_X": "1"})
    env = environment.common(plan, request(secrets={"TOKEN": "x"}), node())
    assert env["RAY_RUNTIME_ENV_HOOK"] == "quarterdeck_ray.runtime_env"
    assert (env["QD_RAY_LOG"], env["QD_RAY_SECRETS"]) == (str(FOLDER / "rank-0.log"), "TOKEN")
    assert env["QD_RAY_DRIVER_ONLY"] == "CUDA_VISIBLE_DEVICES", "the job chose its threads"
    assert env["QD_RAY_FOR_TASKS"] == "RAY_X"
    assert env["QD_RAY_NODES"] == "1"
    alone = environment.common(plan, request(ray_address="127.0.0.1:6379"), node())
    assert "QD_RAY_NODES" not in alone


def test_no_proxy_is_asked_for_the_tracker() -> None:
    """MLflow's client would ask it even for 127.0.0.1."""
    proxied = {"https_proxy": "http://p", "HTTP_PROXY": "http://p", "NO_PROXY": "corp"}
    plan = plan_of("c-j4.2", 1, "x", env=proxied)
    env = environment.common(plan, request(), node())
    assert (env["NO_PROXY"], env["no_proxy"]) == ("corp,127.0.0.1,localhost",) * 2
    assert "NO_PROXY" not in environment.common(plan_of("c-j4.2", 1, "x"), request(), node())
