from __future__ import annotations

import importlib
import inspect
import json
import sys
import types
from dataclasses import replace
from typing import Any

import pytest

from console.cli.commands import COMMANDS, every
from jobs.base import errors
from jobs.base.errors import BY_CODE, Conflict, NotFound, QuarterdeckError
from tests.console.fake_controller import CUT, FakeController, Reply
from tests.console.sample_views import status


def test_help_lists_every_command_and_imports_none(
    qd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("console.cli.")]:
        if name.removeprefix("console.cli.") not in ("main", "program", "commands", "output"):
            monkeypatch.delitem(sys.modules, name)
    result = qd("--help")
    assert result.code == 0
    for name, entry in COMMANDS.items():
        assert any(
            line.split()[:1] == [name] and entry.help in line for line in result.out.splitlines()
        )
    assert not [
        n for n in sys.modules if n in {e.place.partition(":")[0] for e in COMMANDS.values()}
    ]


@pytest.mark.parametrize("name", every())
def test_the_table_says_what_the_command_says(name: str, qd: Any) -> None:
    entry = every()[name]
    module, _, function = entry.place.partition(":")
    doc = inspect.getdoc(getattr(importlib.import_module(module), function))
    assert doc is not None
    assert doc.splitlines()[0] == entry.help
    result = qd(*name.split(), "-h")
    assert result.code == 0
    assert entry.help in result.out
    assert "--json" in result.out or name in ("exec", "attach")  # whose output is a program's own


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["jbos"], "did you mean `qd jobs`?"),
        (["zzz"], "there is no command 'zzz'"),
        (["jobs", "--limt", "3"], "Did you mean --limit?"),
        (["jobs", "--limit", "many"], "many"),
        (["job"], "ID"),
        (["job", "j1", "j2"], "j2"),
        (["jobs", "--state", "runing"], "Did you mean RUNNING?"),
        (["logs", "j0.1"], "'j0.1' is not a job id"),
        (["cancel", "j1.2/r0"], "names a rank"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_wrong_usage(qd: Any, controller: FakeController, words: list[str], told: str) -> None:
    result = qd(*words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert not controller.requests


def test_wrong_usage_as_json(qd: Any) -> None:
    result = qd("jobs", "--limt", "3", "--json")
    assert (result.code, result.out) == (2, "")
    error = json.loads(result.err)["error"]
    assert (error["code"], error["hint"]) == ("invalid", "Did you mean --limit?")


@pytest.mark.parametrize("kind", BY_CODE.values())
def test_an_error_ends_with_its_exit_code(
    qd: Any, controller: FakeController, kind: type[QuarterdeckError]
) -> None:
    controller.on("GET /v1/nodes", kind("it went\x1b[2J wrong", "Do this."))
    result = qd("nodes")
    assert (result.code, result.out) == (kind.exit_code, "")
    assert result.err == "qd: it went␛[2J wrong\nDo this.\n"
    result = qd("nodes", "--json")
    assert (result.code, result.out) == (kind.exit_code, "")
    assert json.loads(result.err)["error"]["code"] == kind.code


def test_the_documented_exit_codes() -> None:
    codes = {
        "internal": 1,
        "invalid": 2,
        "not_found": 3,
        "not_allowed": 4,
        "unreachable": 5,
        "conflict": 6,
        "timed_out": 124,
        "storage_full": 6,
        "damaged": 6,
    }
    assert {code: cls.exit_code for code, cls in errors.BY_CODE.items()} == codes


def test_an_unreachable_cluster(qd: Any) -> None:
    for words in (["jobs"], ["nodes"], ["events"], ["top"], ["wait", "j1"], ["logs", "j1", "-f"]):
        result = qd(*words)
        assert (result.code, result.out) == (5, ""), words
        assert "is not running" in result.err
        assert "`qd up`" in result.err


def test_a_cut_call(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/nodes", CUT)
    assert qd("nodes").code == 5


def test_a_fault_of_ours_shows_no_traceback(
    qd: Any, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.on("GET /v1/nodes", [{"nonsense": 1}])
    result = qd("nodes")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "QD_DEBUG=1" in result.err
    monkeypatch.setenv("QD_DEBUG", "1")
    with pytest.raises(KeyError):
        qd("nodes")


def test_an_answer_that_is_not_json(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/nodes", Reply(b"<html>"))
    result = qd("nodes")
    assert result.code == 1
    assert "not JSON" in result.err


def test_interrupted(qd: Any, controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("console.client.Client.get", interrupt)
    result = qd("nodes")
    assert (result.code, result.out, result.err) == (130, "", "")


def test_version(qd: Any) -> None:
    result = qd("--version")
    assert (result.code, result.out) == (0, "qd 0.1.0\n")


def test_bare_qd_without_a_terminal_shows_help(qd: Any) -> None:
    result = qd()
    assert result.code == 0
    assert "Usage: qd" in result.out


def test_bare_qd_on_a_terminal_opens_the_console(
    qd: Any, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(80)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    opened: list[dict[str, Any]] = []
    app = types.ModuleType("console.tui.app")

    def run(**options: Any) -> int:
        opened.append(options)
        return 0

    app.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "console.tui.app", app)
    assert qd().code == 0
    assert qd("--read-only", "--ascii").code == 0
    assert qd("--screen", "jobs").code == 0
    assert qd("--ascii", "j12").code == 0
    assert opened == [
        {"screen": None, "read_only": False, "ascii_only": False},
        {"screen": None, "read_only": True, "ascii_only": True},
        {"screen": "jobs", "read_only": False, "ascii_only": False},
        {"screen": "j12", "read_only": False, "ascii_only": True},
    ]
    monkeypatch.setenv("TERM", "linux")  # whose font has no braille
    assert qd("--read-only").code == 0
    assert opened[-1] == {"screen": None, "read_only": True, "ascii_only": True}


def test_json_documents_are_ascii_and_colour_is_for_terminals(
    qd: Any, controller: FakeController, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.on("GET /v1/status", status(version="ü\x9b"))
    result = qd("status", "--json")
    assert result.out.isascii()
    assert json.loads(result.out)["version"] == "ü\x9b"
    assert "\x1b" not in qd("status").out
    terminal(80)
    assert "\x1b[32mok" in qd("status").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in qd("status").out


def test_completion_of_commands_and_ids(
    qd: Any, controller: FakeController, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_QD_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        with pytest.raises(SystemExit):
            qd()
        words: list[str] = capsys.readouterr().out.split()
        return words

    page: dict[str, Any] = {"jobs": [], "next": None, "total": 0}
    from tests.console.sample_views import job

    page["jobs"] = [job(12), job(11), job(3)]
    controller.on("GET /v1/jobs", page)
    assert complete("qd su") == ["submit"]
    assert complete("qd job j1") == ["j12", "j11"]
    controller.on("GET /v1/jobs", NotFound("gone"))
    assert complete("qd job j1") == []


def test_conflict_of_a_retry(qd: Any, controller: FakeController) -> None:
    controller.on("POST /v1/jobs/j1/retry", Conflict("j1 is RUNNING"))
    assert qd("retry", "j1").code == 6


def test_a_noun_has_verbs(qd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`qd nodes` alone does what it did; `qd nodes drain` is another command, and imported only when used."""
    below = {"drain": COMMANDS["drain"]}
    monkeypatch.setitem(COMMANDS, "nodes", replace(COMMANDS["nodes"], verbs=below))
    told = qd("nodes", "-h")
    assert told.code == 0 and "drain" in told.out and COMMANDS["drain"].help in told.out
    assert "--reason" in qd("nodes", "drain", "-h").out
    wrong = qd("nodes", "drian", "n1")
    assert wrong.code == 2 and "did you mean `qd nodes drain`?" in wrong.err
