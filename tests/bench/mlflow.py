"""MLflow's SQLite store as the peer, in a virtual environment of its own: nothing here depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_VERSION = "3"
_PACKAGES = ("mlflow-skinny>=3,<4", "sqlalchemy", "alembic", "sqlparse")
"""The tracking client and its SQL store, without the server and the libraries for models."""
_INSTALL_TIMEOUT = 300.0

_SETUP = """
import sys, tempfile, time
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
points = int(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    run = client.create_run(client.create_experiment("bench")).info.run_id
    began = time.perf_counter()
"""
_BATCHES = """
    for first in range(0, points, 1000):
        client.log_batch(run, metrics=[
            Metric("loss", 0.5, 1700000000000 + step, step) for step in range(first, first + 1000)
        ])
    print(time.perf_counter() - began)
"""
_SINGLES = """
    for step in range(points):
        client.log_metric(run, "loss", 0.5, step=step)
    print(time.perf_counter() - began)
"""


def interpreter() -> Path | None:
    """A Python that has MLflow, made at the first call; None when it cannot be had here."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "quarterdeck-bench" / f"mlflow-{_VERSION}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if ready.exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *_PACKAGES],
            check=True,
            capture_output=True,
            timeout=_INSTALL_TIMEOUT,
        )
        subprocess.run(
            [python, "-c", "import mlflow"], check=True, capture_output=True, timeout=120
        )
    except (OSError, subprocess.SubprocessError):
        return None
    ready.touch()
    return python


def batches(python: Path, points: int) -> float:
    """Seconds to log so many points, a thousand a call."""
    return _run(python, _SETUP + _BATCHES, points)


def singles(python: Path, points: int) -> float:
    """Seconds to log so many points, one a call."""
    return _run(python, _SETUP + _SINGLES, points)


def _run(python: Path, program: str, points: int) -> float:
    done = subprocess.run(
        [python, "-c", program, str(points)],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return float(done.stdout.split()[-1])
