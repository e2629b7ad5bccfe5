"""Paired measurements and the table they go into."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One line of docs/benchmarks.md. Times in seconds; `ratio` is ours / the peer's, pair by pair.

    `limit` is a reach that needs no peer, in `unit`s.
    """

    work: str
    ours: float
    peer_name: str
    peer: float | None
    ratio: float | None
    reach: str

    unit: str = "s"
    limit: float | None = None

    def missed(self, slack: float = 1.0) -> bool:
        """Whether the figure is beyond `slack` times its reach ("<= 0.125", "<= 1 and ..."; "report"
        has none), or its limit."""
        if self.limit is not None and self.ours > slack * self.limit:
            return True
        return (
            self.ratio is not None
            and self.reach.startswith("<= ")
            and self.ratio > slack * float(self.reach.split()[1])
        )


def timed(argv: Sequence[str], env: dict[str, str], cwd: Path) -> float:
    """Wall seconds of one run, as a shell user sees it. Raises when the command fails."""
    started = time.perf_counter()
    subprocess.run(argv, env=env, cwd=cwd, check=True, capture_output=True, timeout=120)
    return time.perf_counter() - started


def paired(
    work: str,
    ours: Callable[[], float],
    peer_name: str,
    peer: Callable[[], float],
    reach: str,
    rounds: int,
) -> Row:
    """Run both in turn, after one warm-up each; medians, and the median of the pairs' ratios."""
    ours(), peer()
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return Row(
        work,
        statistics.median(pair[0] for pair in pairs),
        peer_name,
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
        reach,
    )


def alone(work: str, ours: Callable[[], float], rounds: int) -> Row:
    return Row(work, statistics.median(ours() for _ in range(rounds)), "–", None, None, "report")


def limited(
    work: str, ours: Callable[[], float], reach: str, limit: float, rounds: int, unit: str = "s"
) -> Row:
    """A figure without a peer, and what it may be at most."""
    found = statistics.median(ours() for _ in range(rounds))
    return Row(work, found, "–", None, None, f"{reach} {unit}", unit, limit)


def machine() -> str:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, Ray {version('ray')}"
    )


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| work | Quarterdeck | peer | its time | ratio | reach |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        peer = f"{row.peer:.3f} {row.unit}" if row.peer is not None else "–"
        ratio = f"{row.ratio:.3f}" if row.ratio is not None else "–"
        lines.append(
            f"| {row.work} | {row.ours:.3f} {row.unit} | {row.peer_name} | {peer} | {ratio} | {row.reach} |"
        )
    return "\n".join(lines)


_INTRODUCTION = """# Benchmarks

Made by `make bench`, which runs both sides in turn on the same machine in one session. Times are wall
seconds of whole commands, medians after a warm-up; the ratio is the median of the pairs' ratios, so it
holds where the machine's speed drifts.
"""

SUITES: dict[str, tuple[str, str]] = {
    "commands": (
        "Commands",
        "Both sides run a one-machine cluster of the same size, each command in a fresh process. The "
        "peer's dashboard, which its job API needs, runs; ours has none.",
    ),
    "survival": (
        "Survival",
        "Processes are killed with SIGKILL. Torchrun restarts in the agent that lives on; our guard ends "
        "with the gang, and the next attempt is placed, staged and launched again. Metric points count "
        "once a sync to disk has returned. Memory is resident memory, shared pages counted. The log is "
        "complete when following it starts. The agent is the whole process, with Ray in it: it "
        "reads eight GPUs (utilisation, memory, power and its limit, temperature, clocks, throttling, ECC "
        "and Xid errors, PCIe and NVLink, processes) and the host's CPU, memory, disk and network, and "
        "answers its controller. nvitop's collector reads the same GPUs (utilisation, memory, power and its "
        "limit, temperature, fan, its own processes) and the host's CPU, memory, swap and load, and "
        "reports to nobody.",
    ),
    "console": (
        "Console",
        "The real `qd` on a pseudo-terminal of 120 by 36 cells, over a stand-in for the controller in a "
        "process of its own. Bytes are counted where a terminal reads them; CPU and memory are what the "
        "kernel says.",
    ),
    "sweeps": (
        "Sweeps",
        "Ours is timed from submitting the sweep to its recorded end, each trial in a new process, "
        "on a cluster that is up; Ray Tune is timed over `Tuner.fit()`, without starting "
        "Ray. Overhead is how much longer a slot is held than the same scripts take under `xargs -P 4`. "
        "Opening reads the sweep and all its trials from a server that has just started.",
    ),
    "scale": (
        "Scale",
        "The real controller with its API and its registry on disk; the agents are stand-ins in the same "
        "process that answer each second, as real ones do, and their work counts in. Clients are threads "
        "of another process, and an answer means that the job is recorded durably. 1,000 jobs run, one on "
        "each node of 8 GPUs; those that wait are of 84 shapes.",
    ),
    "serving": (
        "Serving",
        "One small network (64-192-192-10) on ONNX Runtime with one thread, requests in JSON by the Open "
        "Inference Protocol over connections that stay open, client on the same machine. Ours is all that a "
        "deployed model has: HAProxy with its health checks and log, the front's counting, and two of our "
        "model servers, which check the request against the signature. The peer is one process of uvicorn "
        "that parses the JSON and runs the session. Memory is resident memory, shared pages counted; the "
        "reach is a third of what Ray Serve's controller, proxy and replica took (424 MB).",
    ),
}
"""Each suite's heading, and what one must know to read its table."""


def document(before: str, suite: str, rows: Sequence[Row], rounds: int) -> str:
    """The document with one suite's section anew, the others as they stand in `before`."""
    sections = {
        text.splitlines()[0].strip(): text.strip() for text in before.split("\n## ")[1:] if text
    }
    heading, note = SUITES[suite]
    day = datetime.now(UTC).date().isoformat()
    measured = f"Measured {day}, {rounds} rounds, on {machine()}."
    sections[heading] = f"{heading}\n\n{measured}\n\n{table(rows)}\n\n{note}"
    order = [title for title, _ in SUITES.values() if title in sections]
    return "\n## ".join([_INTRODUCTION, *(sections[title] + "\n" for title in order)])
