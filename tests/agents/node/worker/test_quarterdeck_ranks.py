"""What starts ranks in an exported image: the same variables as a guard's, and real processes."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from agents.node.staging import environment
from agents.node.worker import quarterdeck_ranks as ranks
from jobs.wire.messages import LaunchPlan, LaunchRequest

PROGRAM = Path(ranks.__file__)


@pytest.mark.parametrize("launch", ["torchrun", "jax", "mpi"])
@pytest.mark.parametrize(("nodes", "procs", "gpus"), [(1, 2, 4), (2, 3, 0), (2, 1, 1)])
def test_the_variables_are_a_guards(
    launch: Literal["torchrun", "jax", "mpi"], nodes: int, procs: int, gpus: int, tmp_path: Path
) -> None:
    for node in range(nodes):
        plan = cast(
            "LaunchPlan",
            {
                "launch": launch, "world_size": nodes * procs, "procs": procs, "node_rank": node,
                "first_rank": node * procs, "job": "j1", "attempt": 1, "gpus": gpus, "nnodes": nodes,
            },
        )  # fmt: skip
        request = cast(
            "LaunchRequest",
            {"master_addr": "head", "master_port": 29500, "node_addresses": ["head"] * nodes},
        )
        for local in range(procs):
            wanted = environment._gang(plan, request) | environment.of_rank(
                plan, request, tmp_path, local
            )
            found = ranks.variables(
                nodes, procs, launch, node, local, address="head", port=29500, gpus=gpus
            )
            for name in ("TORCHELASTIC_RUN_ID", "QD_METRICS_FILE", "QD_STOP_LISTENER_FILE"):
                wanted.pop(name, None)
            if nodes > 1:
                wanted.pop("TF_CONFIG", None)  # needs the names of all pods
            assert wanted.items() <= found.items()


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs the program; whatever is left of it is gone after the test."""
    begun: list[subprocess.Popen[str]] = []

    def run(*words: str, program: str, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), *words, "--", sys.executable, "-c", program]
        begun.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | env,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield run
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_node_of_a_gang(start: Start) -> None:
    program = (  # one write, or the lines of two ranks may mix
        "import os; e = os.environ\n"
        "os.write(1, f\"{e['RANK']} {e['WORLD_SIZE']} {e['MASTER_ADDR']}\\n\".encode())"
    )
    process = start(
        "--nodes", "2", "--procs", "2", program=program, JOB_COMPLETION_INDEX="1", MASTER_ADDR="a-0.a"
    )  # fmt: skip
    out, _ = process.communicate(timeout=30)
    assert sorted(out.splitlines()) == ["2 4 a-0.a", "3 4 a-0.a"]
    assert process.returncode == 0


def test_one_that_fails_ends_the_others_and_gives_its_code(start: Start) -> None:
    program = (
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1': sys.exit(9)\n"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    )
    process = start("--procs", "2", "--grace", "0.3", program=program)
    process.communicate(timeout=30)
    assert process.returncode == 9


@pytest.mark.parametrize("procs", ["1", "2"])
def test_a_stop_reaches_the_ranks(procs: str, start: Start) -> None:
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "os.write(1, b'up\\n'); time.sleep(600)"
    )
    process = start("--procs", procs, program=program)
    assert process.stdout is not None
    for _ in range(int(procs)):
        assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 5


def test_a_node_that_is_not_in_the_gang_is_refused(start: Start) -> None:
    process = start("--nodes", "2", program="", NODE_RANK="2")
    process.communicate(timeout=30)
    assert process.returncode == 2


def test_ready_is_an_answer_of_200() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ok" else 503)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def ready(path: str) -> int:
        words = [sys.executable, str(PROGRAM), "--ready", path]
        env = os.environ | {"PORT": str(server.server_port)}
        return subprocess.run(words, env=env, check=False).returncode

    try:
        assert (ready("/ok"), ready("/no")) == (0, 1)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert ready("/ok") == 1
