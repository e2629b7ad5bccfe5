"""Stop a cluster whose state folder cannot be relied on: full, read-only, with errors, or damaged.

What runs is found in the process table alone. A process is ours when it is this user's, and was started
for this state folder, by its environment, its command line or the folder that it works in. It is named by
pid and start time, so what takes its pid meanwhile is not touched.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agents.node.guard import records as node_records
from agents.supervisor import head
from agents.supervisor.process import Entry, Identity, stop, sweep, table, terminate
from jobs.base.places import Places, places

SUPERVISOR_GRACE = 25.0
"""Seconds for the supervisor to stop its parts itself."""
CONTROLLER_GRACE = 10.0
RECORD_GRACE = 3.0
"""Seconds that a guard without ranks may try to write how they ended."""
_GUARD = "agents/node/guard/guard.py"


@dataclass
class Running:
    """What runs for one state folder.

    Attributes:
        guards: by the name of the attempt's folder.
        orphans: marks (`QD_GUARD`) of ranks, by the same; their guards may be gone.
    """

    supervisors: list[Identity] = field(default_factory=list)
    controllers: list[Identity] = field(default_factory=list)
    ray: list[Identity] = field(default_factory=list)
    guards: dict[str, Identity] = field(default_factory=dict)
    orphans: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.supervisors or self.controllers or self.ray or self.guards or self.orphans)


def running(where: Places) -> Running:
    """Look at every process of this user. Never raises for a disk that fails."""
    found, attempts = Running(), os.path.realpath(where.node / "attempts") + os.sep
    for entry in table():
        identity = Identity.of(entry.pid)
        if identity is None or identity.started != entry.started:
            continue
        environ = _environ(entry.pid)
        if "QD_GUARD" in environ:
            name = _below(attempts, environ.get("QD_WORK_DIR", ""))
            if name:
                found.orphans[name] = environ["QD_GUARD"]
        elif any(arg.endswith(_GUARD) for arg in entry.args):
            name = _below(attempts, _working_folder(entry.pid))
            if name:
                found.guards[name] = identity
        elif _is("agents.supervisor", entry, ("start", "run")) and _same(environ, where):
            found.supervisors.append(identity)
        elif _is("agents.daemon", entry, ()) and _same(environ, where):
            found.controllers.append(identity)
        elif environ.get("QD_NODE_STATE") == str(where.node):
            found.ray.append(identity)
    return found


def guards(node: Path) -> dict[str, Identity]:
    """Guards that run in attempts of a node, by the attempt's folder, whatever is on disk."""
    attempts = os.path.realpath(node / "attempts") + os.sep
    found = {}
    for entry in table():
        if any(arg.endswith(_GUARD) for arg in entry.args):
            name, identity = _below(attempts, _working_folder(entry.pid)), Identity.of(entry.pid)
            if name and identity is not None and identity.started == entry.started:
                found[name] = identity
    return found


def _is(module: str, entry: Entry, words: tuple[str, ...]) -> bool:
    """Whether a process runs a module of ours, as `jobs.base.python.module` starts it."""
    args = entry.args
    at = args.index(module) if module in args else -1
    if at < 1 or not (args[at - 1].endswith("qd_start.py") or args[at - 1] == "-m"):
        return False
    return not words or (len(args) > at + 1 and args[at + 1] in words)


def _same(environ: dict[str, str], where: Places) -> bool:
    """Whether a process with this environment uses the same state folder."""
    with suppress(OSError, RuntimeError, ValueError):
        return places({"HOME": "/"} | environ).state == where.state
    return False


def _environ(pid: int) -> dict[str, str]:
    with suppress(OSError):
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        pairs = (item.partition("=") for item in text.split("\0"))
        return {name: value for name, equals, value in pairs if equals}
    return {}


def _working_folder(pid: int) -> str:
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/cwd").readlink())
    return ""


def _below(folder: str, path: str) -> str:
    """The first name below a folder (which ends in /) on the way to `path`; "" when it is not below."""
    if not path.startswith(folder):
        return ""
    return path[len(folder) :].removesuffix(" (deleted)").partition(os.sep)[0]


@dataclass
class Stopped:
    """What came of it.

    Attributes:
        ranks: attempts whose ranks were stopped.
        problems: what could not be done, each a sentence.
        left: pids of processes that would not end.
    """

    ranks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left: list[int] = field(default_factory=list)


def stop_all(where: Places, supervisor_grace: float, guard_grace: float) -> Stopped:
    """Stop everything that runs for a state folder, without reading it.

    Args:
        supervisor_grace: seconds for the supervisor to stop its parts itself.
        guard_grace: seconds for guards to stop their ranks.
    """
    answer, before = Stopped(), running(where)
    for process in before.supervisors:
        stop(process, supervisor_grace)
    for process in running(where).controllers:
        stop(process, CONTROLLER_GRACE)
        answer.left += [entry.pid for entry in sweep(process, None)]
    for process in before.controllers:  # its driver and its helpers are in its session
        answer.left += [entry.pid for entry in sweep(process, None)]
    answer.left += [entry.pid for entry in sweep(None, head.folder(where))]
    deadline = time.monotonic() + 10
    while ray := running(where).ray:
        _kill(ray)
        if time.monotonic() > deadline:
            answer.left += [process.pid for process in ray]
            break
        time.sleep(0.02)
    _stop_ranks(where, guard_grace, answer)
    now = running(where)
    answer.left += [p.pid for p in (*now.supervisors, *now.controllers, *now.guards.values())]
    answer.left = sorted({pid for pid in answer.left if Identity.of(pid) is not None})
    return answer


def _stop_ranks(where: Places, grace: float, answer: Stopped) -> None:
    found = running(where)
    names = sorted({*found.guards, *found.orphans})
    for guard in found.guards.values():
        terminate(guard)
    deadline, quiet = time.monotonic() + grace, dict.fromkeys(found.guards, 0.0)
    while waiting := {name: guard for name, guard in found.guards.items() if guard.alive}:
        now = time.monotonic()
        busy = running(where).orphans
        for name, guard in waiting.items():
            quiet[name] = 0.0 if name in busy else quiet[name] or now
            if quiet[name] and now > quiet[name] + RECORD_GRACE:
                _kill([guard])
                answer.problems.append(f"how {name} ended is not recorded")
        if now > deadline:
            _kill(waiting.values())
            break
        time.sleep(0.1)
    for tag in {**found.orphans, **running(where).orphans}.values():
        while node_records.kill_left_over(tag, None):
            time.sleep(0.02)
    answer.ranks += names


def _kill(processes: Iterable[Identity]) -> None:
    for process in processes:
        descriptor = process.open()
        if descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)


def remove(paths: Iterable[Path]) -> Iterator[str]:
    """Remove files; a sentence for each that cannot be."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            yield f"cannot remove {path}: {error.strerror or error}"
