"""`python -m agents.supervisor start|run|stop`: what `qd up`, `qd join`, `qd leave` and `qd down` call.

`run` remains in the foreground, for a service manager, and logs to stderr. Otherwise stdout gets one JSON
document. A failure is `{"error": ...}` as the API writes it, and its exit code.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import socket
import sys
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.supervisor import forced, head, network, rayfolder, teardown, tls
from agents.supervisor import record as records
from agents.supervisor.notify import Notifier
from agents.supervisor.policy import Asked, check_fits, size
from agents.supervisor.process import Identity, terminate
from agents.supervisor.supervisor import Settings, Supervisor, say
from jobs.base.disk import refused
from jobs.base.errors import Conflict, QuarterdeckError, StorageFull, Unreachable
from jobs.base.places import Places, places

START_TIMEOUT = 30.0
"""Seconds for a supervisor to start its programs (not for them to be ready)."""

STOP_TIMEOUT = 60.0
"""Seconds for a supervisor to take everything down: its parts have about 35 in all."""

FORCED_PATIENCE = 5.0
"""Seconds for a supervisor to say what runs, before it is stopped without."""


class Lock:
    """At most one supervisor per state folder: who holds the lock may start and stop things.

    The kernel gives it back when the holder dies, however it dies.
    """

    def __init__(self, where: Places) -> None:
        path = where.state / "supervisor.lock"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if not refused(error):
                raise
            self._descriptor = os.open(path, os.O_RDONLY)  # enough to see who holds it

    def take(self, seconds: float = 0.0) -> bool:
        """Whether it is ours now; tries for so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.02)


def start(
    where: Places,
    asked: Asked,
    controller: str,
    environ: Mapping[str, str],
    token: Path | None = None,
) -> dict[str, Any]:
    """Start a supervisor in the background, unless one runs that fits.

    Args:
        token: a worker's: the file with the token of the cluster that it joins. It is copied.

    Raises Conflict when what runs is of another size or kind, Unreachable when it does not start.
    """
    lock, umask = _prepare(where)
    record = _running(where, lock)
    if record is not None:
        check_fits(asked, records.asked_of(record), records.size_of(record))
        return {"started": False, "cluster": record}
    settings, before = _settings(where, asked, controller, environ, token, umask)
    _detach(settings, before)
    return {"started": True, "cluster": records.read(where.cluster_file)}


def run(
    where: Places,
    asked: Asked,
    controller: str,
    environ: MutableMapping[str, str],
    token: Path | None = None,
) -> None:
    """Be the supervisor, until SIGTERM; then everything is taken down but ranks, which run on.

    Raises Conflict when another one runs.
    """
    notifier = Notifier(environ)
    lock, umask = _prepare(where)
    if _running(where, lock) is not None:
        raise Conflict(
            "a cluster runs here already, in the background",
            "Stop it with `qd down` or `qd leave` first; its jobs may run on.",
        )
    settings, before = _settings(where, asked, controller, environ, token, umask)
    os.chdir("/")
    Supervisor(settings, before, notifier).run()


def _prepare(where: Places) -> tuple[Lock, int]:
    """Make the folders; the lock, not taken yet, and the umask that the caller came with."""
    umask = os.umask(0o077)
    for folder in (where.state, where.node, where.daemon_logs, where.runtime):
        folder.mkdir(parents=True, exist_ok=True)
    rayfolder.check(where.ray_temp)
    return Lock(where), umask


