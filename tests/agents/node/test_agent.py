"""The agent's contract: idempotence, epochs, adoption, and what a sync tells."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agents.node.agent import NodeAgent
from agents.node.config import AgentConfig
from agents.node.guard import records
from jobs.base.errors import Conflict, InvalidInput, NotFound, TimedOut
from tests.agents.node.conftest import (
    FakeGpus,
    Node,
    NoSamples,
    end_all,
    eventually,
    plan_of,
)

SLEEP = ("sh", "-c", "echo up; exec sleep 300")


async def test_a_short_job_takes_one_call_each(node: Node) -> None:
    reply = await node.agent.stage(plan_of("c-j1.1", 1, "sh", "-c", "echo hi"))
    assert (reply["state"], reply["missing"]) == ("ready", [])
    await node.agent.launch(node.request())
    assert (await node.end())["outcome"] == "done"


async def test_a_new_agent_adopts_what_runs(node: Node) -> None:
    before = await node.run(*SLEEP, procs=2)
    await node.log("up", 1)
    await node.restart()
    report = (await node.agent.hello())["attempts"][0]
    assert report["state"] == "running"
    assert [r["pid"] for r in report["ranks"]] == [r["pid"] for r in before["ranks"]]
    again = await node.agent.launch(node.request())
    assert [r["pid"] for r in again["ranks"]] == [r["pid"] for r in before["ranks"]]
    await node.stop()
    assert (await node.end())["outcome"] == "stopped"


async def test_an_end_that_no_agent_saw_is_told_by_the_next(node: Node) -> None:
    await node.run("sh", "-c", "echo up; sleep 0.3; echo last; exit 7")
    await node.log("up")
    await node.agent.close()
    await eventually((node.folder() / records.EXIT).exists)
    node.agent = node.make()
    await node.agent.start()
    report = await node.report()
    assert (report["outcome"], report["ranks"][0]["exit_code"]) == ("failed", 7)
    reply = await node.sync(logs={"c-j1.1": {0: 0}})
    assert reply["logs"][0]["data"] == b"up\nlast\n"
    assert time.time() - reply["logs"][0]["times"][-1][1] < 60


async def test_a_guard_killed_while_no_agent_was_there(node: Node) -> None:
    await node.run("sh", "-c", "sleep 300 & echo up; wait")
    await node.log("up")
    await node.agent.close()
    os.kill(node.guard_pid(), signal.SIGKILL)
    node.agent = node.make()
    await node.agent.start()
    assert (await node.end())["outcome"] == "died"
    assert node.processes() == []


async def test_a_guard_of_an_earlier_boot_is_dead(node: Node) -> None:
    """A process with its pid is another's, and is left alone."""
    await node.run("true")
    await node.end()
    await eventually(lambda: records.start_time(node.guard_pid()) is None)
    await node.agent.close()
    (node.folder() / records.EXIT).unlink()
    path = node.folder() / records.HANDLE
    stranger = await asyncio.create_subprocess_exec("sleep", "300")
    try:
        handle = json.loads(path.read_text())
        handle |= {"pid": stranger.pid, "start_time": records.start_time(stranger.pid)}
        path.write_text(json.dumps({**handle, "boot_id": "another"}))
        node.agent = node.make()
        await node.agent.start()
        report = await node.end()
        assert (report["outcome"], report["reason"]) == ("died", "the node was restarted")
        assert stranger.returncode is None
        path.unlink()
    finally:
        stranger.kill()
        await stranger.wait()


async def test_what_was_staged_before_a_power_cut_is_not_begun_after_it(node: Node) -> None:
    """The disk may have kept it in part, and what its guard had begun may be missing of all things."""
    await node.stage_ready("true")
    await node.agent.close()
    path = node.folder() / records.PLAN
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "another"}))
    node.agent = node.make()
    await node.agent.start()
    report = await node.end()
    assert (report["outcome"], report["reason"]) == ("died", "the node was restarted")
    assert (await node.agent.launch(node.request()))["state"] == "ended"
    assert not (node.folder() / records.STARTED).exists()


