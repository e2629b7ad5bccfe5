"""The process that guards are forked from."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.agents.node.conftest import Node, eventually, plan_of

SLEEP = ("sh", "-c", "echo up; exec sleep 300")


def fork_server() -> psutil.Process:
    """The one below this process. Guards are nobody's children."""
    children = [
        child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE
    ]
    (found,) = [child for child in children if "guard.py" in " ".join(child.cmdline())]
    return found


async def test_a_killed_nursery_takes_no_guard_along_and_is_replaced(node: Node) -> None:
    await node.run(*SLEEP)
    before = fork_server()
    before.kill()
    assert (await node.stage(plan_of("c-j2.1", 2, *SLEEP)))["state"] == "ready"
    assert (await node.agent.launch(node.request("c-j2.1", 2)))["state"] == "running"
    assert fork_server().pid != before.pid
    assert (await node.report())["state"] == "running"


async def test_a_nursery_ends_with_its_agent_and_the_guards_go_on(node: Node) -> None:
    await node.run(*SLEEP)
    await node.log("up")
    before, pids, guard = fork_server(), node.processes(), node.guard_pid()
    await node.restart()
    assert not before.is_running()
    assert node.processes() == pids
    assert psutil.Process(guard).is_running()


async def test_a_nursery_that_hangs_is_not_waited_for_for_ever(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.node.guard.forkserver.START_TIMEOUT", 0.2)
    await node.stage_ready(*SLEEP)
    stuck = fork_server()
    stuck.send_signal(signal.SIGSTOP)
    with pytest.raises(Exception, match="cannot start a guard now"):
        await node.agent.launch(node.request())
    stuck.send_signal(signal.SIGCONT)
    # What was asked for is done after all, once: whoever asks again finds it.
    await eventually(lambda: len(node.processes()) == 1)
    assert (await node.agent.launch(node.request()))["state"] == "running"
    assert len(node.processes()) == 1
