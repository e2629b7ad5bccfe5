"""`qd` as a real process: what it imports, and how it behaves at the end of a pipe."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from console.cli.commands import every
from tests.console.fake_controller import FakeController, Reply
from tests.console.sample_views import detail, job, line, node, status

QD = [sys.executable, "-m", "console.cli.main"]
HEAVY = ["ray", "textual", "sqlmodel", "sqlalchemy", "optuna", "fastapi", "rich", "asyncio"]


def qd(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*QD, *words], capture_output=True, text=True, timeout=20, **options)


def imported(program: str, forbidden: Iterable[str]) -> list[str]:
    """Which of the forbidden modules a fresh process has after a program."""
    program += (
        f"\nimport sys, json; print(json.dumps([m for m in {list(forbidden)} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_command_imports_heavy_machinery() -> None:
    """All but submit in one fresh process: what none of them together imports, each does not."""
    places = sorted({entry.place.partition(":")[0] for entry in every().values()})
    light = [place for place in places if place != "console.cli.submit"]
    program = "import importlib\nfrom console.cli.main import main\n"
    load = "for name in {}: importlib.import_module(name)"
    assert imported(program + load.format(light), [*HEAVY, "pydantic"]) == []
    assert imported(program + load.format(["console.cli.submit"]), HEAVY) == []


def test_no_command_imports_heavy_machinery_when_it_runs(controller: FakeController) -> None:
    controller.on("GET /v1/status", status())
    controller.on("GET /v1/nodes", [node()])
    controller.on("GET /v1/jobs", {"jobs": [job()], "next": None, "total": 1})
    controller.on("GET /v1/jobs/j1", detail())
    controller.on("GET /v1/jobs/j1/wait", job(1, "SUCCEEDED"))
    controller.on("GET /v1/jobs/j1/logs", Reply.stream([line("one")]))
    controller.on("POST /v1/jobs/j1/cancel", job(1, "CANCELLED"))
    lines = [
        ["status"],
        ["jobs", "--limit", "3", "--state", "running"],
        ["job", "j1"],
        ["logs", "j1", "--rank", "0", "--tail", "3", "--since", "10m"],
        ["wait", "j1", "--timeout", "3s"],
        ["cancel", "j1"],
        ["nodes"],
        ["top", "--once", "--interval", "3"],
        ["--help"],
        ["--version"],
    ]
    program = f"from console.cli.main import main\nfor words in {lines}: assert main(words) == 0"
    assert imported(program, [*HEAVY, "pydantic", "yaml"]) == []


def test_bare_import_of_the_client_is_standard_library() -> None:
    program = "import sys; before = set(sys.modules); import console.client, console.text"
    other = imported(program, ["typer", "pydantic", "typing_extensions", "yaml"])
    assert other == []


def test_a_reader_that_leaves_is_no_error(controller: FakeController) -> None:
    controller.on("GET /v1/jobs/j1", detail())
    controller.on("GET /v1/jobs/j1/logs", Reply.stream([line("x" * 100)] * 20_000))
    with subprocess.Popen(
        [*QD, "logs", "j1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"[r0] " + b"x" * 100 + b"\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 141


def test_control_c_ends_a_follow_with_130(controller: FakeController) -> None:
    hold = threading.Event()
    controller.on("GET /v1/jobs/j1", detail())
    controller.on("GET /v1/jobs/j1/logs", Reply.stream([line("first")], hold=hold))
    # A test run in the background of a shell has SIGINT ignored, and would pass that on.
    with subprocess.Popen(
        [*QD, "logs", "j1", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == b""
    hold.set()


def test_a_terminal_gets_no_escape_of_a_log(controller: FakeController) -> None:
    controller.on("GET /v1/jobs/j1", detail(ranks=1))
    controller.on("GET /v1/jobs/j1/logs/0/raw", Reply("\x1b]0;owned\x07 \x9b2J\n".encode()))
    ours, theirs = pty.openpty()
    try:
        environ = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
        subprocess.run([*QD, "logs", "j1"], stdout=theirs, env=environ, check=True, timeout=20)
        assert os.read(ours, 1000).decode() == "␛]0;owned␇ \\x9b2J\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_an_ascii_terminal_breaks_nothing(controller: FakeController) -> None:
    controller.on("GET /v1/nodes", [node("nœud")])
    done = qd("nodes", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0
    assert "n\\u0153ud" in done.stdout


def test_the_installed_program(controller: FakeController) -> None:
    program = Path(sys.executable).parent / "qd"
    if not program.exists():
        pytest.skip("quarterdeck is not installed in this environment")
    controller.on("GET /v1/status", status())
    done = subprocess.run([program, "status"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert done.stdout.startswith("ok  quarterdeck 0.1.0\n")
