"""What a Ray driver started by Quarterdeck has Ray do (`kind: ray`): tasks and actors run as the driver does.

By itself Ray runs them with the interpreter, folder and environment of its cluster. It offers places to
say otherwise, and the driver's environment names the functions below for them: RAY_RUNTIME_ENV_HOOK,
RAY_TRAIN_CALLBACKS, RAY_TUNE_CALLBACKS. What a program itself passes to `ray.init(runtime_env=...)` goes
before what is said here.

One file, standard library only, Python 3.9 or newer; Ray is imported when Ray calls.
"""

from __future__ import annotations

import contextlib
import numbers
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import quarterdeck

_COPIED = 100 * 1024 * 1024
"""Bytes of a work folder that Ray is asked to copy to other nodes. It keeps the copy in the memory of its
head, and refuses more than 512 MiB."""


def runtime_env(asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """The runtime environment of a driver's tasks; Ray calls this from `ray.init`.

    Args:
        asked: what the program passed to it.
    """
    env = dict(asked or {})
    secret = set(filter(None, os.environ.get("QD_RAY_SECRETS", "").split(",")))
    held_back = set(os.environ.get("QD_RAY_DRIVER_ONLY", "").split(","))
    asked_for = set(os.environ.get("QD_RAY_FOR_TASKS", "").split(","))
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in secret | held_back and (name in asked_for or not name.startswith("RAY_"))
    }
    env["env_vars"] = {**variables, **env.get("env_vars", {})}
    made_by_ray = {"pip", "uv", "conda", "container", "image_uri", "py_executable"} & env.keys()
    if not made_by_ray:
        env["py_executable"] = sys.executable
    secrets = {name: os.environ[name] for name in secret if name in os.environ}
    folder = "" if "working_dir" in env else os.environ.get("QD_WORK_DIR", "")
    own = env.get("worker_process_setup_hook")
    env["worker_process_setup_hook"] = _begin(secrets, set(env["env_vars"]), folder, own)
    if folder and os.environ.get("QD_RAY_NODES") and _size(folder) <= _COPIED:
        env["working_dir"] = folder
    return env


def _begin(secrets: dict[str, str], told: set[str], folder: str, own: Any) -> Callable[[], None]:
    """What a worker process does before its first task, as one function that Ray carries by value: other
    nodes may not have this file. Secrets go with it, and so into neither a log nor a command line.

    Args:
        told: the names of the variables that tasks get.
        own: the program's own function for this, or its dotted name.
    """
    log = os.environ.get("QD_RAY_LOG", "")

    def begin() -> None:
        import logging
        import os
        import sys
        from io import BufferedWriter, FileIO, TextIOWrapper
        from pathlib import Path

        class Lines(TextIOWrapper):
            """Writes whole lines, for several processes append to the one file, and not those by which
            Ray tells its own reader of logs what runs."""

            def __init__(self, raw: FileIO) -> None:
                super().__init__(BufferedWriter(raw), "utf-8", "replace", line_buffering=True)

            def write(self, text: str) -> int:
                if text.startswith((":job_id:", ":task_name:", ":actor_name:")):
                    return len(text)
                return super().write(text)

        os.environ.update(secrets)
        for name in [n for n in os.environ if n.startswith("QD_") and n not in told]:
            del os.environ[name]  # the agent's, which is a worker of Ray's too
        if folder and Path(folder).is_dir():
            os.chdir(folder)
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)  # not made: a driver's node has it
        except OSError:
            pass
        else:
            for stream in (1, 2):
                os.dup2(descriptor, stream)
            os.close(descriptor)
            # `__stdout__` too: where they differ, Ray Train prints everything twice.
            sys.stdout = sys.__stdout__ = Lines(FileIO(1, "w", closefd=False))  # type: ignore[misc]
            sys.stderr = sys.__stderr__ = Lines(FileIO(2, "w", closefd=False))  # type: ignore[misc]
        # Asks each second for something that only Ray's dashboard knows, which does not run here.
        asks = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
        logging.getLogger(asks).setLevel(logging.ERROR)
        if callable(own):
            own()
        elif own:
            import importlib

            module, _, name = own.rpartition(".")
            getattr(importlib.import_module(module), name)()

    with contextlib.suppress(ImportError):
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return begin


def _size(folder: str) -> int:
    found = 0
    for path in Path(folder).rglob("*"):
        with contextlib.suppress(OSError):
            found += path.lstat().st_size
    return found


def _numbers(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of a report is a number that can be a metric."""
    found = {}
    for name, value in report.items():
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if real or getattr(value, "shape", None) == ():
            found[str(name)] = value
    return found


def _log(report: Mapping[str, Any], prefix: str = "", step: int | None = None) -> None:
    for name, value in _numbers(report).items():
        with contextlib.suppress(TypeError, ValueError):  # a name or number that none can be
            quarterdeck.log({prefix + name: value}, step=step)


def __getattr__(name: str) -> Any:
    """The callbacks, made when Ray looks for them by name: their base classes are Ray's."""
    makers: dict[str, Callable[[], type]] = {"TrainReports": _train, "TuneReports": _tune}
    if name not in makers:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = makers[name]()
    return made


def _train() -> type:
    """Ray Train: what `ray.train.report` gets in the worker of rank 0 is the job's metrics."""
    try:
        from ray.train.v2._internal.execution.callback import ReportCallback
    except ImportError:  # of another version: the program runs, without metrics from its reports
        from ray.train.v2.api.callback import RayTrainCallback as ReportCallback

    class TrainReports(ReportCallback):  # type: ignore[misc]
        def after_report(self, training_report: Any, metrics: Any) -> None:
            if metrics and metrics[0]:
                _log(metrics[0])

    return TrainReports


def _tune() -> type:
    """Ray Tune: what `ray.tune.report` gets is the job's metrics; those of the second of many trials are
    named `00001/loss`."""
    from ray.tune import Callback
    from ray.tune.result import AUTO_RESULT_KEYS

    theirs = {*AUTO_RESULT_KEYS, "config", "hostname", "checkpoint_dir_name"}

    class TuneReports(Callback):  # type: ignore[misc]
        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            report = {name: value for name, value in result.items() if name not in theirs}
            number = str(trial.trial_id).rpartition("_")[2]
            _log(report, "" if len(trials) == 1 else f"{number}/", result.get("training_iteration"))

    return TuneReports
