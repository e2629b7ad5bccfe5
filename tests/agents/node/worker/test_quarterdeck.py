"""The worker helper, as a script meets it: imported by path, alone, configured by environment."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import agents.node.worker

SOURCE = Path(agents.node.worker.__file__).with_name("quarterdeck.py")


@pytest.fixture
def metrics_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "metrics-0.jsonl"
    monkeypatch.setenv("QD_METRICS_FILE", str(path))
    return path


@pytest.fixture
def fresh() -> ModuleType:
    """A newly imported helper: it keeps step counters and the stop flag per process."""
    spec = importlib.util.spec_from_file_location("quarterdeck", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def points(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def test_a_call_appends_one_line_per_metric(fresh: ModuleType, metrics_file: Path) -> None:
    fresh.log({"val_acc": 0.5, "größe": 2}, step=3, lr=1e-3)

    found = points(metrics_file)
    assert [(p["n"], p["s"], p["v"]) for p in found] == [
        ("val_acc", 3, 0.5),
        ("größe", 3, 2.0),
        ("lr", 3, 0.001),
    ]
    assert len({p["t"] for p in found}) == 1  # one moment for one call


def test_without_a_step_each_name_counts_its_own(fresh: ModuleType, metrics_file: Path) -> None:
    fresh.log(a=1)
    fresh.log(a=1, b=1)
    fresh.log({"a": 1}, step=10)
    fresh.log(a=1, b=1)

    assert [(p["n"], p["s"]) for p in points(metrics_file)] == [
        ("a", 0), ("a", 1), ("b", 0), ("a", 10), ("a", 11), ("b", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("env", "child"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "2"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1),  # torchrun, accelerate launch, deepspeed
        ({"OMPI_COMM_WORLD_RANK": "3"}, 3),
        ({"PMI_RANK": "3"}, 3),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 1),  # Lightning
        ({"QD_RANK": "1", "QD_WORLD_SIZE": "2", "RANK": "1", "WORLD_SIZE": "2"}, None),
        ({"QD_RANK": "1", "QD_WORLD_SIZE": "2"}, None),  # `launch: plain`
        # torchrun over two nodes, and one that each node has for itself
        ({"QD_RANK": "1", "QD_WORLD_SIZE": "2", "RANK": "3", "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}, 3),
        ({"QD_RANK": "1", "QD_WORLD_SIZE": "2", "RANK": "0", "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}, 2),
        ({"QD_RANK": "1", "QD_WORLD_SIZE": "2", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, 3),
        ({"RANK": "one"}, None),
        ({"RANK": "-1"}, None),
    ],
)  # fmt: skip
def test_a_process_of_a_launcher_inside_a_rank_says_so(
    fresh: ModuleType,
    metrics_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    child: int | None,
) -> None:
    for name, value in {"QD_RANK": "0", "QD_WORLD_SIZE": "1", **env}.items():
        monkeypatch.setenv(name, value)
    fresh.log(a=1)
    assert points(metrics_file)[0].get("c") == child


def test_a_process_that_torch_spawned_says_so(metrics_file: Path, tmp_path: Path) -> None:
    """Without any variables."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys; import quarterdeck, torch.distributed as dist, torch.multiprocessing as mp\n"
        "def main(rank, path):\n"
        "    dist.init_process_group('gloo', f'file://{path}', rank=rank, world_size=2)\n"
        "    quarterdeck.log(rank=rank)\n"
        "    dist.destroy_process_group()\n"
        "if __name__ == '__main__': mp.spawn(main, (sys.argv[1],), nprocs=2)\n"
    )
    env = {"QD_RANK": "0", "QD_WORLD_SIZE": "1", "QD_METRICS_FILE": str(metrics_file)}
    subprocess.run(
        [sys.executable, script, tmp_path / "store"],
        env=os.environ | env | {"PYTHONPATH": str(SOURCE.parent)}, check=True,
    )  # fmt: skip
    assert {p["v"]: p.get("c") for p in points(metrics_file)} == {0.0: None, 1.0: 1}


