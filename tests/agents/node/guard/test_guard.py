"""The guard with real ranks: how they start, how they end, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agents.node import attempts
from agents.node.guard import records
from agents.node.guard.forkserver import GUARD, ForkServer
from agents.node.guard.guard import ending
from tests.agents.node.conftest import Node, eventually

SLEEP = ("sh", "-c", "echo up; exec sleep 300")


def test_endings_give_the_time_that_was_promised() -> None:
    at = 100.0
    failed = ending("failed", "", at, grace=10, notice=5, listening=True)
    assert (failed.term_at, failed.kill_at) == (100, 110)
    stopped = ending("stopped", "", at, grace=10, notice=5, listening=False)
    assert (stopped.term_at, stopped.kill_at) == (100, 110)
    told = ending("stopped", "", at, grace=10, notice=5, listening=True)
    assert (told.term_at, told.kill_at) == (105, 115)
    told.hurry(asked=103, grace=1)
    assert told.kill_at == 106
    told.hurry(asked=110, grace=30)
    assert told.kill_at == 106, "a later stop can only bring the end nearer"


@pytest.mark.parametrize("listening", [True, False])
@pytest.mark.parametrize("notice", [0.0, 3.0, 60.0])
def test_a_fence_never_takes_longer_than_the_grace(notice: float, listening: bool) -> None:
    fence = ending("fenced", "", 100.0, grace=10, notice=notice, listening=listening)
    assert fence.kill_at == 110
    assert 100 <= fence.term_at <= 105


async def test_success_is_told_with_logs_of_both_streams(node: Node) -> None:
    await node.run("sh", "-c", "echo out; echo err >&2; exit 0", procs=2)
    report = await node.end()
    assert report["outcome"] == "done"
    assert [rank["exit_code"] for rank in report["ranks"]] == [0, 0]
    assert [rank["rank"] for rank in report["ranks"]] == [0, 1]
    for rank in (0, 1):
        assert (node.folder() / f"rank-{rank}.log").read_bytes() == b"out\nerr\n"


async def test_the_first_rank_that_fails_takes_the_others_along(node: Node) -> None:
    script = 'if [ $RANK = 1 ]; then exit 3; fi; trap "echo told; exit 0" TERM; sleep 300 & wait'
    await node.run("sh", "-c", script, procs=3)
    report = await node.end()
    assert (report["outcome"], report["first_failed"]) == ("failed", 1)
    assert report["reason"] == "rank 1 ended with exit code 3"
    assert report["ranks"][1]["exit_code"] == 3
    assert report["first_failed_at"] == report["ranks"][1]["ended_at"]
    assert node.processes() == []


async def test_a_rank_killed_by_a_signal_is_told_as_such(node: Node) -> None:
    await node.run("sh", "-c", "kill -9 $$")
    report = await node.end()
    assert (report["ranks"][0]["signal"], report["ranks"][0]["exit_code"]) == (9, None)
    assert report["reason"] == "rank 0 was killed by SIGKILL"


@pytest.mark.parametrize(
    ("number", "name"),
    [(34, "SIGRTMIN"), (35, "SIGRTMIN+1"), (63, "SIGRTMIN+29"), (64, "SIGRTMAX")],
)
async def test_a_signal_that_python_has_no_name_for_is_told_too(
    node: Node, number: int, name: str
) -> None:
    await node.run("sh", "-c", f"kill -{number} $$", procs=2)
    report = await node.end()
    assert report["outcome"] == "failed", "the guard lived to tell of it"
    assert number in {rank["signal"] for rank in report["ranks"]}
    assert report["reason"].endswith(f"was killed by {name}")


async def test_a_program_that_is_not_there_is_told_in_its_log(node: Node) -> None:
    await node.run("no-such-program")
    report = await node.end()
    assert (report["outcome"], report["ranks"][0]["exit_code"]) == ("failed", 127)
    assert b"cannot start 'no-such-program'" in (node.folder() / "rank-0.log").read_bytes()


async def test_a_stop_reaches_a_rank_that_ignores_sigterm(node: Node) -> None:
    await node.run("sh", "-c", 'trap "" TERM; echo up; while :; do sleep 300; done')
    await node.log("up")
    assert (await node.stop(grace=0.2))["state"] == "stopping"
    report = await node.end()
    assert (report["outcome"], report["reason"]) == ("stopped", "cancelled")
    assert report["ranks"][0]["signal"] == signal.SIGKILL


async def test_the_program_in_a_shell_has_its_grace_though_the_shell_dies_at_once(
    node: Node,
) -> None:
    program = 'trap "sleep 0.3; echo saved; exit 0" TERM; echo up; while :; do sleep 0.05; done'
    await node.run("sh", "-c", f"sh -c '{program}'; true")
    await node.log("up")
    await node.stop(grace=10.0)
    report = await node.end()
    assert report["ranks"][0]["signal"] == signal.SIGTERM
    assert (node.folder() / "rank-0.log").read_bytes().endswith(b"saved\n")


async def test_the_grace_of_what_a_shell_leaves_behind_ends_too(node: Node) -> None:
    program = 'trap "" TERM; echo up; while :; do sleep 0.05; done'
    await node.run("sh", "-c", f"sh -c '{program}'; true")
    await node.log("up")
    await node.stop(grace=0.3)
    assert (await node.end())["outcome"] == "stopped"
    assert node.processes() == []


async def test_a_second_stop_hurries_the_first(node: Node) -> None:
    await node.run("sh", "-c", 'trap "" TERM; echo up; while :; do sleep 300; done')
    await node.log("up")
    await node.stop(grace=300)
    await node.stop(grace=0.0)
    assert (await node.end())["outcome"] == "stopped"


async def test_a_rank_that_listens_is_given_notice_before_sigterm(node: Node) -> None:
    script = (
        'touch "$QD_STOP_LISTENER_FILE"; trap "echo SIGTERM; exit 1" TERM; echo up;'
        'while [ ! -e "$QD_STOP_FILE" ]; do sleep 0.02; done; echo saved'
    )
    await node.run("sh", "-c", script, notice=30.0)
    await node.log("up")
    await node.stop()
    report = await node.end()
    assert report["outcome"] == "stopped"
    assert report["ranks"][0]["exit_code"] == 0
    assert (node.folder() / "rank-0.log").read_bytes() == b"up\nsaved\n"


async def test_a_stopped_process_is_stopped_too(node: Node) -> None:
    await node.run(*SLEEP)
    await node.log("up")
    pid = node.processes()[0]
    os.kill(pid, signal.SIGSTOP)
    await node.stop(grace=60)
    assert (await node.end())["ranks"][0]["signal"] == signal.SIGTERM


async def test_sigterm_to_the_guard_stops_its_ranks(node: Node) -> None:
    await node.run(*SLEEP)
    os.kill(node.guard_pid(), signal.SIGTERM)
    report = await node.end()
    assert (report["outcome"], report["reason"]) == (
        "stopped",
        "somebody sent SIGTERM to the guard",
    )


@pytest.mark.parametrize("rank_first", [True, False])
async def test_a_shutdown_of_the_machine_is_no_failure_of_a_rank(
    node: Node, rank_first: bool
) -> None:
    """It sends SIGTERM to all that runs, in any order."""
    await node.run(*SLEEP)
    await eventually(lambda: len(node.processes()) == 1)
    (rank,) = node.processes()
    for pid in (rank, node.guard_pid()) if rank_first else (node.guard_pid(), rank):
        os.kill(pid, signal.SIGTERM)
    report = await node.end()
    assert (report["outcome"], report["first_failed"]) == ("stopped", None)


async def test_sigterm_to_a_rank_alone_is_its_failure(node: Node) -> None:
    await node.run(*SLEEP)
    await eventually(lambda: len(node.processes()) == 1)
    (rank,) = node.processes()
    os.kill(rank, signal.SIGTERM)
    report = await node.end()
    assert (report["outcome"], report["reason"]) == ("failed", "rank 0 was killed by SIGTERM")


async def test_what_ranks_leave_behind_is_killed(node: Node) -> None:
    """One orphan in the rank's session, one that made a session of its own, one without our mark."""
    times = [f"8642{number}.{os.getpid()}" for number in range(4)]
    one, two, three, four = (f"sleep {time}" for time in times)
    script = f"{one} & setsid {two} & env -i setsid sh -c '{three} & {four}' & sleep 0.1; echo up"
    await node.run("sh", "-c", script)
    report = await node.end()
    assert report["outcome"] == "done"
    assert node.processes() == []
    assert [process for process in psutil.process_iter() if argument_of(process) in times] == []


