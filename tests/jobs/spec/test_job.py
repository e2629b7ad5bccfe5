from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.base.errors import InvalidInput
from jobs.placement.capacity import Shape
from jobs.spec.job import JobSpec, OnStall, Output, Resources, from_options, job_in, load_job
from jobs.spec.mounts import mount_of
from jobs.spec.yamlfile import parse

FULL = """\
name: digits-ddp
command: python train.py --epochs 5
workdir: .
python: .venv/bin/python        # or  requirements: requirements.txt
nodes: 2
procs_per_node: 2
resources: {gpu: 2, cpu: 4, memory: 8GiB, accelerator: H100}   # per node
env: {OMP_NUM_THREADS: "1"}
secrets: [HF_TOKEN]
data: {train: digits@1}
seed: 7
priority: 50
max_restarts: 2
timeout: 2h
lease: 90s
outputs: {model: out/model.onnx}
objective: {metric: val_acc, goal: maximize}
tags: {team: vision}
"""


def job(text: str) -> JobSpec:
    return job_in(parse(text, "job.yaml"))


def error(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        job(text)
    return caught.value


def test_the_documented_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(FULL)
    spec, document = load_job(tmp_path / "job.yaml")
    assert document.name == str(tmp_path / "job.yaml")
    assert (spec.name, spec.seed, spec.timeout, spec.lease) == ("digits-ddp", 7, 7200, 90)
    assert spec.argv() == ["/bin/sh", "-c", "exec python train.py --epochs 5"]
    assert (spec.world_size, spec.total_gpus, spec.total_cpus) == (4, 4, 8)
    assert spec.shape() == Shape(2, spec.procs, 4.0, 2.0, 8 * 2**30, "H100")
    assert hash(spec.shape())
    assert spec.secrets == ("HF_TOKEN",)


@pytest.mark.parametrize(
    "text", [FULL, "command: x", "command: [a, 1, 1.10]\nparams: {a: null, b: 1.5}"]
)
def test_json_reads_back_as_an_equal(text: str) -> None:
    spec = job(text)
    assert JobSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert JobSpec.from_json(json.loads(json.dumps(spec.asked()))) == spec


def test_a_command_is_enough() -> None:
    spec = job("command: python train.py")
    assert spec.name == "train"
    assert spec.resources == Resources(gpu=0, cpu=1)
    assert (spec.kind, spec.nodes, spec.priority, spec.max_restarts) == ("gang", 1, 50, 0)
    assert (spec.timeout, spec.lease, spec.grace, spec.notice) == (None, 90, 10, 5)


def test_cpus_default_to_one_for_each_process() -> None:
    assert job("command: x\nprocs_per_node: 4").resources.cpu == 4
    assert job("command: x\nprocs_per_node: 4\nresources: {gpu: 1}").resources.cpu == 4
    assert job("command: x\nprocs_per_node: 4\nresources: {cpu: 0}").resources.cpu == 0


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        job("command: x").nodes = 2  # type: ignore[misc]


def test_numbers_stand_for_their_text_where_text_is_wanted() -> None:
    spec = job("command: [train, --lr, 1e-4, 1.10]\nenv: {A: 1.10, B: 007}\ntags: {v: 1.10}")
    assert spec.command == ("train", "--lr", "1e-4", "1.10")
    assert spec.env == {"A": "1.10", "B": "007"}
    assert spec.tags == {"v": "1.10"}
    assert job("command: x\nname: 123").name == "123"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nodes: 0", "nodes: found 0; allowed: at least 1"),
        ("nodes: '2'", "nodes: found '2'; allowed: a whole number"),
        ("nodes: 2.5", "nodes: found 2.5; allowed: a whole number"),
        ("nodes: true", "nodes: found true; allowed: a whole number"),
        ("nodes: 10001", "nodes: found 10001; allowed: at most 10000"),
        ("nodes:", "nodes: found nothing; allowed: a whole number"),
        ("node: 2", "node: unknown field; did you mean nodes?"),
        ("gpus: 2", "gpus: unknown field; did you mean resources.gpu?"),
        ("resources: {gpus: 2}", "resources.gpus: unknown field; did you mean gpu?"),
        ("resources: {zzz: 2}",
         "resources.zzz: unknown field; allowed: gpu, cpu, memory, accelerator"),
        ("resources: 2", "resources: found 2; allowed: a mapping of names to values"),
        ("resources: {gpu: 1.5}", "resources.gpu: found 1.5; allowed: a whole number up to 1024, "
         "or a share of one GPU from 0.01 to below 1"),
        ("resources: {gpu: -1}", "resources.gpu: found -1; allowed: a whole number up to 1024, "
         "or a share of one GPU from 0.01 to below 1"),
        ("resources: {gpu: .inf}", "resources.gpu: found inf; allowed: a finite number"),
        ("resources: {cpu: -1}", "resources.cpu: found -1; allowed: at least 0"),
        ("resources: {memory: 0}", "resources.memory: found 0; allowed: at least 1"),
        ("kind: gng", "kind: found 'gng'; allowed: 'gang', 'ray' or 'service'; did you mean gang?"),
        ("name: -x", "name: found '-x'; allowed: letters, digits, '.', '_' and '-', "
         "up to 63, not '-' first"),
        ("env: {CUDA_VISIBLE_DEVICES: 0}",
         "env.CUDA_VISIBLE_DEVICES: Quarterdeck sets this variable itself; allowed: another name"),
        ("env: {QD_X: a}",
         "env.QD_X: Quarterdeck sets this variable itself; allowed: another name"),
        ("env: {A-B: a}", "env.A-B: found 'A-B'; allowed: a variable name of letters, digits and _, "
         "up to 128"),
        ("env: {A: true}", 'env.A: found true without quotes; allowed: text: "true"'),
        ("env: {A: [1]}", "env.A: found a list; allowed: text"),
        ('env: {A: "\\0"}', "env.A: has a NUL byte; allowed: text without NUL bytes"),
        ("env: [A=1]", "env: found a list; allowed: a mapping of names to values"),
        ("secrets: TOKEN", "secrets: found 'TOKEN'; allowed: a list"),
        ("secrets: [A, A]", "secrets: A is listed twice"),
        ("secrets: [QD_RANK]",
         "secrets[0]: Quarterdeck sets this variable itself; allowed: another name"),
        ("data: {a: x@0}", "data.a: found 'x@0'; allowed: a data set such as digits or digits@1"),
        ("params: {a-b: 1}", "params.a-b: found 'a-b'; allowed: letters, digits and _, up to 63, "
         "no digit first"),
        ("params: {a: [1]}",
         "params.a: found a list; allowed: text, a number, true, false or null"),
        ("params: {a: .nan}", "params.a: found nan; allowed: a finite number"),
        ("seed: -1", "seed: found -1; allowed: at least 0"),
        ("priority: 101", "priority: found 101; allowed: at most 100"),
        ("timeout: 2 hours", "timeout: found '2 hours'; allowed: a number of seconds, or text such "
         "as 90s, 45m, 2h, 1h30m or 7d"),
        ("timeout: 0", "timeout: found 0; allowed: 1s to 365d"),
        ("on_stall: {action: kill}",
         "on_stall.action: found 'kill'; allowed: 'warn', 'restart' or 'fail'"),
        ("on_stall: {action: restart}",
         "on_stall: restart needs max_restarts of 1 or more, which is 0; allowed: fail"),
        ("on_stall: {after: 0}", "on_stall.after: found 0; allowed: 1s to 365d"),
        ("lease: 1s", "lease: found '1s'; allowed: 5s to 1d"),
        ("on_node_loss: stay", "on_node_loss: found 'stay'; allowed: 'restart' or 'wait'"),
        ("outputs: {m: ../x}", "outputs.m: found '../x'; allowed: a path without '..'"),
        ("outputs: {m: /x}", "outputs.m: found '/x'; allowed: a relative path"),
        ("objective: {metric: a, goal: maximise}", "objective.goal: found 'maximise'; allowed: "
         "'maximize' or 'minimize'; did you mean maximize?"),
        ("objective: {metric: a}", "objective.goal: missing; it is required"),
        ("workdir: ''", "workdir: empty; allowed: text"),
        ("requirements: ../r.txt", "requirements: found '../r.txt'; allowed: a path without '..'"),
    ],
)  # fmt: skip
def test_golden_errors(line: str, message: str) -> None:
    assert error(f"command: x\n{line}\n").message == f"job.yaml:2: {message}"


