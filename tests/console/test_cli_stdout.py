"""The standard output of a real process: closed, full, broken and slow."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.console.fake_controller import FakeController, Reply
from tests.console.sample_views import detail, job, line, node, status

QD = [sys.executable, "-m", "console.cli.main"]
LINES = 20_000  # far more than a pipe holds

COMMANDS = [
    ("status",), ("nodes",), ("jobs",), ("job", "j1"), ("logs", "j1"), ("logs", "j1", "-f"),
    ("logs", "j1", "--json"), ("logs", "j1", "--raw", "--rank", "0"), ("wait", "j1"), ("top", "--once"),
    ("jobs", "--json"), ("--version",), ("--help",), ("logs", "-h"),
]  # fmt: skip


@pytest.fixture
def cluster(controller: FakeController) -> FakeController:
    controller.on("GET /v1/status", status())
    controller.on("GET /v1/nodes", [node()])
    controller.on("GET /v1/jobs", {"jobs": [job()], "next": None, "total": 1})
    controller.on("GET /v1/jobs/j1", detail())
    controller.on("GET /v1/jobs/j1/wait", job(1, "SUCCEEDED"))
    text = "".join(f"line {number}\n" for number in range(LINES)).encode()
    raw = Reply(body=text, headers={"Content-Type": "application/octet-stream"})
    controller.on("GET /v1/jobs/j1/logs/0/raw", raw)
    controller.on("GET /v1/jobs/j1/logs/1/raw", raw)
    stream = Reply.stream([line(f"line {number}", offset=number) for number in range(LINES)])
    controller.on("GET /v1/jobs/j1/logs", stream)
    return controller


def ended(words: tuple[str, ...], shell: str) -> subprocess.CompletedProcess[str]:
    """Run `qd WORDS` with what a shell makes of its streams."""
    script = f'"$@" {shell}'
    return subprocess.run(
        ["bash", "-c", script, "bash", *QD, *words], capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_disk_and_a_closed_output_are_told_as_such(
    cluster: FakeController, words: tuple[str, ...]
) -> None:
    full = ended(words, "> /dev/full")
    assert "cannot write to standard output: No space left on device" in full.stderr
    assert full.returncode == 1
    closed = ended(words, ">&-")
    assert "cannot write to standard output: it is closed" in closed.stderr
    assert closed.returncode == 1
    for done in (full, closed):
        assert "connection" not in done.stderr
        assert "fault of its own" not in done.stderr
        assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_that_has_left_ends_a_command_without_a_word(
    cluster: FakeController, words: tuple[str, ...]
) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*QD, *words], stdout=write, stderr=subprocess.PIPE, text=True, timeout=30
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("flags", [(), ("-f",), ("--raw",), ("--json",)])
def test_head_of_a_log_that_is_larger_than_a_pipe(
    cluster: FakeController, flags: tuple[str, ...]
) -> None:
    done = ended(("logs", "j1", "--rank", "0", *flags), '| head -1; exit "${PIPESTATUS[0]}"')
    assert done.stdout.count("\n") == 1
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_stdin_and_stderr_are_no_fault(cluster: FakeController) -> None:
    done = ended(("nodes", "--json"), "<&- 2>&-")
    assert (done.returncode, done.stdout[:1]) == (0, "[")
    missing = ended(("job", "j9", "--json"), "2>&-")
    assert (missing.returncode, missing.stdout) == (3, ""), "an error is not told on stdout instead"


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_all(cluster: FakeController) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETFL, fcntl.fcntl(write, fcntl.F_GETFL) | os.O_NONBLOCK)
    process = subprocess.Popen([*QD, "logs", "j1"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    got = bytearray()

    def reading() -> None:
        while data := os.read(read, 4096):
            got.extend(data)
            if len(got) < 40_000:
                time.sleep(0.01)  # slower than it writes, until the pipe has been full

    reader = threading.Thread(target=reading)
    reader.start()
    _, said = process.communicate(timeout=30)
    reader.join(timeout=30)
    os.close(read)
    assert (process.returncode, said) == (0, b"")
    assert got.count(b"\n") == LINES


def test_a_pager_that_is_left(cluster: FakeController, tmp_path: Path) -> None:
    done = ended(("logs", "j1"), '| grep -m1 "line 7"; exit "${PIPESTATUS[0]}"')
    assert done.stdout.endswith("line 7\n")
    assert (done.returncode, done.stderr) == (141, "")
