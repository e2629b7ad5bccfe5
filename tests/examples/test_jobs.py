"""The examples' job files say what the examples need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.spec import load_job
from jobs.sweepspec import load_sweep

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/job.yaml")), ids=lambda p: p.parent.name)
def test_a_job_file_is_valid_and_its_script_is_there(path: Path) -> None:
    job, _ = load_job(path)
    command = job.command.split() if isinstance(job.command, str) else list(job.command)
    assert command[0] == "python"
    assert (path.parent / command[1]).is_file()


def test_digits_is_a_gang_of_two_with_a_model_and_an_objective() -> None:
    job, _ = load_job(EXAMPLES / "digits" / "job.yaml")
    assert (job.world_size, job.total_cpus, job.total_gpus) == (2, 2, 0)
    assert job.outputs == {"model": "out/model.onnx"}
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