def argument_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return "".join(process.cmdline()[1:2])
    return ""


async def test_ranks_die_with_their_guard(node: Node) -> None:
    await node.run("sh", "-c", "sleep 300 & echo up; wait", procs=2)
    await node.log("up", 0)
    await node.log("up", 1)
    pids = node.processes()
    assert len(pids) == 4
    os.kill(node.guard_pid(), signal.SIGKILL)
    report = await node.end()
    assert (report["outcome"], report["reason"]) == (
        "died",
        "the guard was killed, and its ranks with it",
    )
    assert [records.start_time(pid) for pid in pids] == [None] * 4
    assert all(rank["ended_at"] for rank in report["ranks"])


async def test_the_lease_ends_what_is_not_renewed(node: Node) -> None:
    reply = await node.stage_ready(*SLEEP)
    await node.agent.launch(node.request(lease_until=reply["clock"] + 0.3))
    report = await node.end()
    assert (report["outcome"], report["reason"]) == ("fenced", "the lease ran out")


async def test_a_lease_can_be_renewed_but_not_shortened(node: Node) -> None:
    reply = await node.stage_ready(*SLEEP)
    await node.agent.launch(node.request(lease_until=reply["clock"] + 0.6))
    longer = records.boot_clock() + 600
    await node.sync(leases={"c-j1.1": longer})
    await node.sync(leases={"c-j1.1": longer - 599.9})
    await asyncio.sleep(1.2)  # past the first lease, and a second look at the file
    assert (await node.report())["state"] == "running"
    assert float((node.folder() / "lease").read_text()) == longer


