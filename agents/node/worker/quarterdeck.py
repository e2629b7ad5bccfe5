"""Talk to Quarterdeck from a training script: metrics, parameters, checkpoints, a clean stop.

    import quarterdeck

    lr = quarterdeck.params.get("lr", 1e-3)
    for step in range(steps):
        ...
        quarterdeck.log({"train_loss": loss}, step=step)
        if quarterdeck.should_stop():
            break

One file, standard library only, Python 3.8 or newer: it runs in whatever interpreter the job uses.
A script that imports it runs outside Quarterdeck too, where `log` records nothing, `params` is
empty, `should_stop()` is False and `checkpoint_dir` is `./checkpoints`.

Attributes, read from the environment when used:
    params: the job's parameters (a dict); in a sweep, those of the trial.
    seed: the job's seed, or None when it has none.
    data: what `data:` of the job names, as paths of this node (a dict of pathlib.Path); read-only.
    checkpoint_dir: folder that outlives a restart of the job, made when first used (pathlib.Path).
    rank, world_size: this process's place in the gang (0 and 1 outside of one).
    attempt: 1 at first, 2 after the first restart...
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import operator
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

__all__ = [
    "atomic_write",
    "attempt",
    "checkpoint_dir",
    "data",
    "log",
    "params",
    "rank",
    "seed",
    "should_stop",
    "world_size",
]

params: dict[str, Any]
seed: int | None
data: dict[str, Path]
checkpoint_dir: Path
rank: int
world_size: int
attempt: int

MAX_NAME = 200  # characters of a metric's name; longer ones do not fit any screen
MAX_STEP = 2**63 - 1  # what a database integer holds
STAT_INTERVAL = 0.1  # seconds between looks at the disk in should_stop()


# ---------------------------------------------------------------------------------------- metrics

_lock = threading.Lock()
_next_step: dict[str, int] = {}
_write_failed = False


def log(metrics: Mapping[str, Any] | None = None, *, step: int | None = None, **more: Any) -> None:
    """Record metrics: `log({"val_acc": 0.97}, step=3)` or `log(val_acc=0.97, step=3)`.

    All values of one call are appended at once: threads, forks and other processes of the rank may
    log at the same time. A disk that refuses the write is told on stderr, and training goes on.

    Args:
        metrics: name -> number. NumPy and PyTorch scalars are fine; NaN is recorded as "no value".
            Names have 1 to 200 printable characters.
        step: 0 or more. Without one, each name counts its own: 0, then one more than its last.
        more: further metrics, by keyword.

    Raises:
        TypeError: a name that is no string, a value that is no number, a step that is no integer.
        ValueError: an empty, long or unprintable name, a number too large for a float, a step < 0.
    """
    values = {}
    for name, value in [*(metrics or {}).items(), *more.items()]:
        values[_checked_name(name)] = _number(name, value)
    at = _checked_step(step)
    path = os.environ.get("QD_METRICS_FILE")
    now = round(time.time(), 6)
    child = {} if not path else _child()
    lines = []
    with _lock:
        for name, number in values.items():
            this = _next_step.get(name, 0) if at is None else at
            _next_step[name] = this + 1
            point = {"n": name, "s": this, "v": number, "t": now, **child}
            if math.isinf(number):  # which JSON has not
                point.update(v=None, x="Infinity" if number > 0 else "-Infinity")
            elif math.isnan(number):
                point["v"] = None
            lines.append(json.dumps(point, separators=(",", ":"), allow_nan=False))
    if path and lines:
        _append(path, "".join(line + "\n" for line in lines).encode("ascii"))


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a metric's name is a string, not {type(name).__name__}: {name!r}")
    if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"a metric's name has 1 to {MAX_NAME} printable characters: {name[:80]!r}")
    return name


def _checked_step(step: Any) -> int | None:
    if step is None:
        return None
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(f"step is an integer, not {type(step).__name__}: {step!r}") from None
    if not 0 <= number <= MAX_STEP:
        raise ValueError(f"step is between 0 and 2**63 - 1, not {number}")
    return number


def _number(name: str, value: Any) -> float:
    """The value as a float."""
    if isinstance(value, (str, bytes, bytearray)):  # float() would parse them
        raise TypeError(f"metric {name!r} is text, not a number: {value[:80]!r}")
    detach = getattr(value, "detach", None)  # a PyTorch scalar that still carries its graph
    try:
        number = float(detach() if callable(detach) else value)
    except OverflowError:
        raise ValueError(f"metric {name!r} is too large for a float") from None
    except (TypeError, ValueError, RuntimeError) as error:  # the last: a tensor of many elements
        kind = type(value).__name__
        raise TypeError(f"metric {name!r} is a {kind}, not one number: {error}") from None
    return number


def _child() -> dict[str, int]:
    """What marks points of a process that a launcher inside of a rank has started (`torchrun` as a job's
    command): its rank, where that differs from ours."""
    env = os.environ
    rank = rank_in(env)
    if rank is None and _count(env.get("QD_WORLD_SIZE")) == 1:
        # torch.multiprocessing.spawn sets no variables. Not imported here, which takes a second.
        torch = sys.modules.get("torch.distributed")
        with contextlib.suppress(Exception):  # a module that is half loaded, an old version
            if torch is not None and torch.is_available() and torch.is_initialized():
                rank = int(torch.get_rank())
    return {} if rank is None or rank == _count(env.get("QD_RANK")) else {"c": rank}


def rank_in(env: Mapping[str, str]) -> int | None:
    """The rank that the variables of a process name, in the numbers of the innermost launcher. Where each of
    several ranks has a launcher of its own, their processes are counted on: 0 and 1, then 2 and 3."""
    own = _count(env.get("QD_RANK")) or 0
    ours = _count(env.get("QD_WORLD_SIZE")) or 1
    size = _count(env.get("WORLD_SIZE")) or 1
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        rank = _count(env.get(name))
        if rank is not None:
            alone = (
                ours > 1 and env.get("GROUP_WORLD_SIZE") == "1"
            )  # one launcher knows of no other
            return own * size + rank if alone else rank
    local = _count(env.get("LOCAL_RANK"))  # Lightning gives no more
    return None if local is None else own * (size // ours) + local


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 else None


def _append(path: str, data: bytes) -> None:
    """Append in one write, which the kernel keeps whole among concurrent appenders.

    The file is opened each time (some 10 us): no descriptor to lose to a fork, a daemon that closes
    all, or a deleted file.
    """
    global _write_failed
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if _write_failed:  # a line may have been cut: do not let the next one grow on it
                data = b"\n" + data
            if os.write(fd, data) < len(data):
                raise OSError("the disk took only a part of it")
        finally:
            os.close(fd)
        _write_failed = False
    except OSError as error:
        if not _write_failed:
            sys.stderr.write(f"quarterdeck: metrics are not recorded: {error}\n")
        _write_failed = True


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)


# ------------------------------------------------------------------------------------------- stop

_stopping = False
_listening = False
_looked_at = -math.inf


def should_stop() -> bool:
    """True once Quarterdeck wants this job to end (cancelled, preempted, node drained).

    Save a checkpoint and leave the loop. It costs almost nothing, so call it every step. The first
    call also tells Quarterdeck that the script listens: it then waits the job's notice time before
    SIGTERM. Ranks may see the stop some steps apart, so a distributed loop agrees on it (all-reduce
    the answer) before it leaves.
    """
    global _stopping, _listening, _looked_at
    if _stopping:
        return True
    now = time.monotonic()
    if now - _looked_at < STAT_INTERVAL:
        return False
    _looked_at = now
    listener = os.environ.get("QD_STOP_LISTENER_FILE")
    if listener and not _listening:
        _listening = True
        with contextlib.suppress(OSError):  # only costs the notice time
            Path(listener).touch()
    flag = os.environ.get("QD_STOP_FILE")
    _stopping = flag is not None and Path(flag).exists()
    return _stopping


# ------------------------------------------------------------------------------------ checkpoints


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a file so that it is there whole or not at all, whatever dies meanwhile.

        with quarterdeck.atomic_write(quarterdeck.checkpoint_dir / "last.pt") as file:
            torch.save(state, file)

    Yields a binary file under a temporary name in the same folder; on success it is fsynced and
    renamed over `path`, on an exception it is removed and `path` is as it was. Raises OSError.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


# ------------------------------------------------------------------------------------- attributes


@functools.lru_cache(maxsize=1)
def _parse_params(text: str) -> dict[str, Any]:
    parsed = json.loads(text)
    if not isinstance(parsed, dict):
        raise TypeError(f"QD_PARAMS is a JSON object, not {text[:80]!r}")
    return parsed


def __getattr__(name: str) -> Any:
    env = os.environ
    if name == "params":
        return _parse_params(env.get("QD_PARAMS") or "{}")
    if name == "data":
        paths = json.loads(env.get("QD_DATA") or "{}")
        return {name: Path(path) for name, path in paths.items()}
    if name == "seed":
        return int(env["QD_SEED"]) if env.get("QD_SEED") else None
    if name == "checkpoint_dir":
        folder = Path(env.get("QD_CHECKPOINT_DIR") or "checkpoints")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    if name == "rank":
        return int(env.get("RANK") or env.get("QD_RANK") or 0)
    if name == "world_size":
        return int(env.get("WORLD_SIZE") or env.get("QD_WORLD_SIZE") or 1)
    if name == "attempt":
        run = env.get("QD_RUN") or "j0.1"  # "j12.2" is the second attempt of job 12
        return int(run.rpartition(".")[2])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