async def test_an_agent_killed_while_it_launches_starts_the_ranks_once(root: Path) -> None:
    """`kill -9` at the worst moment: the guard runs, and nobody has heard of it."""
    program = (
        "import asyncio, os\n"
        "from pathlib import Path\n"
        "from agents.node.guard.forkserver import ForkServer\n"
        "from tests.agents.node.conftest import Node\n"
        "spawn = ForkServer.spawn\n"
        "def spawn_and_die(*args):\n"
        "    spawn(*args)\n"
        "    os.kill(os.getpid(), 9)\n"
        "ForkServer.spawn = spawn_and_die\n"
        "async def main():\n"
        f"    node = Node(Path({str(root)!r}))\n"
        "    await node.agent.start()\n"
        f"    await node.run(*{SLEEP!r})\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[3]
    )
    assert done.returncode == -signal.SIGKILL
    node = Node(root)
    await node.agent.start()
    try:
        await eventually(lambda: len(node.processes()) == 1)  # the guard may be about to start it
        pids = node.processes()
        report = await node.agent.launch(node.request())
        assert (report["state"], report["ranks"][0]["pid"]) == ("running", pids[0])
        assert node.processes() == pids
    finally:
        await end_all(node)


async def test_launches_that_race_start_the_ranks_once(node: Node) -> None:
    await node.stage_ready(*SLEEP)
    reports = await asyncio.gather(*(node.agent.launch(node.request()) for _ in range(4)))
    assert len({report["ranks"][0]["pid"] for report in reports}) == 1
    await node.log("up")
    assert (node.folder() / "rank-0.log").read_bytes() == b"up\n"


async def test_a_launch_goes_on_when_its_caller_is_gone(node: Node) -> None:
    await node.stage_ready(*SLEEP)
    call = asyncio.create_task(node.agent.launch(node.request()))
    await asyncio.sleep(0)
    call.cancel()
    await node.until(lambda report: report["state"] == "running")


async def test_a_stop_before_the_stage_bars_it(node: Node) -> None:
    report = await node.stop()
    assert (report["state"], report["outcome"], report["ranks"]) == ("ended", "refused", [])
    await node.restart()
    reply = await node.agent.stage(plan_of("c-j1.1", 1, *SLEEP))
    assert reply["state"] == "failed"
    assert (await node.agent.launch(node.request()))["outcome"] == "refused"


async def test_a_stop_before_the_launch_bars_it(node: Node) -> None:
    await node.stage_ready(*SLEEP)
    assert (await node.stop())["outcome"] == "refused"
    report = await node.agent.launch(node.request())
    assert (report["outcome"], report["ranks"]) == ("refused", [])
    assert not (node.folder() / records.STARTED).exists()


async def test_a_stop_while_it_launches_stops_it(node: Node) -> None:
    await node.stage_ready(*SLEEP)
    launch = asyncio.create_task(node.agent.launch(node.request()))
    await asyncio.sleep(0)
    await node.stop()
    await launch
    assert (await node.end())["outcome"] in ("stopped", "refused")


async def test_messages_of_the_past_are_refused(node: Node) -> None:
    await node.stage_ready(*SLEEP)  # epoch 1
    await node.agent.stage(plan_of("c-j1.2", 5, "true"))
    for late in (
        node.agent.stage(plan_of("c-j1.3", 4, "true")),
        node.agent.stage(plan_of("c-j1.2", 4, "true")),
        node.agent.launch(node.request("c-j1.2", 4)),
        node.agent.launch(node.request()),
        node.stop("c-j1.2", 4),
        node.stop("c-j1.9", 4),
    ):
        with pytest.raises(Conflict):
            await late
    assert (await node.stop("c-j1.1", 1))["outcome"] == "refused", "its own attempt can be stopped"


async def test_a_newer_epoch_takes_over_a_key_that_never_started(node: Node) -> None:
    await node.stage_ready("sh", "-c", "echo old")
    reply = await node.stage(plan_of("c-j1.1", 2, "sh", "-c", "echo new"))
    assert reply["state"] == "ready"
    with pytest.raises(Conflict):
        await node.agent.launch(node.request(epoch=1))
    await node.agent.launch(node.request(epoch=2))
    await node.end()
    assert (node.folder() / "rank-0.log").read_bytes() == b"new\n"


async def test_two_attempts_of_a_job_never_run_together(node: Node) -> None:
    await node.run(*SLEEP)
    await node.stage(plan_of("c-j1.2", 2, "true"))
    with pytest.raises(TimedOut, match=r"c-j1\.1 still runs"):
        await node.agent.launch(node.request("c-j1.2", 2))
    await node.stop()
    await node.end()
    await node.agent.launch(node.request("c-j1.2", 2))
    assert (await node.end("c-j1.2"))["outcome"] == "done"


