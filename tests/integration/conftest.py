"""One real cluster for the whole folder: `qd up`, the real command line, and a look at what is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from console.client import Client
from jobs.base.places import Places, places

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"


@dataclass(frozen=True)
class Done:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def documents(self) -> list[dict[str, Any]]:
        """One JSON document a line, as streams give them."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Cluster:
    """A cluster, and the command line of someone who uses it."""

    where: Places
    environ: dict[str, str]

    @property
    def client(self) -> Client:
        return Client(self.where.socket, timeout=30)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "console.cli.main", *words]

    def qd(
        self,
        *words: str,
        home: Path | None = None,
        cwd: Path | None = None,
        before: Sequence[str] = (),
    ) -> Done:
        """Run `qd WORDS` to its end."""
        done = subprocess.run(
            [*before, *self.command(*words)],
            env=self.environ | ({"QD_HOME": str(home)} if home is not None else {}),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert "Traceback" not in done.stderr + done.stdout
        return Done(done.returncode, done.stdout, done.stderr)

    def submit(self, *words: str) -> str:
        """Submit with `qd submit --no-workdir WORDS`; the job's id."""
        done = self.qd("submit", "--no-workdir", *words)
        assert done.code == 0, done.err
        return done.out.strip()

    def lines(self, job: str) -> list[tuple[int, str]]:
        """(rank, line) of all that a job wrote."""
        return [(d["rank"], d["line"]) for d in self.qd("logs", job, "--json").documents]

    def count(self) -> int:
        """Jobs that were ever submitted."""
        total: int = self.client.get("/v1/jobs", limit=1)["total"]
        return total


def until(look: Callable[[], Any], seconds: float = 30) -> Any:
    """What `look` gives once it is truthy. Polls real processes, with a deadline."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s"
        time.sleep(0.05)
    return found


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process of the cluster of this folder, by what it was started with."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            told = [*process.cmdline(), *process.environ().values()]
            if any(text == str(home) or f"{home}/" in text for text in told):
                found.append(process)
    return [process for process in found if process.pid != os.getpid()]


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with running() as here:
        yield here


@contextmanager
def running(before: Sequence[str] = (), **more: str) -> Iterator[Cluster]:
    """A cluster that is up, and that leaves nothing behind.

    Args:
        before: a command that starts the command that starts it.
        more: variables of its environment.
    """
    home = Path(tempfile.mkdtemp(prefix="qdt-"))
    environ = {k: v for k, v in os.environ.items() if k not in ("CONDA_PREFIX", "QD_DEBUG")}
    # The interpreter that runs these tests is the one that has what the examples import.
    environ |= {"QD_HOME": str(home), "VIRTUAL_ENV": sys.prefix, "NO_COLOR": "1"} | more
    here = Cluster(places(environ), environ)
    up = here.qd("up", "--simulate-gpus", "2", "--cpus", "4", "--json", before=before)
    try:
        assert up.code == 0, up.err
        shared = {
            mapped.path
            for process in processes_of(home)
            for mapped in process.memory_maps()
            if mapped.path.startswith("/dev/shm/")
        }
        yield here
    finally:
        down = here.qd("down", "--force", "--json")
        left = processes_of(home)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(home, ignore_errors=True)
    assert (down.code, down.json["stopped"]) == (0, True), down.err
    assert left == []
    assert not here.where.ray_temp.exists()
    assert [path for path in shared if Path(path.removesuffix(" (deleted)")).exists()] == []
