"""What is done of a run: a folder beside its results.

    OUT/.quarterdeck/plan.json            what the run is: files, model, options, units
    OUT/.quarterdeck/done/part-000017     a unit's results are there: how many rows, how many bad ones
    OUT/.quarterdeck/claims/j4.1/part-..  who works on what, in one attempt

An entry is written after its results were renamed to their names. So a unit without one is done again, over
what there may be of it, and a unit with one never.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .units import Source, Unit, cut

FOLDER = ".quarterdeck"
_POLL = 0.1


class Ledger:
    """Args:
    out: folder of the results.
    attempt: names those who share the work now; another attempt's claims mean nothing.
    """

    def __init__(self, out: Path, attempt: str) -> None:
        self.out, self._folder = out, out / FOLDER
        self._done, self._claims = self._folder / "done", self._folder / "claims" / attempt
        self._known: dict[str, dict[str, int]] = {}

    def open(
        self, about: dict[str, Any], sources: list[Source], size: int, *, first: bool
    ) -> list[Unit]:
        """The units of the run.

        Args:
            about: model and options, which are the same as long as it is the same run.
            size: bytes of a unit.
            first: whether this rank makes the plan, if there is none.

        Raises SystemExit: the folder has something else.
        """
        what = json.loads(json.dumps(about | {"files": [asdict(source) for source in sources]}))
        file = self._folder / "plan.json"
        if first and not file.exists():
            if self.out.is_dir() and any(path.name != FOLDER for path in self.out.iterdir()):
                raise SystemExit(f"{self.out} is not empty; choose another folder")
            self._done.mkdir(parents=True, exist_ok=True)
            units = [asdict(unit) for unit in cut(sources, size)]
            write(file, json.dumps({"what": what, "units": units}).encode())
        while not file.exists():
            time.sleep(_POLL)
        plan = json.loads(file.read_bytes())
        if plan["what"] != what:
            changed = next((key for key in what if plan["what"].get(key) != what[key]), "files")
            raise SystemExit(
                f"{self.out} has the results of another run ({changed} differs); choose another folder"
            )
        self._claims.mkdir(parents=True, exist_ok=True)
        return [Unit(**unit) for unit in plan["units"]]

    def claim(self, unit: Unit) -> bool:
        """Whether this rank is to do a unit: it is not done, and nobody else of the attempt does it."""
        if (self._done / unit.name).exists():
            return False
        try:
            os.close(os.open(self._claims / unit.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True

    def enter(self, unit: Unit, rows: int, bad: int) -> None:
        """A unit's results are at their place."""
        write(self._done / unit.name, json.dumps({"rows": rows, "bad": bad}).encode())

    def done(self) -> dict[str, dict[str, int]]:
        """Unit -> its entry."""
        for name in (path.name for path in self._done.iterdir()):
            if name not in self._known and not name.endswith(".new"):
                self._known[name] = json.loads((self._done / name).read_bytes())
        return self._known

    def close(self, summary: dict[str, Any]) -> None:
        """All is done: say so, and remove what was for the work only."""
        write(self.out / "summary.json", json.dumps(summary, indent=1).encode() + b"\n")
        shutil.rmtree(self._folder / "claims", ignore_errors=True)
        for left in self.out.rglob("*.new"):
            left.unlink(missing_ok=True)


def write(path: Path, data: bytes) -> None:
    """A file that is whole or not there, whatever happens."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    put(beside, path)


def put(beside: Path, path: Path) -> None:
    """Rename a whole file to its place, durably."""
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems do not
            os.fsync(folder)
    finally:
        os.close(folder)


def digest(path: Path) -> str:
    """sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