async def test_requests_that_make_no_sense(node: Node) -> None:
    with pytest.raises(NotFound):
        await node.agent.launch(node.request())
    with pytest.raises(InvalidInput):
        await node.agent.stage(plan_of("../../etc-j1.1", 1))
    with pytest.raises(Conflict, match="protocol"):
        await node.sync(protocol=99)
    await node.stage_ready()
    with pytest.raises(TimedOut):
        await node.agent.launch(node.request(lease_until=records.boot_clock() - 1))


async def test_only_what_is_over_is_forgotten_and_it_never_comes_back(node: Node) -> None:
    await node.run(*SLEEP)
    checkpoints = node.root / "checkpoints" / "c-j1"
    (checkpoints / "step-1").write_text("kept")
    await node.sync(forget=["c-j1.1", "c-j8.1"])
    assert (await node.report())["state"] == "running"
    await node.stop()
    await node.end()
    assert (await node.sync(forget=["c-j1.1"]))["attempts"] == []
    await eventually(lambda: not list((node.root / "trash").iterdir()))
    assert not node.folder().exists()
    await node.restart()
    with pytest.raises(Conflict):
        await node.agent.stage(plan_of("c-j1.1", 1, *SLEEP))
    with pytest.raises(Conflict):
        await node.agent.launch(node.request())
    assert (checkpoints / "step-1").read_text() == "kept"
    assert (await node.stage(plan_of("c-j1.2", 2)))["state"] == "ready"


async def test_log_bytes_are_exact_whatever_they_are(node: Node) -> None:
    raw = bytes(range(256)) + b"\xff\xfe no newline"
    script = f"import sys; sys.stdout.buffer.write({raw!r})"
    await node.run(sys.executable, "-c", script)
    report = await node.end()
    assert report["ranks"][0]["log_size"] == len(raw)
    got = b""
    while len(got) < len(raw):
        chunks = (await node.sync(logs={"c-j1.1": {0: len(got)}}, max_bytes=100))["logs"]
        assert chunks[0]["offset"] == len(got)
        assert 0 < len(chunks[0]["data"]) <= 100
        assert chunks[0]["times"][0][0] == len(got)
        got += chunks[0]["data"]
    assert got == raw
    assert (await node.sync(logs={"c-j1.1": {0: len(raw)}}))["logs"] == []


async def test_log_times_survive_a_restart(node: Node) -> None:
    await node.run("sh", "-c", "echo one; until [ -e go ]; do sleep 0.02; done; echo two")
    await node.until(lambda report: report["ranks"][0]["log_size"] == 4)
    before = (await node.sync(logs={"c-j1.1": {0: 0}}))["logs"][0]["times"]
    await node.restart()
    (node.folder() / "work" / "go").touch()
    await node.end()
    times = (await node.sync(logs={"c-j1.1": {0: 0}}))["logs"][0]["times"]
    assert times[0] == before[0]
    assert times[1][0] == 4
    assert times[1][1] > times[0][1]


async def test_metrics_are_given_in_whole_lines(node: Node) -> None:
    script = 'printf \'{"n":1}\\n{"n":2}\\n{"n"\' > "$QD_METRICS_FILE"; echo up; sleep 300'
    await node.run("sh", "-c", script)
    await node.until(lambda report: report["ranks"][0]["metrics_size"] > 0)
    chunk = (await node.sync(metrics={"c-j1.1": {0: 0}}))["metrics"][0]
    assert (chunk["offset"], chunk["data"]) == (0, b'{"n":1}\n{"n":2}\n')
    assert (await node.sync(metrics={"c-j1.1": {0: 16}}))["metrics"] == []
    await node.stop()
    await node.end()
    last = (await node.sync(metrics={"c-j1.1": {0: 16}}))["metrics"][0]
    assert last["data"] == b'{"n"', "its writer is dead: the rest of the line will not come"


