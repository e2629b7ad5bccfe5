"""Ranks in containers under a real guard, with a stand-in for podman."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agents.node.guard import containers, records
from tests.agents.node.conftest import Node, eventually, plan_of
from tests.agents.node.podman import DIGEST, ID, StandIn, install

IMAGE: dict[str, Any] = {"image": {"ref": "local/image:1", "digest": ""}, "mounts": []}


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return install(tmp_path / "podman", monkeypatch)


async def test_a_rank_runs_in_its_image(podman: StandIn, node: Node) -> None:
    """With the job's variables, of which none that podman gets by name is in its arguments."""
    env = {"HELLO": "a\nb", "PATH": "/mine:$PATH", "LD_PRELOAD": "", "NOT_WANTED": None}
    await node.stage_ready("sh", "-c", "echo $QD_RANK $HELLO $PATH; exit 5", env=env, **IMAGE)
    await node.agent.launch(node.request(secrets={"TOKEN": "hidden"}))
    report = await node.end()
    assert report["reason"] == "rank 0 ended with exit code 5"
    log = (node.folder() / "rank-0.log").read_text()
    assert log == "0 a b /mine:/image/bin:/usr/bin:/bin\n"
    (words,) = podman.calls("run")
    assert words[-4:-1] == [ID, "sh", "-c"]
    folder = node.folder()
    assert f"--mount=type=bind,source={folder},destination={folder}" in words
    assert "--env=PATH=/mine:/image/bin:/usr/bin:/bin" in words, "podman has another"
    assert "--env=LD_PRELOAD=" in words
    assert {"--env=TOKEN", "--env=HELLO", "--unsetenv=NOT_WANTED"} <= set(words)
    assert "hidden" not in " ".join(words)
    assert podman.environment()["TOKEN"] == "hidden"
    assert "LD_PRELOAD" not in podman.environment()
    (python_path,) = [word for word in words if word.startswith("--env=PYTHONPATH")]
    assert python_path == "--env=PYTHONPATH"
    assert podman.environment()["PYTHONPATH"].endswith("/worker:/image/lib")


async def test_the_digest_is_told_and_asked_for(podman: StandIn, node: Node) -> None:
    reply = await node.stage_ready("true", **IMAGE)
    assert reply["image"] == DIGEST
    podman.has(f"local/image@{DIGEST}")
    await node.stop()
    plan = {"image": {"ref": "local/image:1", "digest": DIGEST}, "mounts": []}
    await node.restart()
    again = await node.stage(plan_of("c-j2.1", 2, "true", **plan))
    assert (again["state"], again["image"]) == ("ready", DIGEST), "the tag is gone from here"


async def test_an_image_that_cannot_be_had(podman: StandIn, node: Node) -> None:
    plan: dict[str, Any] = {"image": {"ref": "nosuch:1", "digest": ""}, "mounts": []}
    reply = await node.stage(plan_of("c-j1.1", 1, "true", **plan))
    assert reply["state"] == "failed"
    assert reply["detail"] == (
        "image nosuch:1: this node does not have it (it has local/image:1), and podman cannot pull "
        "it: initializing source docker://nosuch: manifest unknown"
    )


async def test_a_node_without_podman_says_so(
    podman: StandIn, node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert (await node.agent.hello())["facts"]["containers"] == "podman 9.9.9"
    monkeypatch.setenv("PATH", str(tmp_path))
    reply = await node.stage(plan_of("c-j1.1", 1, "true", **IMAGE))
    assert (reply["state"], reply["blame"]) == ("failed", "node")
    assert "has no podman and no crun" in reply["detail"]
    assert "containers" not in (await node.agent.hello())["facts"]


async def test_a_stop_goes_to_the_program_and_the_exit_code_is_its_own(
    podman: StandIn, node: Node
) -> None:
    script = 'trap "echo told; exit 9" TERM; echo up; while :; do sleep 0.05; done'
    await node.run("sh", "-c", script, procs=2, **IMAGE)
    for rank in (0, 1):
        await node.log("up", rank)
    program = _program(node)
    await node.until(lambda report: report["ranks"][0]["pid"] == program)
    await node.stop()
    report = await node.end()
    assert [rank["exit_code"] for rank in report["ranks"]] == [9, 9]
    assert (node.folder() / "rank-0.log").read_text().count("told") == 1
    names = [containers.name(node.tag(), rank) for rank in (0, 1)]
    assert podman.calls("rm")[-1][-2:] == names


async def test_what_ignores_sigterm_is_killed(podman: StandIn, node: Node) -> None:
    await node.run("sh", "-c", 'trap "" TERM; echo up; while :; do sleep 0.05; done', **IMAGE)
    await node.log("up")
    await node.until(lambda report: report["ranks"][0]["pid"] == _program(node))
    await node.stop(grace=0.2)
    report = await node.end()
    assert (report["outcome"], report["ranks"][0]["signal"]) == ("stopped", signal.SIGKILL)
    assert node.processes() == []


async def test_a_signal_is_told_as_such(podman: StandIn, node: Node) -> None:
    await node.run("sh", "-c", "kill -9 $$", **IMAGE)
    assert (await node.end())["reason"] == "rank 0 was killed by SIGKILL"


async def test_a_container_that_cannot_start(podman: StandIn, node: Node) -> None:
    await node.stage_ready("true", **IMAGE)
    (podman.folder / "bin" / "podman").write_text("#!/bin/sh\necho 'Error: no room'; exit 125\n")
    await node.agent.launch(node.request())
    report = await node.end()
    assert report["reason"] == "rank 0's container did not start (exit code 125); its log says why"
    assert (node.folder() / "rank-0.log").read_text() == "Error: no room\n"


async def test_no_container_outlives_its_guard(podman: StandIn, node: Node) -> None:
    """Not even with the agent away: the keeper sees to it."""
    await node.run("sh", "-c", "echo up; exec sleep 300", **IMAGE)
    await node.log("up")
    program, guard = _program(node), node.guard_pid()
    await node.agent.close()
    os.kill(guard, signal.SIGKILL)
    await eventually(lambda: records.start_time(program) is None)
    await eventually(lambda: len(podman.calls("rm")) == 1)
    node.agent = node.make()
    await node.agent.start()
    report = await node.end()
    assert report["outcome"] == "died"
    assert len(podman.calls("rm")) == 2, "the agent cannot know that the keeper was alive"


async def test_a_new_agent_adopts_it(podman: StandIn, node: Node) -> None:
    await node.run("sh", "-c", "echo up; exec sleep 300", **IMAGE)
    await node.log("up")
    program = _program(node)
    await node.restart()
    report = await node.until(lambda report: report["ranks"][0]["pid"] == program)
    assert report["state"] == "running"
    await node.stop()
    assert (await node.end())["ranks"][0]["signal"] == signal.SIGTERM


def _program(node: Node) -> int:
    return int((node.folder() / "rank-0.pid").read_text())
