"""`qd up` and `qd down`: the cluster of this machine, which others may join (`hosts.py`).

The supervisor does the work (`python -m agents.supervisor`); this tells it what to do, narrates, and
asks the control plane what the supervisor cannot know: whether a node is ready, and which jobs run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.cli.options import Cpus, Gpus, Json, SimulateGpus
from console.cli.output import emit, narrate, say
from console.client import Client
from jobs.errors import Conflict, QuarterdeckError, Unreachable, from_json
from jobs.places import places
from jobs.states import JOB_STATES, TERMINAL

if TYPE_CHECKING:
    from jobs.views import JobView, NodeView, StatusView

READY_TIMEOUT = 60.0
"""Seconds for a node to be ready. It takes about 7 on an idle laptop; a busy one may need more."""

CANCEL_TIMEOUT = 90.0
"""Seconds for jobs to end after they were cancelled, before their ranks are stopped without asking."""

POLL = 0.1
"""Seconds between two looks at something that has no other way to tell."""

SHOWN = 12
"""Lines of each log shown when the cluster does not come up."""


def up(
    gpus: Gpus = None,
    simulate_gpus: SimulateGpus = None,
    cpus: Cpus = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS",
            help="An address of this machine at which other hosts may join (`qd join`).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start a cluster on this machine.

    It runs in the background until `qd down`. When it runs already, nothing changes.
    """
    began = time.monotonic()
    asked = size_words(gpus, simulate_gpus, cpus)
    answer = supervisor("start", *asked, *(["--address", listen] if listen else []))
    if answer["started"]:
        narrate("starting Ray and the controller…")
    try:
        status, node = wait_ready(
            Client.from_environment(timeout=5), READY_TIMEOUT, time.monotonic, time.sleep
        )
    except Unreachable:
        show_logs(places().daemon_logs)
        raise
    cluster, join = status["cluster"], how_to_join(answer["cluster"])
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        socket = str(places().socket)
        told = {"cluster": cluster, "node": node["name"], "socket": socket, "took": seconds}
        emit(answer | told | {"join": join})
        return
    size = extent(cluster["nodes"], cluster["cpus"], cluster["gpus"], cluster["simulated"])
    if answer["started"]:
        say(f"The cluster is up: {size}.")
        narrate(f"It took {seconds} s. `qd` opens the console, `qd down` stops it.")
    else:
        say(f"The cluster was up already: {size}.")
    if join:
        narrate(f"To add a host, copy {join['token_file']} there (`scp`), and on it run")
        narrate(f"    qd join {join['head']} --token-file FILE")