def _settings(
    where: Places,
    asked: Asked,
    controller: str,
    environ: Mapping[str, str],
    token: Path | None,
    umask: int,
) -> tuple[Settings, records.ClusterRecord | None]:
    """What to run, and the record of what the same node ran before, part of which may run still."""
    tls.check(environ)
    before = records.read(where.cluster_file)
    left = [p for p in records.processes(before).values() if p and p.alive] if before else []
    if before and left:  # its supervisor died, they did not
        check_fits(asked, records.asked_of(before), records.size_of(before))
        asked, extent = records.asked_of(before), records.size_of(before)
    else:
        if before and asked == Asked(head=before["asked"].get("head")):
            asked = records.asked_of(before)  # the machine went down: the same node comes back
        gpus = 0 if asked.simulate_gpus is not None else head.count_gpus()
        extent = size(asked, len(os.sched_getaffinity(0)), gpus)
    if token is not None:
        head.take_token(where.ray_token, token)
    same = before is not None and before["asked"].get("head") == asked.head
    node = asked.name or (before["node"] if before and same else node_name(environ))
    address = _address(asked)
    settings = Settings(where, asked, extent, node, address, controller, umask, environ)
    return settings, before if same else None


def _address(asked: Asked) -> str:
    """Where the node listens. Raises InvalidInput or Unreachable."""
    if asked.address is not None:
        return network.own_address(asked.address)
    return network.address_towards(asked.head) if asked.head else network.LOOPBACK