def test_a_service_cannot_wait_for_its_node() -> None:
    with pytest.raises(InvalidInput, match="allowed: restart for kind service"):
        JobSpec.from_json({"command": "x", "kind": "service", "on_node_loss": "wait"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "job.yaml:1: the file is empty; allowed: a job, at least 'command: ...'"),
        ("- a", "job.yaml:1: found a list; allowed: a job, at least 'command: ...'"),
        ("name: a", "job.yaml:1: command: missing; it is required"),
        ("command: ''", "job.yaml:1: command: empty; allowed: a command such as "
         '"python train.py", or a list of arguments'),
        ("command: []", "job.yaml:1: command: no program to run; allowed: a command such as "
         '"python train.py", or a list of arguments'),
        ("command: {a: 1}", "job.yaml:1: command: found a mapping; allowed: a command such as "
         '"python train.py", or a list of arguments'),
        ("command: [a, true]", "job.yaml:1: command: argument 2 is true; allowed: text (quote it)"),
        ("command: x\nkind: ray\nnodes: 2",
         "job.yaml:3: nodes: found 2; allowed: 1 for kind ray, which runs one driver"),
        ("command: x\nenv: {A: b}\nsecrets: [A]",
         "job.yaml:3: secrets: A is in env too; allowed: one of the two"),
        ("command: x\nnodes: 10000\nprocs_per_node: 11",
         "job.yaml:3: procs_per_node: found 11; allowed: at most 100000 ranks in all"),
    ],
)  # fmt: skip
def test_golden_errors_of_whole_files(text: str, message: str) -> None:
    assert error(text).message == message