async def test_a_sync_wakes_up_when_something_happens(node: Node) -> None:
    await node.run("sh", "-c", "until [ -e go ]; do sleep 0.02; done")
    seen = (await node.sync())["revision"]
    waiting = [asyncio.create_task(node.sync(seen=seen, wait=60)) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    (node.folder() / "work" / "go").touch()
    started = time.monotonic()
    replies = await asyncio.gather(*waiting)
    assert time.monotonic() - started < 5
    assert all(reply["revision"] > seen for reply in replies)


async def test_a_sync_with_nothing_to_tell_waits_as_long_as_asked(node: Node) -> None:
    seen = (await node.sync())["revision"]
    reply = await node.sync(seen=seen, wait=0.05)
    assert (reply["revision"], reply["logs"], reply["sample"]) == (seen, [], None)
    assert reply["problems"] == ["telemetry: not measured in this test"]


async def test_a_new_agent_has_a_new_revision(node: Node) -> None:
    seen = (await node.sync())["revision"]
    await asyncio.sleep(0.005)
    await node.restart()
    assert (await node.sync())["revision"] > seen


async def test_outputs_are_read_below_the_work_folder_only(node: Node) -> None:
    await node.run("sh", "-c", "mkdir out; printf 0123456789 > out/m; ln -s /etc/passwd out/link")
    await node.end()
    read = node.agent.read_file
    assert await read("c-j1.1", "work", "out/m", 2, 3) == b"234"
    assert await read("c-j1.1", "work", "out/m", 10, 3) == b""
    for path in ("../plan.json", "/etc/passwd", "out/link"):
        with pytest.raises(InvalidInput):
            await read("c-j1.1", "work", path, 0, 100)
    for key, path in (("c-j1.1", "out/none"), ("c-j9.1", "out/m")):
        with pytest.raises(NotFound):
            await read(key, "work", path, 0, 3)
    with pytest.raises(InvalidInput):
        await read("../../etc", "work", "passwd", 0, 3)


async def test_what_an_attempt_wrote_stays_when_it_is_forgotten(node: Node) -> None:
    await node.run("sh", "-c", "mkdir out; printf 0123456789 > out/m; echo x > out/named")
    left = (await node.end())["left"]
    assert left == {"files": 2, "bytes": 12}
    await node.sync(forget=["c-j1.1"])
    assert not node.folder().exists()
    await node.restart()
    listing = await node.agent.list_files("c-j1.1", "work", [], True)
    assert [(file["path"], file["size"]) for file in listing["files"]] == [
        ("out/m", 10),
        ("out/named", 2),
    ]
    assert listing["until"] is not None
    assert await node.agent.read_file("c-j1.1", "work", "out/m", 2, 3) == b"234"


async def test_what_outputs_name_does_not_count_as_left(node: Node) -> None:
    await node.run("sh", "-c", "mkdir out; echo m > out/m; echo l > log", outputs={"m": "out/**"})
    assert (await node.end())["left"] == {"files": 1, "bytes": 2}


async def test_an_attempt_that_wrote_nothing_leaves_nothing(node: Node) -> None:
    await node.run("true")
    assert (await node.end())["left"] == {"files": 0, "bytes": 0}
    await node.sync(forget=["c-j1.1"])
    assert list((node.root / "kept").iterdir()) == []
    with pytest.raises(NotFound):
        await node.agent.list_files("c-j1.1", "work", [], True)


async def test_a_large_folder_is_counted_aside(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.node.agent.COUNTED_AT_ONCE", 2)
    await node.run("sh", "-c", "for i in 1 2 3 4 5; do echo $i > f$i; done")
    report = await node.until(lambda report: report.get("left") is not None)
    assert (report["state"], report["left"]) == ("ended", {"files": 5, "bytes": 10})


async def test_stacks_of_python_below_a_shell_and_of_none(node: Node) -> None:
    script = (
        'if [ $RANK = 0 ]; then "$0" -c "import time\n'
        "def spin():\n"
        "    print(1, flush=True); time.sleep(300)\n"
        'spin()"; true; else echo 1; exec sleep 300; fi'
    )
    await node.run("sh", "-c", script, sys.executable, procs=2)
    await node.log("1", 0)
    await node.log("1", 1)
    python, sleep = await node.agent.stacks("c-j1.1")
    assert (python["rank"], python["error"]) == (0, "")
    assert python["threads"][0]["name"] == "MainThread"
    assert python["threads"][0]["frames"][0].startswith("spin (<string>:3")
    assert "runs no Python" in sleep["error"]
    with pytest.raises(NotFound):
        await node.agent.stacks("c-j9.1")


async def test_one_agent_at_a_time_uses_a_folder(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.node.agent.LOCK_PATIENCE", 0.0)
    second = NodeAgent(AgentConfig(node.root, "n1", "c"), FakeGpus(0), NoSamples())
    with pytest.raises(Conflict, match="another agent"):
        await second.start()


async def test_a_folder_that_makes_no_sense_is_told_and_left_alone(node: Node) -> None:
    await node.agent.close()
    (node.root / "attempts" / "c-j5.1").mkdir()
    broken = node.root / "attempts" / "c-j6.1"
    broken.mkdir()
    (broken / "plan.json").write_text('{"no": "epoch"}')
    node.agent = node.make()
    await node.agent.start()
    hello = await node.agent.hello()
    assert hello["attempts"] == []
    assert any("c-j6.1" in problem for problem in hello["problems"])
    assert broken.exists()
