"""Which cluster is meant, and how the config file says it."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from console.remote import configfile, contexts
from console.remote.target import Target, parse
from jobs.base.errors import InvalidInput

QUICK = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("head", Target("head")),
        ("me@head", Target("head", "me")),
        ("me@head:2222", Target("head", "me", 2222)),
        ("ssh://me@head:22/", Target("head", "me", 22)),
        ("10.0.0.1:22", Target("10.0.0.1", None, 22)),
        ("me@[fe80::1%eth0]:22", Target("fe80::1%eth0", "me", 22)),
        ("fe80::1", Target("fe80::1")),
        ("m.e@corp.example@head", Target("head", "m.e@corp.example")),
    ],
)
def test_a_host_is_written_as_for_ssh(text: str, wanted: Target) -> None:
    assert parse(text) == wanted
    assert parse(wanted.address) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@head",
        "me@",
        "-oProxyCommand=sh",
        "me@-oX",
        "-x@head",
        "head:0",
        "head:99999",
        "head:x",
        "a b",
        "me@head;ls",
        "$(ls)",
        "head\n",
        "head:२२",
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


@pytest.mark.parametrize("path", ["api.sock", "", "/a\nb", "/a\0b"])
def test_a_socket_is_an_absolute_path(path: str) -> None:
    with pytest.raises(InvalidInput, match="absolute path"):
        parse("head", socket=path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "config.toml"
    path.parent.mkdir()
    return path


def chosen(config: Path, **environ: str) -> Target | None:
    return contexts.chosen({"QD_HOME": str(config.parent.parent), **environ})


def test_nothing_said_is_this_machine(config: Path) -> None:
    assert chosen(config) is None
    config.write_text("[console]\ntheme = 'nord'\n")
    assert chosen(config) is None


def test_the_environment_is_stronger_than_the_file(config: Path) -> None:
    config.write_text('context = "lab"\n[contexts.lab]\nhost = "me@head"\nsocket = "/s"\n')
    lab = Target("head", "me", None, "/s", "lab")
    assert chosen(config) == lab
    assert chosen(config, QD_CONTEXT="lab") == lab
    assert chosen(config, QD_CONTEXT="local") is None
    assert chosen(config, QD_HOST="other:22") == Target("other", None, 22)
    with pytest.raises(InvalidInput, match="both QD_HOST"):
        chosen(config, QD_HOST="other", QD_CONTEXT="lab")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('context = "lob"\n[contexts.lab]\nhost = "head"', "no context 'lob'.*"),
        ('context = "lab"\n[contexts.lab]\nhosts = "head"', "has no host"),
        ('context = "lab"\n[contexts.lab]\nhost = "head"\nport = 3', "'port' is not known"),
        ('context = "lab"\n[contexts.lab]\nhost = "a b"', r"\[contexts.lab\]: 'a b' is not a host"),
        ('context = "lab"\n[contexts.lab]\nhost = "h"\nsocket = 3', "socket is not a path"),
        ("context = 3", "context is not a name"),
        ('context = "lab"\ncontexts = 3', "not a table"),
        ('context = "lab', "config.toml: "),
    ],
)
def test_a_file_that_is_wrong_is_named(config: Path, text: str, told: str) -> None:
    config.write_text(text)
    with pytest.raises(InvalidInput, match=told):
        chosen(config)


def test_the_nearest_name_is_offered(config: Path) -> None:
    config.write_text('[contexts.lab]\nhost = "head"')
    with pytest.raises(InvalidInput) as caught:
        chosen(config, QD_CONTEXT="lub")
    assert caught.value.hint == "Did you mean lab?"


# The file.


HELD = """\
# Mine.

[console]
theme = "nord"  # dark

# The lab.
[contexts.lab]
host = "old"
# Beyond the lab.