def test_values_json_has_not_become_null(fresh: ModuleType, metrics_file: Path) -> None:
    fresh.log(nan=math.nan, inf=-math.inf, np_inf=np.float32("inf"), fine=0)

    assert [(p["v"], p.get("x")) for p in points(metrics_file)] == [
        (None, None), (None, "-Infinity"), (None, "Infinity"), (0.0, None),
    ]  # fmt: skip


def test_scalars_of_numpy_and_objects_that_look_like_tensors(
    fresh: ModuleType, metrics_file: Path
) -> None:
    class Tensor:
        def __init__(self, attached: bool = True) -> None:
            self.attached = attached

        def detach(self) -> Tensor:
            return Tensor(attached=False)

        def __float__(self) -> float:
            assert not self.attached
            return 1.5

    fresh.log({"f": np.float32(0.5), "i": np.int64(3), "zero_d": np.array(2.5), "t": Tensor()})
    fresh.log({"stepped": True}, step=np.int64(7))

    assert [p["v"] for p in points(metrics_file)] == [0.5, 3.0, 2.5, 1.5, 1.0]
    assert points(metrics_file)[-1]["s"] == 7


@pytest.mark.parametrize(
    ("metrics", "step", "error", "says"),
    [
        ({1: 1.0}, 0, TypeError, "name is a string, not int"),
        ({"": 1.0}, 0, ValueError, "1 to 200"),
        ({"x" * 201: 1.0}, 0, ValueError, "1 to 200"),
        ({"a\nb": 1.0}, 0, ValueError, "printable"),
        ({"a\ud800": 1.0}, 0, ValueError, "printable"),
        ({"a": "0.5"}, 0, TypeError, "'a' is text"),
        ({"a": b"1"}, 0, TypeError, "'a' is text"),
        ({"a": None}, 0, TypeError, "'a' is a NoneType"),
        ({"a": [1, 2]}, 0, TypeError, "'a' is a list"),
        ({"a": np.zeros(3)}, 0, TypeError, "'a' is a ndarray, not one number"),
        ({"a": 10**400}, 0, ValueError, "too large"),
        ({"a": 1}, 1.5, TypeError, "step is an integer, not float"),
        ({"a": 1}, -1, ValueError, "step is between"),
        ({"a": 1}, 2**63, ValueError, "step is between"),
    ],
)
def test_mistakes_are_named_and_nothing_of_the_call_is_written(
    fresh: ModuleType,
    metrics_file: Path,
    metrics: dict[Any, Any],
    step: Any,
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        fresh.log({"good": 1.0, **metrics}, step=step)
    assert not metrics_file.exists()


def test_processes_that_write_at_once_never_mix_lines(metrics_file: Path) -> None:
    script = """
import sys, quarterdeck
for i in range(50):
    quarterdeck.log({f"p{sys.argv[1]}/metric-{i}": i + 0.1 for i in range(20)})
"""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(who)],
            env=environment(QD_METRICS_FILE=str(metrics_file)),
        )
        for who in range(4)
    ]
    assert [process.wait(60) for process in crowd] == [0] * 4

    found = points(metrics_file)  # each line parses
    assert len(found) == 4 * 50 * 20
    for who in range(4):
        steps = [p["s"] for p in found if p["n"] == f"p{who}/metric-7"]
        assert steps == list(range(50))


