"""The examples' job files say what the examples need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.services.spec import load_service
from jobs.spec.job import load_job
from jobs.spec.launch import launcher
from jobs.sweeps.spec import load_sweep

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/job.yaml")), ids=lambda p: p.parent.name)
def test_a_job_file_is_valid_and_its_script_is_there(path: Path) -> None:
    job, _ = load_job(path)
    command = job.command.split() if isinstance(job.command, str) else list(job.command)
    assert command[0] == "python"
    assert (path.parent / command[1]).is_file()


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("programs/*/job.yaml")), ids=lambda p: p.parent.name
)
def test_a_program_of_others_has_a_valid_job_file(path: Path) -> None:
    job, _ = load_job(path)
    assert isinstance(job.command, str)
    scripts = [word for word in job.command.split() if word.endswith(".py")]
    assert all((path.parent / script).is_file() for script in scripts)
    assert f"{path.parent.name}/job.yaml" in (EXAMPLES / "programs" / "README.md").read_text() or (
        path.parent.name in ("ray-tune", "ray-data")
    )


def test_the_stream_expects_what_is_written_to_it() -> None:
    job, _ = load_job(EXAMPLES / "streams" / "job.yaml")
    assert job.endless and job.stream is not None and job.stream.expect is not None
    script = (EXAMPLES / "streams" / "make.py").read_text()
    assert all(f'"{name}": ' in script for name in job.stream.expect.columns)


def test_the_scaled_service_is_valid_and_its_programs_are_there() -> None:
    spec = load_service(EXAMPLES / "scaling" / "service.yaml")
    assert spec.scale is not None
    assert (spec.scale.min, spec.scale.max, spec.scale.quiet) == (0, 3, 30)
    assert spec.command == "python app.py"
    assert all((EXAMPLES / "scaling" / name).is_file() for name in ("app.py", "load.py"))


def test_digits_is_a_gang_of_two_with_a_model_and_an_objective() -> None:
    job, _ = load_job(EXAMPLES / "digits" / "job.yaml")
    assert (job.world_size, job.total_cpus, job.total_gpus) == (2, 2, 0)
    assert {name: output.path for name, output in job.outputs.items()} == {
        "model": "out/model.onnx"
    }
    assert job.objective is not None
    assert (job.objective.metric, job.objective.goal) == ("val_acc", "maximize")
    assert (job.seed, job.max_restarts) == (7, 2)


def test_the_digits_population_trains_towards_epochs_and_keeps_its_networks() -> None:
    spec, folder = load_sweep(EXAMPLES / "digits" / "sweep-pbt.yaml")
    script = (folder / "train.py").read_text()
    assert spec.limit == 30
    assert spec.population.told(4) == {"epochs": 15}
    assert re.search(r'"epochs": 15', script)  # its default: as much training as one job has
    assert "width" not in spec.population.explore  # a checkpoint fits one width


def test_the_digits_sweep_begins_with_the_default_of_its_script() -> None:
    spec, folder = load_sweep(EXAMPLES / "digits" / "sweep.yaml")
    assert (folder / "train.py").is_file()
    assert (spec.trials, spec.pruner.name) == (40, "asha")
    script = (folder / "train.py").read_text()
    for name, value in spec.enqueue[0].items():
        known = re.search(rf'"{name}": ([0-9e.-]+)', script)
        assert known is not None
        assert float(known[1]) == value


@pytest.mark.parametrize("file", ["sweep.yaml", "sweep-pbt.yaml"])
def test_trials_of_one_rank_ask_for_the_rendezvous_that_their_script_wants(file: str) -> None:
    """A job of one process is plain unless it asks, and `init_process_group` then finds no RANK."""
    spec, folder = load_sweep(EXAMPLES / "digits" / file)
    assert "init_process_group" in (folder / "train.py").read_text()
    job = spec.job
    assert launcher(job.launch, job.kind, job.nodes * int(job.procs_per_node)) == "torchrun"
