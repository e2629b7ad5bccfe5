"""How the processes of a job learn of each other, and which of its variables are reserved."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agents.node.staging import environment
from jobs.base.errors import InvalidInput
from jobs.spec.job import JobSpec, from_options
from tests.agents.node.conftest import plan_of
from tests.agents.node.staging.test_environment import FOLDER, node, request
from tests.jobs.spec.test_job import job

ASKED: list[tuple[dict[str, Any], str]] = [
    ({}, "plain"),
    ({"nodes": 1, "procs_per_node": 1}, "plain"),
    ({"nodes": 2}, "torchrun"),
    ({"procs_per_node": 2}, "torchrun"),
    ({"launch": "torchrun"}, "torchrun"),
    ({"procs_per_node": 2, "launch": "plain"}, "plain"),
    ({"procs_per_node": 2, "launch": "jax"}, "jax"),
    ({"procs_per_node": 2, "launch": "mpi"}, "mpi"),
    ({"kind": "ray"}, "plain"),
]


@pytest.mark.parametrize(("fields", "expected"), ASKED)
def test_the_launcher_follows_from_what_was_asked_for(
    fields: dict[str, Any], expected: str
) -> None:
    spec = JobSpec.from_json({"command": "x", **fields})
    assert spec.launcher == expected
    stored = JobSpec.from_json(spec.to_json())
    assert stored == spec
    assert stored.launcher == expected, "and from its record"
    assert from_options([], stored, nodes=2 if spec.kind == "gang" else 1).launcher == (
        "torchrun" if expected == "plain" and not spec.launch and spec.kind == "gang" else expected
    ), "a copy of a plain job on two nodes has ranks"


def test_one_process_for_each_gpu() -> None:
    spec = job("command: x\nprocs_per_node: gpu\nnodes: 2\nresources: {gpu: 4}")
    assert (spec.procs, spec.world_size, spec.launcher) == (4, 8, "torchrun")
    assert spec.resources.cpu == 4, "a core for each process"
    assert JobSpec.from_json(spec.to_json()) == spec
    assert from_options([], spec, gpus=2).procs == 2, "it follows the GPUs"
    for text in ("", "\nresources: {gpu: 0.5}"):
        with pytest.raises(InvalidInput, match="allowed: 1 or more, since procs_per_node is gpu"):
            job(f"command: x\nprocs_per_node: gpu{text or chr(10) + 'resources: {cpu: 1}'}")
    with pytest.raises(InvalidInput, match="gpu: one for each GPU"):
        from_options(["x"], procs_per_node="all")


@pytest.mark.parametrize("launch", ["torchrun", "plain", "jax", "mpi"])
def test_what_is_reserved_is_what_is_set(launch: str) -> None:
    """Both ways: the lists in `jobs.spec.launch` and what a node really gives."""
    plan = plan_of("c-j4.2", 1, "x", procs=2, nnodes=2, world_size=4, gpus=2, launch=launch)
    given = environment.common(plan, request(), node())
    given |= environment.of_rank(plan, request(), FOLDER, 1)
    given = {name: text for name, text in given.items() if not name.startswith("QD_")}
    own = {"PATH", "LANG", "PYTHONPATH", "PYTHONUNBUFFERED", "OMP_NUM_THREADS"}
    candidates = {*given, "RANK", "WORLD_SIZE", "MASTER_ADDR", "TF_CONFIG", "TORCHELASTIC_RUN_ID"}
    candidates |= {"OMPI_COMM_WORLD_RANK", "JAX_PROCESS_ID", "RAY_ADDRESS", "GROUP_WORLD_SIZE"}
    for name in candidates - own:
        fields = {"command": "x", "nodes": 2, "launch": launch, "env": {name: "1"}}
        if name in given:
            with pytest.raises(InvalidInput, match=f"env.{name}: Quarterdeck sets"):
                JobSpec.from_json(fields)
        else:
            assert JobSpec.from_json(fields).env == {name: "1"}


def test_a_refused_rank_variable_names_the_switch() -> None:
    with pytest.raises(InvalidInput, match=r"env\.RANK: .*launch: plain"):
        job("command: x\nprocs_per_node: 2\nenv: {RANK: 0}")
    with pytest.raises(InvalidInput, match=r"secrets\[0\]: .*launch: plain"):
        job("command: x\nnodes: 2\nsecrets: [MASTER_ADDR]")
    with pytest.raises(InvalidInput, match="allowed: plain for kind ray"):
        job("command: x\nkind: ray\nlaunch: torchrun")


def test_a_plain_process_finds_nothing_of_ranks() -> None:
    plan = plan_of("c-j4.1", 1, "x", launch="plain")
    env = environment.common(plan, request(), node())
    env |= environment.of_rank(plan, request(), FOLDER, 0)
    signs = re.compile(r"RANK|.*_RANK|WORLD_SIZE|.*WORLD_SIZE|MASTER_.*|TORCHELASTIC.*|JAX.*|TF_.*")
    assert [n for n in env if signs.fullmatch(n) and not n.startswith("QD_")] == []
    assert (env["QD_RANK"], env["QD_WORLD_SIZE"]) == ("0", "1")


def test_variables_that_extend_or_unset_what_the_node_has() -> None:
    def of(**wanted: str | None) -> dict[str, str]:
        return environment.common(plan_of("c-j4.1", 1, "x", env=wanted), request(), node())

    ours = str(environment.WORKER_FOLDER)
    assert of()["PYTHONPATH"] == ours
    assert of(PYTHONPATH="src:lib")["PYTHONPATH"] == f"src:lib:{ours}"
    assert of(PYTHONPATH="$PYTHONPATH:src")["PYTHONPATH"] == f"{ours}:src"
    assert of(PATH="/x:$PATH")["PATH"] == "/x:/bin"
    assert of(PATH="${PATH}:/x")["PATH"] == "/bin:/x"
    assert of(LD_LIBRARY_PATH="/x:$LD_LIBRARY_PATH")["LD_LIBRARY_PATH"] == "/x"
    assert of(PATH="/x")["PATH"] == "/x"
    assert of(A="$PATH $A_B costs $5")["A"] == "$PATH $A_B costs $5", "other names stay"
    assert "OMP_NUM_THREADS" not in of(OMP_NUM_THREADS=None)


def test_the_gpus_of_a_jax_process() -> None:
    def devices(gpus: int, procs: int) -> list[str | None]:
        plan = plan_of("c-j4.1", 1, "x", gpus=gpus, procs=procs, launch="jax")
        ranks = [environment.of_rank(plan, request(), FOLDER, rank) for rank in range(procs)]
        return [env.get("JAX_LOCAL_DEVICE_IDS") for env in ranks]

    assert devices(4, 1) == ["0,1,2,3"], "by itself JAX would take the first alone"
    assert devices(4, 2) == ["0,1", "2,3"]
    assert devices(0, 2) == [None, None]