async def test_two_guards_of_one_folder_start_the_ranks_once(node: Node) -> None:
    await node.run(*SLEEP)
    await node.log("up")
    pids = node.processes()
    with contextlib.closing(ForkServer({"PATH": "/bin"})) as fork_server:
        await asyncio.gather(
            *(asyncio.to_thread(fork_server.spawn, node.folder()) for _ in range(2))
        )
    assert node.processes() == pids
    assert (node.folder() / "rank-0.log").read_bytes() == b"up\n"
    assert (await node.report())["state"] == "running"


async def test_a_rank_finds_a_plain_process_environment(node: Node) -> None:
    """Stdin empty, no descriptor of ours, default signals, no niceness, its own session, umask 022."""
    script = (
        "import os, signal, json;"
        "print(json.dumps({'fds': sorted(int(f) for f in os.listdir('/proc/self/fd'))[:3],"
        "'count': len(os.listdir('/proc/self/fd')),"
        "'stdin': os.read(0, 10).decode(), 'nice': os.nice(0), 'sid': os.getsid(0) == os.getpid(),"
        "'mask': [int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])],"
        "'status': open('/proc/self/status').read(), 'oom': open('/proc/self/oom_score_adj').read(),"
        "'umask': os.umask(0), 'cwd': os.getcwd()}))"
    )
    code = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _LAUNCHED_LIKE_BY_RAY, sys.executable, str(GUARD)],
        check=False,
        cwd=Path(__file__).parents[4],
        env={**os.environ, "FOLDER": str(node.root), "SCRIPT": script},
    )
    assert code.returncode == 0
    log = next(node.root.glob("other/attempts/*/rank-0.log"))
    await eventually(lambda: log.read_text().endswith("\n"))
    seen = json.loads(log.read_text())
    assert (seen["fds"], seen["count"]) == ([0, 1, 2], 4)  # the fourth lists the folder
    assert (seen["stdin"], seen["mask"], seen["sid"]) == ("", [], True)
    assert (seen["nice"], seen["oom"].strip(), seen["umask"]) == (0, "0", 0o022)
    ignored = next(line for line in seen["status"].splitlines() if line.startswith("SigIgn"))
    # Python itself ignores SIGPIPE and SIGXFSZ.
    python = {signal.SIGPIPE, signal.SIGXFSZ}
    mask = int(ignored.split()[1], 16)
    # Only those that can be asked for: 32 and 33 are the C library's own, and inherited as they are.
    found = {number for number in signal.valid_signals() if mask >> number - 1 & 1}
    assert found <= python
    assert seen["cwd"].endswith("/work")
    exit_json = log.parent / "exit.json"
    await eventually(exit_json.exists)


_LAUNCHED_LIKE_BY_RAY = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.agents.node.conftest import Node

async def main():
    os.nice(5)
    open("/proc/self/oom_score_adj", "w").write("1000")
    os.umask(0o077)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    node = Node(Path(os.environ["FOLDER"]) / "other")
    await node.agent.start()
    await node.run(sys.executable, "-c", os.environ["SCRIPT"])
    await node.agent.close()

asyncio.run(main())
"""


async def test_the_guard_is_small_and_alone(node: Node) -> None:
    await node.run(*SLEEP)
    pid = node.guard_pid()
    guard = psutil.Process(pid)
    assert guard.memory_info().rss <= 20e6
    assert os.getsid(pid) == pid
    assert sorted(Path(file.path).name for file in guard.open_files()) == [
        "guard.lock",
        *["guard.log"] * 2,
    ]
    (listener,) = guard.net_connections("all")  # for the ranks' MLflow clients
    assert (listener.status, listener.laddr.ip) == (psutil.CONN_LISTEN, "127.0.0.1")
    handle = records.read_json(str(node.folder() / records.HANDLE))
    assert handle is not None
    assert handle["start_time"] == records.start_time(pid)


async def test_secrets_reach_the_ranks_and_no_file(node: Node) -> None:
    script = ("sh", "-c", 'echo "is $HF_TOKEN"; sleep 300')
    await node.stage_ready(*script)
    await node.agent.launch(node.request(secrets={"HF_TOKEN": "hush-hush"}))
    assert await node.log("is hush-hush") == b"is hush-hush\n"
    for path in node.folder().iterdir():
        if path.is_file() and path.name != "rank-0.log":
            assert b"hush-hush" not in path.read_bytes(), path


def test_a_guard_that_begins_while_it_is_looked_for_is_no_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / records.STARTED).touch()
    answers = iter([None, 4711, 4711])
    monkeypatch.setattr(attempts, "guard_of", lambda folder: next(answers))
    standing = attempts.look(tmp_path)
    assert (standing.state, standing.orphaned) == ("running", False)
