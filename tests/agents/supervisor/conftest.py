from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agents.supervisor.process import Identity
from jobs.base.places import Places, places

Spawn = Callable[..., Identity]


@pytest.fixture
def where() -> Iterator[Places]:
    """The places of a cluster of its own, with a path short enough for unix sockets."""
    home = Path(tempfile.mkdtemp(prefix="qdt-"))
    here = places({"QD_HOME": str(home)})
    for folder in (here.state, here.node, here.daemon_logs, here.runtime):
        folder.mkdir(parents=True)
    yield here
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(here.ray_temp, ignore_errors=True)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts small programs that lead a session of their own; ends what is left of them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, *args: str, session: bool = True) -> Identity:
        """Run a Python program that writes a byte once it is ready."""
        child = subprocess.Popen(
            [sys.executable, "-c", program, *args],
            stdout=subprocess.PIPE,
            start_new_session=session,
        )
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.read(1), "it ended before it was ready"
        identity = Identity.of(child.pid)
        assert identity is not None
        return identity

    yield start
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a real process to do something."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def end(identity: Identity | None) -> None:
    """SIGKILL, if it still runs."""
    import os
    import signal

    if identity is not None and identity.alive:
        with suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGKILL)