def test_all_problems_are_told_in_the_order_of_the_file() -> None:
    caught = error("nodes: 0\ncommand: x\nresources:\n  gpu: 1.5\n  gpus: 1\nlease: 1s\n")
    assert caught.message == "job.yaml:1: nodes: found 0; allowed: at least 1"
    assert caught.hint == (
        "3 more problems:\n"
        "  job.yaml:4: resources.gpu: found 1.5; allowed: a whole number up to 1024, "
        "or a share of one GPU from 0.01 to below 1\n"
        "  job.yaml:5: resources.gpus: unknown field; did you mean gpu?\n"
        "  job.yaml:6: lease: found '1s'; allowed: 5s to 1d"
    )
    facts = caught.details["errors"]
    assert [(fact["line"], fact["column"], fact["field"]) for fact in facts] == [
        (1, 1, "nodes"),
        (4, 3, "resources.gpu"),
        (5, 3, "resources.gpus"),
        (6, 1, "lease"),
    ]
    assert facts[0]["file"] == "job.yaml"


def test_a_file_of_faults_stays_readable() -> None:
    caught = error("command: x\n" + "".join(f"field{n}: 1\n" for n in range(500)))
    assert caught.hint.endswith("and 469 more")
    assert len(caught.details["errors"]) == 500


@pytest.mark.parametrize(
    "line",
    [
        f"command: {'x' * 40_000}",
        f"command: [{'x,' * 1100}]",
        "command: x\nenv: {" + ",".join(f"A{n}: b" for n in range(300)) + "}",
        f"command: x\nenv: {{A: {'x' * 40_000}}}",
        "command: x\nenv: {" + ",".join(f"A{n}: {'x' * 30_000}" for n in range(5)) + "}",
        "command: x\nsecrets: [" + ",".join(f"A{n}" for n in range(100)) + "]",
        "command: x\ntags: {" + ",".join(f"A{n}: b" for n in range(40)) + "}",
        f"command: x\ntags: {{a: {'x' * 300}}}",
        f"command: x\nname: {'x' * 64}",
        f"command: x\noutputs: {{a: {'x' * 5000}}}",
        "command: x\nparams: {a: 9223372036854775808}",
    ],
)
def test_everything_has_a_limit(line: str) -> None:
    assert "allowed: " in error(line).message