def _running(
    where: Places, lock: Lock, patience: float = START_TIMEOUT
) -> records.ClusterRecord | None:
    """What the supervisor that holds the lock has written, or None when the lock is ours instead.

    Raises Unreachable when one holds the lock and writes nothing for `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if lock.take():
            return None
        record = records.read(where.cluster_file)
        supervisor = Identity.from_json(record["supervisor"]) if record else None
        if record and supervisor and supervisor.alive:
            return record
        time.sleep(0.02)  # it starts, or it ends
    raise Unreachable(
        "the supervisor does not say what runs", f"See {where.daemon_logs / 'supervisor.log'}."
    )


def _detach(settings: Settings, before: records.ClusterRecord | None) -> None:
    """Go on as a daemon in a grandchild, which inherits the lock; return once it has started."""
    told, tell = os.pipe()
    if os.fork() == 0:
        os.close(told)
        os.setsid()
        if os.fork() == 0:
            _serve(settings, before, tell)
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        if not pipe.read():
            log = settings.places.daemon_logs / "supervisor.log"
            raise Unreachable("the supervisor ended while it started", f"See {log}.")


def _serve(settings: Settings, before: records.ClusterRecord | None, ready: int) -> None:
    """The daemon; does not return."""
    code = 1
    try:
        os.chdir("/")
        log = settings.places.daemon_logs / "supervisor.log"
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        Supervisor(settings, before).run(ready)
        code = 0
    except BaseException:  # the last thing this process does is to say why
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError):  # the log may be on a disk that is full
            sys.stderr.flush()
        os._exit(code)


def stop(where: Places, *, ranks: bool) -> dict[str, Any]:
    """Stop the cluster, whether its supervisor lives or not, and whatever it left.

    Args:
        ranks: stop what jobs run here as well, when the controller could not; then also a state folder
            that cannot be read or written keeps nothing running.

    Raises:
        Conflict: jobs run here and `ranks` is false, or something will not end.
        Unreachable: the supervisor does not say what runs.
        StorageFull: the disk fails, and `ranks` is false.
    """
    try:
        return _stop(where, ranks=ranks)
    except OSError as error:
        why = f"{where.state} cannot be used: {error.strerror or error}"
        if not ranks:
            raise StorageFull(why, "Repair the disk, or `qd down --force` without it.") from error
    except Unreachable as error:
        if not ranks:
            raise
        why = error.message
    except Conflict as error:
        if not ranks:
            raise
        return _stop_without_records(where, error.message, supervisor_grace=0.0)  # it had its time
    return _stop_without_records(where, why)


def _stop_without_records(
    where: Places, why: str, supervisor_grace: float = forced.SUPERVISOR_GRACE
) -> dict[str, Any]:
    """As `stop`, by the process table alone. Raises Conflict when something will not end."""
    ran = bool(forced.running(where))
    done = forced.stop_all(where, supervisor_grace, teardown.GUARD_GRACE)
    if done.left:
        raise Conflict(
            f"these processes will not end: {done.left}", "Look at them with `ps`.", pids=done.left
        )
    problems = [f"{why}; what runs was found in the process table", *done.problems]
    return {"stopped": ran, "ranks": done.ranks, "problems": problems + teardown.tidy(where)}


def _stop(where: Places, *, ranks: bool) -> dict[str, Any]:
    if not where.state.is_dir():
        if ranks and forced.running(where):
            return _stop_without_records(where, f"{where.state} is gone")
        return {"stopped": False, "ranks": [], "problems": []}
    running = teardown.guards(where.node)
    if running and not ranks:
        raise Conflict(
            f"jobs run here: {', '.join(running)}",
            "Cancel them or drain the node first, or say --force to stop them too.",
            attempts=list(running),
        )
    lock = Lock(where)
    was_running, worker = False, False
    if record := _running(where, lock, FORCED_PATIENCE if ranks else START_TIMEOUT):
        was_running, worker = True, bool(record["asked"].get("head"))
        if supervisor := Identity.from_json(record["supervisor"]):
            terminate(supervisor)
        if not lock.take(STOP_TIMEOUT):
            raise Conflict(
                f"the supervisor (pid {record['supervisor']['pid']}) does not end",
                f"See {where.daemon_logs / 'supervisor.log'}.",
            )
    record_left = records.read(where.cluster_file)
    worker = worker or bool(record_left and record_left["asked"].get("head"))
    was_running = was_running or bool(teardown.remains(where, record_left))
    left = teardown.take_down(where, record_left)
    if left:
        raise Conflict(
            f"these processes will not end: {left}", "Look at them with `ps`.", pids=left
        )
    ended = teardown.stop_ranks(where.node) if ranks else []
    problems = teardown.tidy(where)
    if worker:  # the token is another cluster's
        problems += forced.remove([where.ray_token])
    return {"stopped": was_running, "ranks": ended, "problems": problems}


def node_name(environ: Mapping[str, str]) -> str:
    """What a node is called that was given no name: QD_NODE_NAME or the host's name, in the letters
    that Ray allows in a label."""
    name = environ.get("QD_NODE_NAME") or socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:63].strip("-_.") or "local"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m agents.supervisor", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, words in (("start", "in the background"), ("run", "in the foreground")):
        up = verbs.add_parser(verb, help=f"start {words}")
        for option in ("--cpus", "--gpus", "--simulate-gpus"):
            up.add_argument(option, type=int)
        up.add_argument("--ports", type=int, help="first of the hundred ports to listen on")
        up.add_argument("--address", help="where this node listens; 127.0.0.1 is for it alone")
        up.add_argument("--name", help="what it is called")
        up.add_argument("--head", help="join the cluster at HOST:PORT")
        up.add_argument("--token-file", type=Path, help="that cluster's token")
        up.add_argument("--controller", default="agents.daemon", help="module of the controller")
    down = verbs.add_parser("stop", help="stop, and leave nothing")
    down.add_argument("--ranks", action="store_true", help="stop running jobs too")
    options = parser.parse_args(argv)
    environ = dict(os.environ)
    where = places(environ)
    try:
        if options.verb == "stop":
            answer = stop(where, ranks=options.ranks)
        else:
            asked = Asked(
                options.cpus,
                options.gpus,
                options.simulate_gpus,
                options.address,
                options.head,
                options.name,
                options.ports,
            )
            if options.verb == "run":
                run(where, asked, options.controller, environ, options.token_file)
                return 0
            answer = start(where, asked, options.controller, environ, options.token_file)
    except QuarterdeckError as error:
        if options.verb == "run":
            say(f"{error.message}. {error.hint}")
            return error.exit_code
        print(json.dumps(error.to_json()), flush=True)  # noqa: T201 - what a command is for
        return error.exit_code
    print(json.dumps(answer), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
