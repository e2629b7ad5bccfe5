"""The console through the gateway, in real terminals."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import Callable
from typing import Any

from tests.console.gateway.conftest import Served, until
from tests.console.terminals import Terminal, environment


async def in_terminal(
    served: Served,
    words: list[str],
    use: Callable[[Terminal], Any],
    *,
    options: tuple[str, ...] = (),
    **environ: str | None,
) -> int:
    """Use `ssh -tt` on a terminal of our own; gives its exit code."""

    def run() -> int:
        command = served.command("mira", *words, options=("-tt", *options))
        held = Terminal(command, environment(**environ))
        try:
            use(held)
            while (ended := os.waitpid(held.pid, os.WNOHANG))[0] == 0:
                held.read(0.1)
            return os.waitstatus_to_exitcode(ended[1])
        finally:
            os.close(held._fd)

    return await asyncio.wait_for(asyncio.to_thread(run), 60)


async def test_the_console_opens_takes_another_size_and_ends(served: Served) -> None:
    job = await served.plane.submit("echo hello; sleep 60")
    await served.plane.wait(job, "RUNNING")

    def use(held: Terminal) -> None:
        held.wait_for(job.encode())
        held._waited = 0  # in either order
        held.wait_for(rb"\x1b\[36;")  # 36 rows, as here
        assert not re.search(
            rb"[34]8;2;\d", held.seen
        )  # no client said that it has so many colours
        before = len(held.seen)
        fcntl.ioctl(held._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
        os.kill(held.pid, signal.SIGWINCH)
        held.wait_for(rb"\x1b\[50;")
        assert b"\x1b[50;" not in held.seen[:before]
        held.press("q")

    assert await in_terminal(served, [], use) == 0
    await until(lambda: served.programs == [])
    (began,) = [line for line in served.journal if line["what"] == "console"]
    assert (began["user"], began["terminal"]) == ("mira", True)


async def test_colours_come_with_the_client(served: Served) -> None:
    def use(held: Terminal) -> None:
        held.wait_for(rb"[34]8;2;\d")
        held.press("q")

    send = ("-o", "SendEnv=COLORTERM")
    assert await in_terminal(served, [], use, options=send) == 0


async def test_a_terminal_that_cannot_draw_gets_words(served: Served) -> None:
    def use(held: Terminal) -> None:
        held.wait_for(rb"TERM=dumb")

    assert await in_terminal(served, [], use, TERM="dumb") == 2


async def test_ctrl_c_interrupts_a_command_on_a_terminal(served: Served) -> None:
    job = await served.plane.submit("echo hello; sleep 60")

    def use(held: Terminal) -> None:
        held.wait_for(b"hello")
        held.press("\x03")

    assert await in_terminal(served, ["logs", "-f", job], use) == 130


async def test_a_terminal_that_is_closed_ends_the_console(served: Served) -> None:
    def use(held: Terminal) -> None:
        held.wait_for(b"Cluster")
        os.kill(held.pid, signal.SIGKILL)

    await in_terminal(served, [], use)
    await until(lambda: served.programs == [])


async def test_a_shell_beside_a_rank_is_left_and_found_again(served: Served) -> None:
    assert (await served.ssh("mira", "submit -- sleep 60")).code == 0
    await served.plane.wait("j1", "RUNNING")

    def leave(held: Terminal) -> None:
        held.wait_for(b"a new shell")
        held.press("colour=blue; stty size; echo $((40+2))-there\r")
        held.wait_for(b"42-there")
        assert b"36 120" in held.seen
        held.press("\x1d")
        held.wait_for(b"it runs on")

    def come_back(held: Terminal) -> None:
        held.wait_for(b"that you left")
        held.press("echo it-is-$colour; exit 6\r")
        held.wait_for(b"it-is-blue")

    assert await in_terminal(served, ["attach", "j1"], leave) == 0
    assert await in_terminal(served, ["attach", "j1"], come_back) == 6
