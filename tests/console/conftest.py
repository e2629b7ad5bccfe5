from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from console.cli.main import main
from console.client import Client
from tests.console.fake_controller import FakeController


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control plane's own folder, and an environment without anything of the tester's."""
    monkeypatch.setenv("QD_HOME", str(tmp_path / "qd"))
    for name in ("NO_COLOR", "VIRTUAL_ENV", "CONDA_PREFIX", "QD_DEBUG", "QD_HOST", "QD_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def controller(home: Path) -> Iterator[FakeController]:
    with FakeController(home / "qd" / "run" / "api.sock") as fake:
        yield fake


@pytest.fixture
def qd(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def run(*words: str) -> Result:
        code = main(words)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], float]]:
    """Clients that sleep no real time: their clock moves on instead."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    defaults: dict[str, Any] = dict(Client.__init__.__kwdefaults__ or {})
    monkeypatch.setattr(
        Client.__init__, "__kwdefaults__", {**defaults, "clock": lambda: now[0], "sleep": sleep}
    )
    yield lambda: now[0]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make stdout a terminal of so many columns, as far as the command can tell."""

    def make(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", "40")
        monkeypatch.setenv("TERM", "xterm")

    return make