def test_a_job_inside_another_document_is_named_with_its_place() -> None:
    document = parse("name: s\njob:\n  command: x\n  nodes: 0\n", "sweep.yaml")
    with pytest.raises(InvalidInput, match=r"^sweep\.yaml:4: job\.nodes: found 0"):
        job_in(document, ("job",))


@pytest.mark.parametrize(
    "data", [None, 1, [], {}, {"command": 5}, {"command": "x", "env": {"A": []}}]
)
def test_api_input_is_refused_in_words(data: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^spec"):
        JobSpec.from_json(data)


class TestOptions:
    def refused(self, *command: str, **options: Any) -> str:
        with pytest.raises(InvalidInput) as caught:
            from_options(command, **options)
        return caught.value.message

    def test_options_make_a_job(self) -> None:
        spec = from_options(
            ["python", "train.py"], nodes=2, gpus=1, memory="1GiB", env=["A=b=c"], tags=["t=v"],
            outputs={"model": "m.onnx"}, secrets=["TOKEN"], timeout="1h", priority=None,
        )  # fmt: skip
        assert spec.argv() == ["python", "train.py"]
        assert spec.resources == Resources(gpu=1, cpu=1, memory=2**30)
        assert spec.env == {"A": "b=c"}
        assert (spec.tags, spec.outputs, spec.secrets) == (
            {"t": "v"},
            {"model": Output(path="m.onnx")},
            ("TOKEN",),
        )
        assert (spec.timeout, spec.priority) == (3600, 50)

    def test_one_word_with_spaces_is_a_shell_command(self) -> None:
        assert from_options(["a | b"]).argv() == ["/bin/sh", "-c", "a | b"]
        assert from_options(["a"]).argv() == ["a"]

    def test_options_lie_over_a_file(self) -> None:
        base = job("command: x.py\nresources: {gpu: 1}\nenv: {A: a, B: b}\nlease: 30s")
        spec = from_options([], base, procs_per_node=3, cpus=None, env=["B=c"], memory="1GB")
        assert spec.resources == Resources(gpu=1, cpu=3, memory=10**9)
        assert (spec.env, spec.lease, spec.name) == ({"A": "a", "B": "c"}, 30, "x")
        assert from_options(["y.py"], base).name == "y"

    def test_what_to_do_about_a_stall(self) -> None:
        assert from_options(["x"]).on_stall == OnStall(action="warn", after=None)
        base = job("command: x.py\non_stall: {action: fail}")
        spec = from_options([], base, stall_after="10m")
        assert spec.on_stall == OnStall(action="fail", after=600.0)
        spec = from_options([], base, stall_action="restart", max_restarts=1)
        assert spec.on_stall == OnStall(action="restart", after=None)

    def test_errors_name_the_option(self) -> None:
        assert self.refused("x", nodes=0) == "--nodes: found 0; allowed: at least 1"
        assert self.refused("x", gpus=-1.0).startswith("--gpus: found -1; allowed: a whole number")
        assert self.refused("x", env=["A"]) == (
            "--env: found 'A'; allowed: NAME=VALUE, or NAME of a variable that is set here"
        )
        assert self.refused("x", env=["QD_X=1"]).startswith("--env QD_X: Quarterdeck sets")
        assert self.refused("x", max_restarts=-1).startswith("--max-restarts: found -1")
        assert self.refused("x", outputs=["m=../x"]).startswith("--output m: found '../x'")
        assert self.refused("x", stall_after="soon").startswith("--stall-after: found 'soon'")
        assert self.refused("x", stall_action="restart").startswith("--on-stall: restart needs")
        assert self.refused() == "COMMAND: missing; it is required"

    def test_an_option_that_does_not_exist_is_a_bug(self) -> None:
        with pytest.raises(TypeError):
            from_options(["x"], nods=1)


class TestFilled:
    def test_params_of_the_job_are_filled_into_its_command(self) -> None:
        spec = job("command: train.py --lr {lr} --n {n} {rest}\nparams: {lr: 1.0, n: a b}")
        assert spec.argv()[-1] == "train.py --lr 1.0 --n 'a b' {rest}"
        assert spec.command == "train.py --lr {lr} --n {n} {rest}"

    def test_values_lie_over_the_params(self) -> None:
        spec = job("command: [a, '{x}', '{y}']\nparams: {x: 1, y: 2}\nprocs_per_node: 2")
        trial = spec.filled({"x": "{y}"})
        assert trial.argv() == ["a", "{y}", "2"]  # a value is not looked into
        assert trial.params == {"x": "{y}", "y": 2}
        assert trial.to_json() == spec.to_json() | {"params": trial.params}

    def test_a_value_that_is_no_parameter_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match=r"spec\.params\.x: found nan"):
            job("command: a {x}").filled({"x": float("nan")})

    def test_a_value_that_cannot_be_quoted_is_refused_at_once(self) -> None:
        with pytest.raises(InvalidInput, match=r"spec\.params: the value 'a b' of 'x' cannot be"):
            job("command: 'echo \"$(a {x})\"'").filled({"x": "a b"})


