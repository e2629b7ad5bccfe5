"""`python -m agents.archive backup|verify|restore|export|import`: what `qd backup` calls when no controller
answers, and `qd restore`, `qd export --all` and `qd import` call always. stdout gets one JSON document,
stderr what is done; a failure is `{"error": ...}` as the API writes it, and its exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agents.controller.stores import auditheads, backup, manifest, moving, restore
from agents.node.guard.records import lock_holder
from agents.supervisor import record as records
from jobs.base.errors import Conflict, QuarterdeckError
from jobs.base.places import Places, places
from jobs.wire.backupviews import BackupView, MovedView, RestoreView

if TYPE_CHECKING:
    from sqlalchemy import MetaData


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def make(where: Places, dest: Path | None, secrets: bool) -> BackupView:
    """A backup of a state folder whose controller does not run."""
    now = time.time()
    target = dest or backup.default_place(where.state, now)
    found = backup.make(where.state, _url(where), target, secrets=secrets, now=now, say=say)
    return manifest.summary(target, found)


def put_back(where: Places, source: Path, verify: bool) -> RestoreView:
    """Check a backup and, unless only that is asked for, put it in the state folder's place.

    Raises Conflict while the cluster runs, and whatever `restore.check` and `restore.lay_out` do.
    """
    if verify:
        found = restore.check(source, say)
        return {**manifest.summary(source, found), "restored": False, "before": None}
    with _stopped(where):
        found = restore.check(source, say)
        url = os.environ.get("QD_DATABASE_URL") or None
        before = restore.lay_out(source, found, where.state, url, time.time(), say)
    kept = None if before is None else str(before)
    return {**manifest.summary(source, found), "restored": True, "before": kept}


def write(where: Places, target: Path) -> MovedView:
    """Write the registry of a cluster that does not run to a file. Raises as `moving.export`."""
    with _stopped(where):
        return moving.export(_url(where), target, _heads(where), _optuna, say)


def take(where: Places, source: Path) -> MovedView:
    """Put such a file in the place of a registry that is empty. Raises as `moving.load`."""
    with _stopped(where):
        return moving.load(source, _url(where), _heads(where), _optuna, say)


def _url(where: Places) -> str:
    return os.environ.get("QD_DATABASE_URL") or f"sqlite:///{where.database}"


def _heads(where: Places) -> str:
    """What was written down of the audit log beside the registry."""
    file = where.state / auditheads.FILE
    return file.read_text("utf-8", "replace") if file.is_file() else ""


def _optuna() -> MetaData:
    from agents.controller.sweeps import studyrows  # and with it Optuna, which takes a second

    return studyrows.tables()


@contextlib.contextmanager
def _stopped(where: Places) -> Iterator[None]:
    """Nothing of the cluster runs, and nothing starts meanwhile. Raises Conflict."""
    where.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(where.state / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        running = ""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = "its supervisor"
        record = records.read(where.cluster_file)
        known = records.processes(record) if record else {}
        alive = [name for name, process in known.items() if process and process.alive]
        if lock_holder(str(where.controller_lock)) is not None:
            alive.append("controller")
        running = running or ", ".join(sorted(set(alive)))
        if running:
            raise Conflict(
                f"the cluster of {where.state} runs ({running})",
                "Stop it first: `qd down`, or `systemctl stop` of its service.",
            )
        yield
    finally:
        os.close(lock)


_OF_A_FILE: dict[str, Callable[[Places, Path], RestoreView | MovedView]] = {
    "verify": lambda where, source: put_back(where, source, verify=True),
    "restore": lambda where, source: put_back(where, source, verify=False),
    "export": write,
    "import": take,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m agents.archive")
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("backup")
    making.add_argument("--dest", type=Path)
    making.add_argument("--secrets", action="store_true")
    for verb in _OF_A_FILE:
        verbs.add_parser(verb).add_argument("file", type=Path)
    asked = parser.parse_args()
    try:
        answer: BackupView | RestoreView | MovedView
        if asked.verb == "backup":
            answer = make(places(), asked.dest, asked.secrets)
        else:
            answer = _OF_A_FILE[asked.verb](places(), asked.file)
    except QuarterdeckError as error:
        sys.stdout.write(json.dumps(error.to_json()))
        return error.exit_code
    except OSError as error:
        told = Conflict(f"the state folder cannot be used: {error}")
        sys.stdout.write(json.dumps(told.to_json()))
        return told.exit_code
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