[console.keys]
"job.cancel" = "ctrl+k"
"""


def test_all_other_lines_stay(config: Path) -> None:
    config.write_text(HELD)
    configfile.add(config, "lab", parse("me@head", socket="/s"))
    configfile.use(config, "lab")
    text = config.read_text()
    assert tomllib.loads(text) == tomllib.loads(HELD) | {
        "context": "lab",
        "contexts": {"lab": {"host": "me@head", "socket": "/s"}},
    }
    for line in HELD.splitlines():
        assert line in text.splitlines() or line in ('host = "old"',)
    assert text.index("# Mine.") < text.index("context =") < text.index("[console]")
    configfile.use(config, "other-name-in-no-table")
    assert tomllib.loads(config.read_text())["context"] == "other-name-in-no-table"
    configfile.use(config, "lab")
    configfile.remove(config, "lab")
    left = tomllib.loads(HELD)
    del left["contexts"]
    assert tomllib.loads(config.read_text()) == left
    assert "# dark" in config.read_text()


def test_a_new_file_is_made_whole_and_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "config.toml"
    configfile.add(path, "lab", parse("head"))
    assert path.read_text() == '[contexts.lab]\nhost = "head"\n'
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["config.toml"]


def test_a_link_stays_a_link_and_modes_stay(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("")
    real.chmod(0o640)
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    configfile.add(link, "lab", parse("head"))
    assert link.is_symlink()
    assert "lab" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "text",
    [
        'contexts = {lab = {host = "old"}}\n',
        'contexts.lab.host = "old"\n',
        '[contexts]\nlab.host = "old"\n',
        "x = '''\n[contexts.lab]\nhost = 'old'\n'''\n[contexts.lab]\nhost = 'old'\n",
    ],
)
def test_what_cannot_be_changed_safely_is_left_alone(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(InvalidInput, match="cannot be changed safely"):
        configfile.add(config, "lab", parse("head"))
    assert config.read_text() == text


def test_a_broken_file_is_left_alone(config: Path) -> None:
    config.write_text("x = [1,")
    with pytest.raises(InvalidInput, match=r"config\.toml"):
        configfile.use(config, "lab")
    assert config.read_text() == "x = [1,"


_LINES = st.lists(
    st.sampled_from(
        [
            "# a",
            "",
            'context = "a"',
            "[console]",
            'theme = "x"',
            "[contexts.a]",
            'host = "h"',
            "[contexts.b]",
            'host = "g"',
            "  [contexts.'c']  # c",
            'socket = "/s"',
            "[[x]]",
            "y = 1",
        ]
    ),
    max_size=12,
)
_STEPS = st.lists(st.tuples(st.sampled_from(["add", "use", "remove"]), st.sampled_from("abc")))


@QUICK
@given(_LINES, _STEPS)
@example(["[contexts.c]", "# a", 'host = "old"'], [("add", "c")])
def test_a_change_says_what_was_wanted_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], steps: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("c") / "config.toml"
    path.write_text("\n".join(lines))
    try:
        model: dict[str, Any] = tomllib.loads(path.read_text())
    except ValueError:
        return
    for step, name in steps:
        held = json.loads(json.dumps(model))
        try:
            if step == "add":
                configfile.add(path, name, parse("new"))
                held.setdefault("contexts", {})[name] = {"host": "new"}
            elif step == "use":
                configfile.use(path, name)
                held["context"] = name
            elif name in held.get("contexts", {}):
                configfile.remove(path, name)
                del held["contexts"][name]
                held = {k: v for k, v in held.items() if v != {} or k != "contexts"}
                if held.get("context") == name:
                    del held["context"]
        except InvalidInput:
            continue
        model = held
        assert tomllib.loads(path.read_text()) == model
        comments = [line for line in path.read_text().splitlines() if line == "# a"]
        assert len(comments) == lines.count("# a")


# The command.


def test_contexts_from_the_command_line(qd: Any, home: Path) -> None:
    assert json.loads(qd("context", "--json").out)[0]["current"] is True
    assert qd("context", "add", "lab", "me@head").code == 0
    assert qd("context", "add", "far", "far:22", "--socket", "/s", "--use").code == 0
    rows = {row["name"]: row for row in json.loads(qd("context", "list", "--json").out)}
    assert [name for name, row in rows.items() if row["current"]] == ["far"]
    assert rows["far"]["host"] == "far:22"
    assert json.loads(qd("context", "show", "--json").out)["socket"] == "/s"
    assert json.loads(qd("--context", "lab", "context", "show", "--json").out)["name"] == "lab"
    shown = qd("context").out
    assert "this machine" in shown
    assert [line.split()[:2] for line in shown.splitlines() if "*" in line] == [["*", "far"]]
    assert "this machine's cluster" in qd("context", "use", "-").err
    assert json.loads(qd("context", "show", "--json").out)["name"] == "local"
    assert qd("context", "remove", "far").code == 0
    assert qd("context", "use", "far").code == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["frob"], "no 'frob'"),
        (["add"], "which one"),
        (["add", "lab"], "where is it"),
        (["add", "local", "head"], "cannot name"),
        (["add", "a.b", "head"], "cannot name"),
        (["add", "-x", "head"], "-x"),
        (["add", "lab", "a b"], "not a host"),
        (["list", "lab"], "too many words"),
        (["use", "lab", "head"], "too many words"),
        (["use", "lab", "--socket", "/s"], "apply only to"),
    ],
)
def test_wrong_usage_changes_nothing(qd: Any, home: Path, words: list[str], told: str) -> None:
    result = qd("context", *words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert not (home / "qd" / "config").exists()


@pytest.mark.parametrize("name", ["up", "down", "join", "leave"])
def test_what_acts_here_refuses_another_host(qd: Any, name: str) -> None:
    for words in ([name, "--host", "me@head"], ["--host=me@head", name]):
        result = qd(*words)
        assert result.code == 2
        assert f"`qd {name}` acts on the machine where it is run" in result.err
        assert f"ssh me@head qd {name}" in result.err


def test_the_words_after_a_command_are_stronger(qd: Any, controller: Any) -> None:
    controller.on("GET /v1/nodes", [])
    assert qd("--host", "nowhere.invalid", "nodes", "--context", "local", "--json").code == 0
    assert qd("nodes", "--host", "head", "--context", "local").code == 2
    assert qd("nodes", "--json").code == 0, "nothing stays chosen"


@pytest.mark.parametrize(
    ("words", "opened"),
    [
        (["--host", "me@head"], {"host": "me@head"}),
        (["--context=lab", "--read-only"], {"context": "lab", "read_only": True}),
        (["--host", "j1", "j12"], {"host": "j1", "screen": "j12"}),
        (["s3", "--context", "lab"], {"context": "lab", "screen": "s3"}),
    ],
)
def test_the_console_is_opened_on_another_host(
    monkeypatch: pytest.MonkeyPatch, home: Path, words: list[str], opened: dict[str, Any]
) -> None:
    from console.cli import main as entry

    seen: list[dict[str, Any]] = []

    def note(**options: Any) -> int:
        place = {name: os.environ.get(f"QD_{name.upper()}") for name in ("host", "context")}
        seen.append({k: v for k, v in (options | place).items() if v})
        return 0

    monkeypatch.setattr(entry, "open_console", note)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with contexts.unchanged():
        assert entry.main(words) == 0
    assert seen == [opened]


def test_context_names_are_completed(home: Path, qd: Any) -> None:
    from console.cli.where import complete_context

    qd("context", "add", "lab", "head")
    assert complete_context("l") == ["local", "lab"]
    assert complete_context("la") == ["lab"]
