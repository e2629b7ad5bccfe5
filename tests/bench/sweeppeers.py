"""Ray Tune, plain Optuna and optuna-dashboard as peers, in a virtual environment of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_PACKAGES = ("ray[tune]>=2.60,<2.61", "optuna>=5,<6", "optuna-dashboard")
_IMPORTS = "import ray.tune, optuna, optuna_dashboard"
_INSTALL_TIMEOUT = 600.0

_TUNE = """
import sys, tempfile, time
import optuna, ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

def objective(config):
    tune.report({"loss": (config["x"] - 0.3) ** 2 + config["y"]})

trials = int(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False,
             logging_level="ERROR")
    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"x": tune.uniform(0, 1), "y": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", num_samples=trials, max_concurrent_trials=4,
            search_alg=OptunaSearch(sampler=optuna.samplers.TPESampler(seed=3)),
        ),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    began = time.perf_counter()
    results = tuner.fit()
    taken = time.perf_counter() - began
    assert len(results) == trials and not results.errors
    ray.shutdown()
print(taken)
"""

_ASK = """
import statistics, sys, time, warnings
warnings.simplefilter("ignore")
import optuna
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.load_study(study_name=sys.argv[2], storage=sys.argv[1],
                          sampler=optuna.samplers.TPESampler(seed=3, constant_liar=True))
seconds = []
for _ in range(6):
    began = time.perf_counter()
    trial = study.ask()
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    seconds.append(time.perf_counter() - began)
    study.tell(trial, x + y)
print(statistics.median(seconds[1:]))
"""


def interpreter() -> Path | None:
    """A Python that has the peers, made at the first call; None when they cannot be had here."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "quarterdeck-bench" / "sweeps-1"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    steps: tuple[list[str | Path], ...] = (
        [sys.executable, "-m", "venv", folder],
        [python, "-m", "pip", "install", "--quiet", *_PACKAGES],
        [python, "-c", _IMPORTS],
    )
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True, timeout=_INSTALL_TIMEOUT)
    except (OSError, subprocess.SubprocessError):
        return None
    ready.touch()
    return python


def tune(python: Path, trials: int) -> float:
    """Seconds of Tuner.fit() over so many trials, four at a time, on a Ray that is up already."""
    return _run(python, _TUNE, str(trials))


def ask(python: Path, url: str, study: str) -> float:
    """Seconds to the next point of a study, the median of five in a process that has it open."""
    return _run(python, _ASK, url, study)


def _run(python: Path, program: str, *words: str) -> float:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [python, "-c", program, *words],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
        env=environ,
    )
    return float(done.stdout.split()[-1])


@contextlib.contextmanager
def dashboard(python: Path, url: str) -> Iterator[str]:
    """An optuna-dashboard of this storage; gives its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = str(python.with_name("optuna-dashboard"))
    with subprocess.Popen(
        [program, url, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _until_listening(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            raise RuntimeError("optuna-dashboard does not answer")
        time.sleep(0.05)


def opened(address: str, study: int) -> float:
    """Seconds until everything about a study was read, as its page does."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"{address}/api/studies/{study}?after=0", timeout=120) as answer:
        answer.read()
    return time.perf_counter() - began
