"""The wheel in virtual environments of its own: as a client, and with all that runs a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, those of all that it needs, and the pinned versions."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["make", "wheelhouse", f"DIST={folder}"], cwd=ROOT, check=True)
    return folder / "wheelhouse"


def install(wheels: Path, folder: Path, what: str) -> Path:
    """A new environment with the package; its `bin`."""
    venv.create(folder, with_pip=True)
    pip = f"{folder}/bin/pip"
    words = [pip, "install", "--quiet", "--no-index", "--find-links", str(wheels)]
    subprocess.run([*words, "--constraint", f"{wheels}/constraints.txt", what], check=True)
    return folder / "bin"


@pytest.fixture(scope="session")
def client(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheels, tmp_path_factory.mktemp("client"), "quarterdeck")


@pytest.fixture(scope="session")
def cluster(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheels, tmp_path_factory.mktemp("cluster"), "quarterdeck[cluster]")


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="qdp-"))
    yield folder
    shutil.rmtree(folder)


def qd(bin_: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `qd` in an empty folder that is no checkout."""
    here = home / "empty"
    here.mkdir(exist_ok=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("QD_", "PYTHON"))}
    environ |= {"QD_HOME": str(home / "q"), "HOME": str(home)}
    program = [str(bin_ / "qd"), *words]
    return subprocess.run(
        program, env=environ, cwd=here, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_wheel_carries_what_is_no_code(wheels: Path) -> None:
    (wheel,) = wheels.glob("quarterdeck-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for ending in (
        "share/quarterdeck/constraints.txt",
        "share/quarterdeck/job.schema.json",
        "share/quarterdeck/sweep.schema.json",
        "agents/node/worker/quarterdeck.py",
        "console/tui/qd.tcss",
        "store/migrations/env.py",
        "LICENSE",
    ):
        assert any(name.endswith(ending) for name in names), f"{ending} is missing"
    assert not any(name.startswith("tests") for name in names)


def test_the_client_is_small_and_does_all_but_run_a_cluster(client: Path, home: Path) -> None:
    assert qd(client, home, "--version").stdout.startswith("qd ")
    assert json.loads(qd(client, home, "schema").stdout)["title"] == "Quarterdeck job"
    assert json.loads(qd(client, home, "schema", "sweep", "--json").stdout)
    refused = qd(client, home, "--host", "nobody@127.0.0.1:1", "jobs")
    assert (refused.returncode, "Traceback" in refused.stderr) == (5, False), refused.stderr
    console = [f"{client}/python", "-c", "import console.tui.app, console.remote.session"]
    subprocess.run(console, check=True, cwd=home)
    packages = {path.name for path in client.parent.glob("lib/*/site-packages/*")}
    assert not packages & {"ray", "sqlalchemy", "fastapi", "optuna", "numpy"}
    size = sum(path.stat().st_size for path in client.parent.rglob("*") if path.is_file())
    assert size < 150e6, f"{size / 1e6:.0f} MB"


def test_a_client_says_what_it_lacks(client: Path, home: Path) -> None:
    for words in (["up"], ["up", "--foreground"], ["join", "h:1", "--token-file", "t"]):
        done = qd(client, home, *words)
        assert done.returncode == 6, done.stderr
        assert "'quarterdeck[cluster]'" in done.stderr
        assert f"{client.parent}/share/quarterdeck/constraints.txt" in done.stderr


def test_with_all_of_it_a_cluster_runs_a_job(cluster: Path, home: Path) -> None:
    try:
        up = qd(cluster, home, "up", "--simulate-gpus", "1", "--cpus", "1")
        assert up.returncode == 0, up.stderr
        command = "import quarterdeck; quarterdeck.log(loss=1.0); print('said')"
        python = str(cluster / "python")
        done = qd(cluster, home, "submit", "--wait", "--", python, "-c", command)
        assert done.returncode == 0, done.stderr
        assert qd(cluster, home, "logs", "last").stdout.strip() == "said"
        assert '"loss"' in qd(cluster, home, "metrics", "last", "--json").stdout
    finally:
        down = qd(cluster, home, "down", "--force")
    assert down.returncode == 0, down.stderr


def test_what_is_pinned_is_what_gets_installed(cluster: Path) -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, equals, version = line.partition("==")
        if equals:
            pins[name.lower().replace("_", "-")] = version
    words = [f"{cluster}/pip", "list", "--format", "json"]
    listed = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    found = {entry["name"].lower().replace("_", "-"): entry["version"] for entry in listed}
    loose = found.keys() - pins.keys() - {"pip", "setuptools", "quarterdeck"}
    assert not loose, f"not in constraints.txt: {sorted(loose)} (Python {sys.version_info[:2]})"
    assert {n: v for n, v in found.items() if n in pins and v.partition("+")[0] != pins[n]} == {}
