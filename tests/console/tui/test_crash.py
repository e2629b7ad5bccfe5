"""A fault of the console's own: words, a file, exit code 1; and terminals that it does not open on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from console.cli.main import main
from console.tui.app import QuarterdeckApp
from console.tui.crash import NAME, last_words
from jobs.base.places import places
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import settle


async def test_a_fault_is_told_in_words_and_its_traceback_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QD_HOME", str(tmp_path))
    app = QuarterdeckApp(FakeSource(), clock=FakeClock(), start="j412")
    shown: list[str] = []
    monkeypatch.setattr(app, "_print_error_renderables", lambda: shown.extend(told(app)))

    def broken() -> None:
        max([])

    with pytest.raises(ValueError, match="empty"):
        async with app.run_test(size=(120, 36)) as pilot:
            await settle(pilot)
            app.call_later(broken)
            await pilot.pause()
    shown = shown or told(app)
    log = places().state / NAME
    text = "\n".join(shown)
    assert "ValueError" in text and str(log) in text and "Traceback" not in text
    assert "--screen cluster" in text and len(text.splitlines()) < 10
    assert "in broken" in log.read_text() and "j412" in log.read_text()
    assert app.return_code == 1


def told(app: QuarterdeckApp) -> list[str]:
    return [str(each) for each in app._exit_renderables]


def test_the_words_come_also_where_no_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    text = str(last_words(ValueError("\x1b[2Jno"), tmp_path / "state", place="cluster"))
    assert "could not be written" in text and "\x1b" not in text


@pytest.mark.parametrize("terminal", ["dumb", "unknown"])
@pytest.mark.parametrize("words", [[], ["--read-only"], ["--screen", "jobs"]])
def test_a_terminal_that_cannot_be_drawn_on_is_refused(
    terminal: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"TERM={terminal}" in told and "qd status" in told