def down(
    force: Annotated[
        bool, typer.Option("--force", help="Cancel the jobs that wait or run, then stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Stop the cluster on this machine.

    Jobs, logs and models stay recorded. Refuses while jobs wait or run, unless forced.
    """
    client = Client.from_environment(timeout=10)
    try:
        jobs = unfinished(client)
    except Unreachable:
        jobs = []  # then the supervisor looks for ranks itself
    if jobs and not force:
        names = ", ".join(job["id"] for job in jobs[:10])
        more = f" and {len(jobs) - 10} more" if len(jobs) > 10 else ""
        raise Conflict(
            f"{len(jobs)} {'job has' if len(jobs) == 1 else 'jobs have'} not ended: {names}{more}",
            "Wait for them, or run `qd down --force` to cancel them.",
            jobs=[job["id"] for job in jobs],
        )
    if jobs:
        narrate(f"cancelling {', '.join(job['id'] for job in jobs)}…")
        cancel(client, [job["id"] for job in jobs], time.monotonic)
    narrate("stopping the controller, then Ray…")
    answer = supervisor("stop", *(["--ranks"] if force else []))
    for attempt in answer["ranks"]:
        narrate(f"stopped the ranks of {attempt}, which the controller could not")
    if as_json:
        emit(answer | {"cancelled": [job["id"] for job in jobs]})
    else:
        say("The cluster is down." if answer["stopped"] else "No cluster was running.")


def supervisor(*words: str) -> dict[str, Any]:
    """Run the supervisor's command line. Raises the error that it tells."""
    done = subprocess.run(
        [sys.executable, "-m", "agents.supervisor", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Unreachable(f"the supervisor failed: {last}", "Run `qd doctor`.") from None
    if "error" in answer:
        raise from_json(answer)
    return answer


def wait_ready(
    client: Client, timeout: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> tuple[StatusView, NodeView]:
    """Wait until a node takes jobs, and narrate what happens on the way.

    Raises Unreachable after `timeout` seconds, with what was missing.
    """
    deadline = clock() + timeout
    told: list[str] = []

    def tell(text: str) -> None:
        if text not in told:
            told.append(text)
            narrate(text)

    missing = "the controller does not answer"
    while clock() < deadline:
        try:
            status: StatusView = client.get("/v1/status")
            nodes: list[NodeView] = client.get("/v1/nodes")
        except Unreachable:
            sleep(POLL)
            continue
        ready = [node for node in nodes if node["state"] == "READY"]
        if ready:
            return status, ready[0]
        if told or clock() > deadline - timeout + POLL:  # an `up` of a running cluster is silent
            tell("the controller answers")
        missing = "Ray does not answer"
        if status.get("ray") == "connected":
            tell("Ray answers; starting the agent…")
            missing = "no node is ready"
        sleep(POLL)
    raise Unreachable(
        f"the cluster is not ready after {timeout:g} s: {missing}",
        "Its parts are still being restarted. See the logs above, `qd status` and `qd doctor`.",
    )


def unfinished(client: Client) -> list[JobView]:
    """Jobs that have not ended, newest first."""
    states = [state for state in JOB_STATES if state not in TERMINAL]
    jobs: list[JobView] = []
    before = None
    while True:
        page = client.get("/v1/jobs", state=states, limit=200, before=before)
        jobs += page["jobs"]
        before = page["next"]
        if before is None:
            return jobs


def cancel(client: Client, ids: list[str], clock: Callable[[], float]) -> None:
    """Cancel jobs and wait until they have ended; what does not end is left to the caller."""
    deadline = clock() + CANCEL_TIMEOUT
    patient = client.with_timeout(30)
    try:
        for job in ids:
            try:
                client.act(f"/v1/jobs/{job}/cancel")
            except Conflict:
                continue  # it has ended in the meantime
        for job in ids:
            while clock() < deadline:
                view = patient.get(f"/v1/jobs/{job}/wait", timeout=5)
                if view["state"] in TERMINAL:
                    break
    except QuarterdeckError as error:
        narrate(f"the controller could not cancel all of them: {error.message}")


def size_words(gpus: int | None, simulate_gpus: int | None, cpus: int | None) -> list[str]:
    """The numbers of a command line, as the supervisor's command line has them."""
    asked = {"--gpus": gpus, "--simulate-gpus": simulate_gpus, "--cpus": cpus}
    return [word for name, n in asked.items() if n is not None for word in (name, str(n))]


def how_to_join(record: dict[str, Any]) -> dict[str, str] | None:
    """Where other hosts find this head and its token; None when it listens to this machine only."""
    head = str(record.get("ray_address", ""))
    if not head or head.startswith("127."):
        return None
    return {"head": head, "token_file": str(places().ray_token)}


def extent(nodes: int, cpus: float, gpus: int, simulated: bool) -> str:
    """A cluster in words: `1 node, 2 CPUs, 2 GPUs (sim)`."""
    parts = [f"{nodes} {'node' if nodes == 1 else 'nodes'}"]
    parts.append(f"{cpus:g} {'CPU' if cpus == 1 else 'CPUs'}")
    parts.append(f"{gpus} {'GPU' if gpus == 1 else 'GPUs'}{' (sim)' if simulated and gpus else ''}")
    return ", ".join(parts)


def show_logs(folder: Path) -> None:
    """The last lines of the daemons' logs, for a person who wonders why nothing comes up."""
    for name in ("supervisor", "controller", "ray"):
        path = folder / f"{name}.log"
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 64 * 1024))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            continue
        narrate(f"--- {path}")
        for line in lines[-SHOWN:]:
            narrate(line)
