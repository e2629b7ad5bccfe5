"""The example of features: its files are valid, and the rides that it makes up get their features."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from agents.node.worker.quarterdeck_serve.features.build import build
from agents.node.worker.quarterdeck_serve.features.transform import Features
from jobs.features.declaration import DECLARATION, load_declaration
from jobs.flows.spec import load_pipeline
from jobs.spec.job import load_job

EXAMPLE = Path(__file__).parents[2] / "examples" / "features"


def test_the_made_up_rides_get_their_features(tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLE / "make.py"], cwd=tmp_path, check=True, timeout=60)
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / DECLARATION).write_bytes(load_declaration(EXAMPLE / "features.yaml").to_bytes())
    shutil.copy(EXAMPLE / "features.py", folder)
    tables = {"fuel": tmp_path / "fuel.csv"}
    assert build(Features(folder), tmp_path / "rides.csv", tables, tmp_path / "out") == 2000
    with (tmp_path / "out" / "rides.csv").open() as file:
        assert file.readline().strip() == "ride,fare,x_0,x_1,x_2,x_3,x_4"


def test_its_job_and_pipeline_are_valid() -> None:
    job, _ = load_job(EXAMPLE / "train.yaml")
    assert job.features == "rides"
    spec, _ = load_pipeline(EXAMPLE / "pipeline.yaml")
    assert spec.needs["register"] == ("train",)
    assert spec.needs["train"] == ("features",)