def test_threads_share_one_counter(fresh: ModuleType, metrics_file: Path) -> None:
    def work() -> None:
        for _ in range(100):
            fresh.log(loss=1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(p["s"] for p in points(metrics_file)) == list(range(400))


def test_a_fork_can_log_while_a_thread_of_the_parent_holds_the_lock(metrics_file: Path) -> None:
    script = """
import os, quarterdeck
quarterdeck.log(a=1)
with quarterdeck._lock:
    pid = os.fork()
    if pid == 0:
        quarterdeck.log(a=2)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
quarterdeck.log(a=3)
"""
    run(script, QD_METRICS_FILE=str(metrics_file))
    assert [p["v"] for p in points(metrics_file)] == [1.0, 2.0, 3.0]


def test_a_disk_that_refuses_is_told_once_and_training_goes_on(
    fresh: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QD_METRICS_FILE", str(tmp_path / "gone" / "metrics.jsonl"))
    fresh.log(a=1)
    fresh.log(a=2)
    assert capfd.readouterr().err.count("metrics are not recorded") == 1

    (tmp_path / "gone").mkdir()
    fresh.log(a=3)
    fresh.log(a=4)
    lines = (tmp_path / "gone" / "metrics.jsonl").read_text().split("\n")
    assert lines[0] == ""  # so that a line cut by the failure stays alone
    assert [json.loads(line)["v"] for line in lines if line] == [3.0, 4.0]


def test_stop(fresh: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, flag = tmp_path / "listener", tmp_path / "stop"
    monkeypatch.setenv("QD_STOP_LISTENER_FILE", str(listener))
    monkeypatch.setenv("QD_STOP_FILE", str(flag))
    now = 100.0
    monkeypatch.setattr(fresh.time, "monotonic", lambda: now)

    assert not listener.exists()
    assert fresh.should_stop() is False
    assert listener.exists()

    flag.touch()
    assert fresh.should_stop() is False  # it looks at the disk ten times a second at most
    now += 0.2
    assert fresh.should_stop() is True
    flag.unlink()
    assert fresh.should_stop() is True  # a stop is never taken back


def test_attributes(fresh: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "QD_PARAMS": '{"lr": 0.01, "width": 64}',
        "QD_SEED": "7",
        "QD_CHECKPOINT_DIR": str(tmp_path / "deep" / "ckpt"),
        "QD_RUN": "j12.3",
        "RANK": "1",
        "WORLD_SIZE": "4",
    }.items():
        monkeypatch.setenv(name, value)

    assert fresh.params == {"lr": 0.01, "width": 64}
    assert (fresh.seed, fresh.rank, fresh.world_size, fresh.attempt) == (7, 1, 4, 3)
    assert fresh.checkpoint_dir == tmp_path / "deep" / "ckpt"
    assert fresh.checkpoint_dir.is_dir()
    with pytest.raises(AttributeError, match="no attribute 'parms'"):
        _ = fresh.parms
    monkeypatch.setenv("QD_PARAMS", "[1]")
    with pytest.raises(TypeError, match="JSON object"):
        _ = fresh.params


def test_atomic_write(fresh: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "last.pt"
    with fresh.atomic_write(target) as file:
        file.write(b"one")
        assert not target.exists()
    with pytest.raises(RuntimeError), fresh.atomic_write(target) as file:
        file.write(b"half of tw")
        raise RuntimeError("killed here")

    assert target.read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def environment(**env: str) -> dict[str, str]:
    """The helper on PYTHONPATH and nothing else of ours."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("QD_", "PYTHON"))}
    return {**clean, "PYTHONPATH": str(SOURCE.parent), **env}


def run(script: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment(**env),
        cwd=cwd,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_outside_of_quarterdeck_it_is_silent_and_leaves_no_file(tmp_path: Path) -> None:
    script = """
import sys
before = set(sys.modules)
from quarterdeck import params, log
import quarterdeck
log({"loss": 1.0}); log(acc=float("nan"), step=4)
assert params == {} and quarterdeck.seed is None and not quarterdeck.should_stop()
assert (quarterdeck.rank, quarterdeck.world_size, quarterdeck.attempt) == (0, 1, 1)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert new - set(sys.stdlib_module_names) == {"quarterdeck"}
"""
    done = run(script, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []

    run("import quarterdeck; assert str(quarterdeck.checkpoint_dir) == 'checkpoints'", cwd=tmp_path)
    assert (tmp_path / "checkpoints").is_dir()


def test_the_source_parses_as_python_3_8_and_its_folder_holds_nothing_else() -> None:
    """They run in interpreters of users."""
    here = {p.name: p for p in SOURCE.parent.iterdir() if p.suffix}
    stream = [*SOURCE.parent.glob("quarterdeck_stream/*.py")]
    assert stream
    assert here.keys() == {
        "__init__.py",
        "quarterdeck.py",
        "quarterdeck_features.py",
        "quarterdeck_ranks.py",
        "quarterdeck_ray.py",
    }
    for file in [*here.values(), *stream]:
        ast.parse(file.read_text(), feature_version=(3, 8))
