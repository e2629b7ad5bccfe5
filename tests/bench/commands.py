"""Whole commands as a user types them: listing jobs, and a job from submit to its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.report import Row, alone, paired, timed

BIN = Path(sys.executable).parent
_JOBS = 20
"""Jobs that both sides know when they list them."""


def measure(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="qdb") as name, contextlib.ExitStack() as stack:
        root = Path(name)
        work = root / "empty"
        work.mkdir()
        ours = stack.enter_context(quarterdeck(root / "qd"))
        theirs = stack.enter_context(ray_cluster(root / "ray"))
        qd = [str(BIN / "qd")]
        ray = [str(BIN / "ray"), "job"]
        echo = ["--", "echo", "hi"]
        for _ in range(_JOBS):
            timed([*qd, "submit", "--wait", *echo], ours, work)
        timed([*ray, "submit", *echo], theirs, work)
        return [
            paired(
                "list jobs, cold shell",
                lambda: timed([*qd, "jobs"], ours, work),
                "`ray job list`",
                lambda: timed([*ray, "list"], theirs, work),
                "<= 0.125",
                rounds,
            ),
            paired(
                "submit `echo hi` and see it end",
                lambda: timed([*qd, "submit", "--watch", *echo], ours, work),
                "`ray job submit -- echo hi`",
                lambda: timed([*ray, "submit", *echo], theirs, work),
                "<= 0.25",
                rounds,
            ),
            paired(
                "submit to first rank's first line",
                lambda: first_line([*qd, "submit", "--watch", *echo], ours, work),
                "`ray job submit -- echo hi`",
                lambda: first_line([*ray, "submit", *echo], theirs, work),
                "report",
                rounds,
            ),
            alone("`qd --help`, cold shell", lambda: timed([*qd, "--help"], ours, work), rounds),
        ]


def first_line(argv: Sequence[str], env: dict[str, str], cwd: Path) -> float:
    """Seconds until the command prints the job's own line; the rest is waited for, not counted."""
    started = time.perf_counter()
    with subprocess.Popen(
        argv, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        taken, said = None, []
        for line in process.stdout:
            said.append(line)
            if taken is None and line.strip() == "hi":
                taken = time.perf_counter() - started
    if taken is None:
        raise RuntimeError(f"{' '.join(argv)} never printed the job's line, but: {''.join(said)}")
    return taken


@contextlib.contextmanager
def quarterdeck(home: Path) -> Iterator[dict[str, str]]:
    """A one-machine cluster of ours; yields the environment of its commands."""
    env = {**os.environ, "QD_HOME": str(home)}
    subprocess.run([BIN / "qd", "up"], env=env, check=True, capture_output=True, timeout=120)
    try:
        yield env
    finally:
        subprocess.run([BIN / "qd", "down", "--force"], env=env, capture_output=True, timeout=120)


@contextlib.contextmanager
def ray_cluster(home: Path) -> Iterator[dict[str, str]]:
    """A Ray head with its dashboard, as its job API needs; ended by its own process group."""
    home.mkdir(parents=True)
    temporary = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))
    port, dashboard = _free_port(), _free_port()
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_AUTH_MODE": "disabled",
    }
    head = subprocess.Popen(
        [
            BIN / "ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}",
            "--include-dashboard=true", f"--dashboard-port={dashboard}", f"--temp-dir={temporary}",
            "--disable-usage-stats", "--num-cpus=2", "--object-store-memory=200000000",
        ],
        env={name: value for name, value in env.items() if name != "RAY_ADDRESS"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        _until_answers(dashboard)
        yield env
    finally:
        head.terminate()  # --block passes it on to all that it started
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(30)
        head.kill()
        shutil.rmtree(temporary, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _until_answers(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise RuntimeError("Ray's dashboard did not start")
