"""Figures of the console as a terminal sees it: the real `qd` on a pseudo-terminal, over a stand-in for
a controller with 1,000 GPUs at 1 Hz and 10,000 jobs.

Nothing inside the console is touched: bytes are counted where a terminal reads them, and CPU and memory
are what the kernel says of the process.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.report import Row

COLUMNS, ROWS = 120, 36
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 30.0
LOG_BYTES = 40_000_000
"""Of the stand-in's log, which the console names when it has searched all of it in vain."""


class Terminal:
    """`qd` on a pseudo-terminal of 120 by 36 cells."""

    def __init__(self, home: Path, *words: str) -> None:
        self.started = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            environ = {
                **os.environ,
                "QD_HOME": str(home),
                "TERM": "xterm-256color",
                "COLORTERM": "truecolor",
            }
            environ.pop("NO_COLOR", None)
            command = [sys.executable, "-m", "console.cli.main", *words]
            os.execve(sys.executable, command, environ)
        self.read = 0

    def wait_for(self, text: str, patience: float = PATIENCE) -> float:
        """Seconds until `text` was written by the console."""
        wanted = text.encode()
        begin = time.perf_counter()
        held = b""
        while time.perf_counter() - begin < patience:
            held = held[-len(wanted) :] + self._some(0.5)
            if wanted in held:
                return time.perf_counter() - begin
        raise RuntimeError(f"the console did not write {text!r} within {patience} s")

    def _some(self, seconds: float) -> bytes:
        if not select.select([self._fd], [], [], seconds)[0]:
            return b""
        data = os.read(self._fd, 1 << 16)
        self.read += len(data)
        return data

    def drain(self, seconds: float) -> None:
        """Read what is written within some seconds."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._some(left)

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    @property
    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def memory(self) -> int:
        """Resident bytes now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextmanager
def standin() -> Iterator[Path]:
    """A stand-in controller; gives its QD_HOME."""
    with tempfile.TemporaryDirectory(prefix="qd-bench-") as folder:
        home = Path(folder)
        command = [sys.executable, "-m", "tests.bench.standin", str(home / "run" / "api.sock")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield home
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def console(home: Path, *words: str) -> Iterator[Terminal]:
    terminal = Terminal(home, *words)
    try:
        yield terminal
    finally:
        terminal.close()


def first_paint(home: Path) -> float:
    """Seconds from starting the process to the first written cell of the Cluster screen."""
    with console(home, "--screen", "cluster") as terminal:
        return terminal.wait_for("Cluster")


def key_to_paint(terminal: Terminal, presses: int) -> list[float]:
    """Seconds from a key that moves the cursor to the bytes that show the cursor elsewhere."""
    out = []
    for number in range(presses):
        # Away from the second's own repaint in no fixed way: some keys fall into it, as a person's do.
        terminal.drain(0.137)
        terminal.press("j" if number % 20 < 10 else "k")
        out.append(terminal.wait_for("▸"))
    return out


def measure(rounds: int) -> list[Row]:
    """Rows for the table. `rounds` scales how long is measured, in tens of seconds."""
    seconds = 10.0 * max(1, min(rounds, 3))
    with standin() as home:
        paint = statistics.median(first_paint(home) for _ in range(max(3, min(rounds, 5))))
        with console(home, "--screen", "cluster") as terminal:
            terminal.wait_for("n001")
            terminal.drain(3.0)
            before, read = terminal.cpu, terminal.read
            terminal.drain(seconds)
            cpu = 100 * (terminal.cpu - before) / seconds
            rate = (terminal.read - read) / seconds / 1000
            keys = sorted(key_to_paint(terminal, int(10 * seconds)))
            p99 = keys[int(0.99 * (len(keys) - 1))]
        with console(home, "j10000") as terminal:
            terminal.wait_for("0999999")
            # Search all of it, then scroll from its beginning: as many lines pass as ever will.
            terminal.press("/nowhere-to-be-found\r")
            terminal.wait_for(str(LOG_BYTES))
            for _ in range(100):
                terminal.press("g")
                terminal.drain(0.02)
            terminal.drain(2.0)
            memory = terminal.memory / 2**20
    state = "1,000 GPUs at 1 Hz, 10,000 jobs"
    return [
        _row("console: first paint", paint, "<= 0.5 s", 0.5, "s"),
        _row(f"console: key to paint, p99; {state}", p99, "<= 0.05 s", 0.05, "s"),
        _row(f"console: CPU, % of a core; {state}", cpu, "<= 5 %", 5.0, "%"),
        _row(f"console: kB/s to the terminal; {state}", rate, "<= 20 kB/s", 20.0, "kB/s"),
        _row("console: MiB with 1,000,000 log lines searched", memory, "<= 150 MiB", 150.0, "MiB"),
    ]


def _row(work: str, ours: float, reach: str, limit: float, unit: str) -> Row:
    return Row(work, ours, "–", None, None, reach, unit=unit, limit=limit)


if __name__ == "__main__":
    from tests.bench.report import table

    print(table(measure(1)))
