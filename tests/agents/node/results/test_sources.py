"""Metrics from what attempts print and write: each point once, also over an agent's death."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from agents.node.results import sources
from agents.node.results.sources import EventFiles, Feed, Point, State
from jobs.metrics.points import by_rank
from tests.agents.node.conftest import Node

SETS = [{"step": "iter ([0-9]+)", "loss": r"loss (\S+)"}]


class Counting:
    """Gives one point at each look."""

    def read(self, state: State, *, final: bool) -> tuple[list[Point], State, bool]:
        count = int(state.get("count", 0))
        return [Point("n", count, 1.0, float(count))], {"count": count + 1}, False


def _steps(folder: Path) -> list[int]:
    lines = (folder / "metrics-0.jsonl").read_text().splitlines()
    return [json.loads(line)["s"] for line in lines if line]


def test_a_feed_goes_on_where_it_was(tmp_path: Path) -> None:
    for _ in range(3):
        Feed(tmp_path, 0, {"c": Counting()}).poll()
    assert _steps(tmp_path) == [0, 1, 2]


def test_an_append_that_was_announced_and_not_made_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sources, "_append", dies)
        with pytest.raises(KeyboardInterrupt):
            Feed(tmp_path, 0, {"c": Counting()}).poll()
    Feed(tmp_path, 0, {"c": Counting()}).poll()
    assert _steps(tmp_path) == [0]


def test_an_append_that_was_made_is_not_made_again(tmp_path: Path) -> None:
    feed = Feed(tmp_path, 0, {"c": Counting()})
    feed.poll()
    with (tmp_path / "metrics-0.jsonl").open("a") as file:  # the rank logs meanwhile
        file.write('{"n":"x","s":9,"v":1.0,"t":1.0}\n')
    feed.poll()
    note = json.loads((tmp_path / "sources-0.json").read_text())
    assert (note["before"], note["after"]) == ({"c": {"count": 1}}, {"c": {"count": 2}})
    Feed(tmp_path, 0, {"c": Counting()}).poll()
    assert _steps(tmp_path) == [0, 9, 1, 2]


def test_a_cut_line_does_not_take_the_next_one_with_it(tmp_path: Path) -> None:
    (tmp_path / "metrics-0.jsonl").write_text('{"n":"x","s"')
    Feed(tmp_path, 0, {"c": Counting()}).poll()
    assert json.loads((tmp_path / "metrics-0.jsonl").read_text().splitlines()[1])["s"] == 0


def test_names_of_curves_follow_their_folders(tmp_path: Path) -> None:
    for number, folder in enumerate(("logs/train", "logs/train/loss_a", "logs/validation")):
        with SummaryWriter(str(tmp_path / folder)) as writer:
            writer.add_scalar("loss", number, 1, walltime=10.0)
    (tmp_path / "logs/events.out.tfevents.0.none").write_text("not one")
    (tmp_path / "logs/train/link.tfevents.1").symlink_to("/etc/passwd")
    points, state, more = EventFiles(tmp_path, None).read({}, final=False)
    assert sorted((p.name, p.value) for p in points) == [
        ("loss", 0.0),
        ("loss_a/loss", 1.0),
        ("validation/loss", 2.0),
    ]
    assert not more
    assert EventFiles(tmp_path, None).read(state, final=True)[0] == []


PARALLEL = """
import os, sys, time
import quarterdeck
from torch.utils.tensorboard import SummaryWriter
rank = int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ["RANK"])
with SummaryWriter("runs/a") as writer:
    for step in range(3):
        quarterdeck.log(loss=10.0 * rank + step, step=step)
        writer.add_scalar("tb", 10.0 * rank + step, step)
    if "GO" in os.environ:
        writer.flush()
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.02)
"""


async def test_processes_of_a_launcher_inside_a_rank_have_curves_of_their_own(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sources, "EVERY", 0.02)
    script, go = tmp_path / "train.py", tmp_path / "go"
    script.write_text(PARALLEL)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    await node.run(*command, launch="plain", env={"GO": str(go)})
    path = node.folder() / "metrics-0.jsonl"

    def found() -> dict[tuple[int, str], list[float | None]]:
        if not path.exists():
            return {}
        return {
            (rank, name): [point.value for point in points.only(name)]
            for rank, points in by_rank(path.read_bytes(), 0).items()
            for name in points.names
        }

    zero, one = [0.0, 1.0, 2.0], [10.0, 11.0, 12.0]
    expected = {(0, "loss"): zero, (0, "tb"): zero, (1, "loss"): one, (1, "tb"): one}
    await node.until(lambda _: found() == expected)
    go.touch()
    await node.until(lambda report: report.get("left") is not None)
    assert found() == expected


def test_processes_that_are_gone_are_not_mixed(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(PARALLEL)
    helper = Path(sources.__file__).parent.parent / "worker"
    started = [
        subprocess.Popen(
            [sys.executable, script, str(rank)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(helper)},
        )
        for rank in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    points, _, _ = EventFiles(tmp_path, None).read({}, final=True)
    lines = [[p.value for p in points if p.child == child] for child in (None, 1, 2)]
    assert sorted(lines) == [[10.0 * rank + step for step in range(3)] for rank in range(3)]


async def test_a_rank_that_prints_and_never_logs_has_metrics(node: Node) -> None:
    script = "for i in 1 2 3; do echo iter $i: loss 0.$i; done; printf 'iter 4: loss 0.4'"
    await node.run("sh", "-c", script, metrics=SETS, procs=2)
    report = await node.until(lambda report: report.get("left") is not None)
    for rank in (0, 1):
        lines = (node.folder() / f"metrics-{rank}.jsonl").read_bytes()
        points = [json.loads(line) for line in lines.splitlines()]
        assert [(p["n"], p["s"], p["v"]) for p in points] == [
            ("loss", step, step / 10) for step in (1, 2, 3, 4)
        ]
        assert report["ranks"][rank]["metrics_size"] == len(lines)


async def test_event_files_come_live_and_once_over_a_new_agent(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "EVERY", 0.02)
    script = (
        "import sys, pathlib, time; from torch.utils.tensorboard import SummaryWriter\n"
        "w = SummaryWriter('runs/a')\n"
        "w.add_scalar('loss', 0.5, 1); w.flush()\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.02)\n"
        "w.add_scalar('loss', 0.25, 2); w.close()\n"
    )
    await node.run(sys.executable, "-c", script)
    path = node.folder() / "metrics-0.jsonl"

    def values() -> list[float]:
        if not path.exists():
            return []
        return [json.loads(line)["v"] for line in path.read_text().splitlines()]

    await node.until(lambda _: values() == [0.5])
    await node.restart()
    (node.folder() / "work" / "go").touch()
    await node.until(lambda report: report.get("left") is not None)
    assert values() == [0.5, 0.25]
