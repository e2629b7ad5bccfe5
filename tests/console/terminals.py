"""Real terminals to see the console in: a pseudo-terminal of our own, tmux, GNU screen, and ssh between.

tmux is also the eye of these tests: it draws what a program writes, and tells what stands there.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 30.0
STILL = 0.3
"""Seconds without a change after which a screen has come to rest."""
ROOT = Path(__file__).parents[2]
FAKE = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.console.tui.fakes"]
"""The console over a fake cluster, with something in every pane."""


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of a terminal of 24-bit colour; None takes a variable away."""
    held = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TMUX", "TMUX_PANE", "STY", "NO_COLOR", "TERM_PROGRAM", "COLUMNS", "LINES")
    }
    wanted: dict[str, str | None] = {
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        **changes,
    }
    for name, value in wanted.items():
        held.pop(name, None)
        if value is not None:
            held[name] = value
    return held


class Terminal:
    """A program on a pseudo-terminal; `seen` is every byte that it wrote."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], size: tuple[int, int] = (120, 36)
    ) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            columns, rows = size
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(command[0], list(command), dict(environ))
        self.seen = b""
        self._waited = 0

    def wait_for(self, wanted: bytes, patience: float = PATIENCE) -> None:
        """Until it has written what this expression matches, from the last time on that was waited."""
        deadline = time.monotonic() + patience
        while (found := re.search(wanted, self.seen[self._waited :])) is None:
            assert time.monotonic() < deadline, (wanted, self.seen[-2000:])
            self.read(0.2)
        self._waited += found.end()

    def read(self, seconds: float) -> None:
        if select.select([self._fd], [], [], seconds)[0]:
            with suppress(OSError):
                self.seen += os.read(self._fd, 1 << 16)

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + 5
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            self.read(0.05)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
        os.close(self._fd)


@contextmanager
def terminal(
    command: Sequence[str], environ: Mapping[str, str], size: tuple[int, int] = (120, 36)
) -> Iterator[Terminal]:
    held = Terminal(command, environ, size)
    try:
        yield held
    finally:
        held.close()


class Tmux:
    """A tmux server of its own, with one window in which a program runs."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        environ: Mapping[str, str],
        size: tuple[int, int],
        *,
        term: str = "tmux-256color",
    ) -> None:
        self._base = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._environ = dict(environ)
        columns, rows = size
        # The server takes what the session's shell shall see from its own environment.
        self._run("new-session", "-d", "-x", str(columns), "-y", str(rows), "cat")
        for name, value in (
            ("default-terminal", term),
            ("status", "off"),
            ("remain-on-exit", "on"),
        ):
            self._run("set-option", "-g", name, value)
        self._run("resize-window", "-x", str(columns), "-y", str(rows))
        self._run("respawn-pane", "-k", *command)

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [*self._base, *words],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return done.stdout

    def press(self, *keys: str) -> None:
        """Keys by tmux's names: `Tab`, `Enter`, `Escape`, `C-p`, or the character."""
        self._run("send-keys", *keys)

    @property
    def shown(self) -> list[str]:
        """What stands there, line by line."""
        return self._run("capture-pane", "-p").split("\n")[:-1]

    def wait_until(
        self,
        good: Callable[[list[str]], bool],
        what: str,
        patience: float = PATIENCE,
    ) -> list[str]:
        """Until what stands there is as it should be; `what` names it where it never is."""
        deadline = time.monotonic() + patience
        while True:
            shown = self.shown
            if good(shown):
                return shown
            assert time.monotonic() < deadline, what + "\n" + "\n".join(shown)
            time.sleep(0.05)

    def press_until(self, key: str, good: Callable[[list[str]], bool], what: str) -> None:
        """Press a key again and again, until what stands there is as it should be.

        It is pressed once more when the screen has come to rest, its first line aside, where time goes
        on. On a busy machine that may be too soon, so the way round is gone more than once.
        """
        for _ in range(40):
            if self._soon(good):
                return
            self.press(key)
        self.wait_until(good, what)

    def _soon(self, good: Callable[[list[str]], bool]) -> bool:
        """Whether all is as it should be by the time that nothing changes any more."""
        rest = time.monotonic() + STILL
        seen: list[str] = []
        while time.monotonic() < rest:
            shown = self.shown
            if good(shown):
                return True
            if shown[1:] != seen:
                seen, rest = shown[1:], time.monotonic() + STILL
            time.sleep(0.02)
        return False

    def wait_for(self, text: str, patience: float = PATIENCE) -> list[str]:
        """Until a text stands there."""
        return self.wait_until(lambda shown: any(text in line for line in shown), text, patience)

    @property
    def buffer(self) -> str:
        """What was copied into tmux."""
        return self._run("show-buffer")

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self._run("kill-server")


@contextmanager
def tmux(
    folder: Path,
    command: Sequence[str],
    environ: Mapping[str, str],
    size: tuple[int, int],
    *,
    term: str = "tmux-256color",
) -> Iterator[Tmux]:
    held = Tmux(folder, command, environ, size, term=term)
    try:
        yield held
    finally:
        held.close()


def sshd_missing() -> str:
    """Why there can be no ssh server of our own; empty when there can."""
    if shutil.which("ssh") is None or sshd() is None:
        return "ssh or its server is not installed here"
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        return "sshd run by root wants /run/sshd"
    return ""


def sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextmanager
def ssh_server(folder: Path, *settings: str) -> Iterator[list[str]]:
    """An ssh server on loopback with keys of its own; gives the command that logs in to it.

    `settings` are lines of its config that go before ours.
    """
    program = sshd()
    assert program is not None
    folder.chmod(0o700)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, timeout=20)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "sshd_config"
    config.write_text(
        "".join(f"{line}\n" for line in settings)
        + f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        f"PidFile none\nAcceptEnv LANG LC_* COLORTERM NO_COLOR PYTHONPATH\n"
    )
    process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    login = ["ssh", "-tt", "-p", str(port), "-i", str(folder / "user"), "-F", "none", "-q"]
    for option in (
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={folder}/known",
        "IdentitiesOnly=yes",
        "SendEnv=LANG LC_* COLORTERM NO_COLOR PYTHONPATH",
    ):
        login += ["-o", option]
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "sshd does not start"
            time.sleep(0.05)
        yield [*login, f"{getpass.getuser()}@127.0.0.1"]
    finally:
        process.terminate()
        process.wait()
