"""The console in real terminals: of every size and colour, in tmux, in GNU screen, through ssh."""

from __future__ import annotations

import base64
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.console import terminals
from tests.console.terminals import FAKE, Tmux, environment, terminal, tmux

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed here")

SIZES = [(80, 24), (120, 36), (200, 50)]
WAYS: dict[str, tuple[dict[str, str | None], list[str]]] = {
    "truecolor": ({}, []),
    "256": ({"COLORTERM": None}, []),
    "nocolor": ({"NO_COLOR": "1"}, []),
    "ascii": ({}, ["--ascii"]),
}

PANES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "1": (("1",), ("Heat", "n01", "GPU util", "Queue", "Events")),
    "2": (("2",), ("pretrain-7b",)),
    "7": (("7",), ("7 alerts", "firing")),
    "8": (("8",), ("Wrong now", "Events")),
    "j412": (
        (":", "j", "4", "1", "2", "Enter"),
        ("Ranks", "Logs", "Metrics", "GPU util", "Attempts"),
    ),
}
"""Screen -> the keys that lead there, and how its panes are headed, in the order of `tab`."""


def walk(seen: Tmux, size: tuple[int, int]) -> None:
    """Go to every pane by keys alone, and look whether all that belongs to a screen is there."""
    for keys, heads in PANES.values():
        seen.press(*keys)
        for head in heads:

            def whole(shown: list[str], head: str = head) -> bool:
                return (
                    len(shown) == size[1]
                    and ("live" in shown[0] or "delayed" in shown[0])
                    and any(head in line for line in shown[1:])
                    and "? help" in shown[-1]
                )

            seen.press_until("Tab", whole, head)
        seen.press("1")
    seen.press_until("Tab", lambda shown: "drain" in shown[-1], "the heat map has focus")
    seen.press("D")
    seen.wait_for("Drain n01?")
    seen.press("n", "?")
    seen.wait_for("Mark it; actions work")
    seen.press("q")
    seen.wait_until(lambda shown: not any("Mark it" in line for line in shown), "help is closed")
    seen.press("C-p")
    seen.wait_for("Find a command")
    # GNU screen keeps an escape to itself until it knows that no other key begins with it.
    seen.press_until(
        "Escape", lambda shown: not any("Find a" in line for line in shown), "it is closed"
    )


@pytest.mark.parametrize(
    ("size", "way"),
    [
        pytest.param(size, way, marks=() if (size, way) in QUICK else pytest.mark.slow)
        for QUICK in [{((80, 24), "ascii"), ((120, 36), "256")}]
        for size in SIZES
        for way in WAYS
    ],
    ids=str,
)
def test_every_pane_is_reached_by_keys(size: tuple[int, int], way: str, tmp_path: Path) -> None:
    changes, options = WAYS[way]
    environ = environment(**changes)
    with tmux(tmp_path, [*FAKE, *options], environ, size) as seen:
        walk(seen, size)
        if way == "ascii":
            seen.press("1")
            shown = "".join(seen.wait_for("Heat"))
            assert {char for char in shown if not char.isascii()} <= set("评估长上下文")


@pytest.mark.parametrize(
    ("changes", "wanted", "never"),
    [
        ({}, b"\x1b[38;2;", b"\x1b[38;5;"),
        ({"COLORTERM": None}, b"38;5;", b"38;2;"),
        ({"COLORTERM": None, "TERM": "xterm"}, b"\x1b[", b"38;2;"),
        ({"NO_COLOR": "1"}, b"\x1b[1;39;49m", b"\x1b[38;"),
    ],
    ids=["truecolor", "256", "16", "none"],
)
def test_colours_are_those_of_the_terminal(
    changes: dict[str, str | None], wanted: bytes, never: bytes
) -> None:
    with terminal(FAKE, environment(**changes)) as seen:
        seen.wait_for(b"n01")
        for _ in range(5):
            seen.read(0.1)
        assert wanted in seen.seen
        assert never not in seen.seen


LINE = rb"\x1b\]52;c?;" + re.escape(base64.b64encode(b"step ")[:6])
"""What asks a terminal to take a line of a log, as an expression."""


def test_copy_asks_the_terminal() -> None:
    with terminal([*FAKE, "j412"], environment()) as seen:
        seen.wait_for(b"pretrain-7b")
        seen.press("y")
        seen.wait_for(LINE)


def test_copy_in_tmux_reaches_its_buffer_and_the_terminal_round_it(tmp_path: Path) -> None:
    socket = str(tmp_path / "tmux")
    with tmux(tmp_path, [*FAKE, "j412"], environment(), (120, 36)) as inner:
        inner.wait_for("pretrain-7b")
        attach = ["tmux", "-S", socket, "-f", "/dev/null", "attach"]
        with terminal(attach, environment()) as outer:
            outer.wait_for(b"pretrain-7b")
            outer.press("y")
            outer.wait_for(LINE)
        assert inner.buffer.startswith("step ")


@pytest.mark.skipif(shutil.which("screen") is None, reason="GNU screen is not installed here")
def test_in_gnu_screen_all_works_and_copy_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    settings = tmp_path / "screenrc"
    settings.write_text("autodetach off\n")  # it ends with the terminal that it runs in
    environ = environment(SCREENDIR=str(folder), SCREENRC=str(settings))
    command = ["env", "-u", "TMUX", "screen", "-U", "-T", "screen-256color", *FAKE]
    with tmux(tmp_path, command, environ, (120, 36)) as seen:
        walk(seen, (120, 36))
        seen.press("1", "y")
        seen.wait_for("no clipboard here")
        seen.press("q")  # the page; to the console an escape just before a key is that key with alt


@pytest.mark.skipif(bool(terminals.sshd_missing()), reason=terminals.sshd_missing())
def test_through_ssh_panes_and_copy_work(tmp_path: Path) -> None:
    with terminals.ssh_server(tmp_path) as login:
        command = [*login, shlex.join([*FAKE, "cluster"])]
        with tmux(tmp_path, command, environment(), (80, 24)) as seen:
            walk(seen, (80, 24))
        with terminal([*login, shlex.join([*FAKE, "j412"])], environment()) as plain:
            plain.wait_for(b"pretrain-7b")
            plain.press("y")
            plain.wait_for(LINE)
        far = ["tmux", "-S", str(tmp_path / "far"), "-f", "/dev/null"]
        begin = shlex.join([*far, "new-session", shlex.join([*FAKE, "j412"])])
        try:
            with terminal([*login, begin], environment()) as through:
                through.wait_for(b"pretrain-7b")
                through.press("y")
                through.wait_for(LINE)
        finally:
            subprocess.run([*far, "kill-server"], check=False, capture_output=True, timeout=20)