def test_the_cli_can_import_the_domain_without_pydantic() -> None:
    code = (
        "import sys, jobs.base.names, jobs.base.places, jobs.base.paths, jobs.base.units\n"
        "import jobs.snapshots.manifest, console.workdir.scan\n"
        "bad = {'pydantic', 'yaml', 'ray', 'socket', 'asyncio'} & sys.modules.keys()\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_too_many_entries_are_counted() -> None:
    env = {f"V{number}": "x" for number in range(300)}
    with pytest.raises(InvalidInput, match="300 entries; allowed: at most 256"):
        JobSpec.from_json({"command": "true", "env": env})
    with pytest.raises(InvalidInput, match="--env: 300 entries"):
        from_options(["true"], env=env)


@pytest.mark.parametrize(
    "image",
    ["ubuntu", "docker.io/pytorch/pytorch:2.9.0", "localhost:5000/a/b_c@sha256:" + "a" * 64],
)
def test_an_image_is_named_as_podman_does(image: str) -> None:
    spec = from_options(["true"], image=image, mounts=["/data", "/a:/b:ro"])
    assert (spec.image, spec.mounts) == (image, ("/data", "/a:/b:ro"))
    assert spec.shape().container
    assert [mount_of(text) for text in spec.mounts] == [
        ("/data", "/data", False),
        ("/a", "/b", True),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": "Not A Name"}, "--image: found"),
        ({"image": "a", "python": "3.12"}, "--image: python is given too"),
        ({"image": "a", "requirements": "r.txt"}, "--image: requirements is given too"),
        ({"image": "a", "kind": "ray"}, "--image: kind ray runs with the cluster's own Ray"),
        ({"mounts": ["/data"]}, "--mount: there is no image"),
        ({"image": "a", "mounts": ["data"]}, "--mount"),
    ],
)
def test_what_an_image_does_not_go_with(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        from_options(["true"], **options)


@pytest.mark.parametrize(
    ("given", "keep", "artifact"),
    [
        ({}, 3, False),
        ({"keep": 5}, 5, False),
        ({"keep": 2, "artifact": True}, 2, True),
        ({"keep": True}, 3, True),  # as older files say it, and records of older jobs
        ({"keep": False}, 3, False),
    ],
)
def test_copies_and_the_artifact_of_checkpoints(
    given: dict[str, Any], keep: int, artifact: bool
) -> None:
    spec = JobSpec.from_json({"command": "true", "checkpoint": given})
    assert (spec.checkpoint.keep, spec.checkpoint.artifact) == (keep, artifact)
    assert JobSpec.from_json(spec.to_json()) == spec
    assert "keep" not in (spec.asked().get("checkpoint") or {}) or keep != 3


@pytest.mark.parametrize("keep", [0, 1001, "3", 1.5, None])
def test_a_number_of_copies(keep: object) -> None:
    with pytest.raises(InvalidInput, match="1 to 1000"):
        JobSpec.from_json({"command": "true", "checkpoint": {"keep": keep}})
