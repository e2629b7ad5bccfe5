"""Experiments and runs of an attempt, as MLflow's clients see them.

The first run that a rank makes is the job's own: its metrics, parameters and tags are those of our run. Its
id is the same in each attempt, on each node and for each rank. So a script may go on with it after a restart,
and may hand it to other ranks; each rank sees what it logged itself. What goes into further runs, nested or
not, is recorded under their names: `bald-ant-77/loss`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.node.tracking.errors import Refused, exists, invalid, missing
from agents.node.tracking.journal import Journal
from agents.node.tracking.points import MAX_FACTS, Point, Points

MAX_RUNS, MAX_EXPERIMENTS = 10_000, 1000

Entry = dict[str, Any]

_DEFAULT: Entry = {"id": "0", "name": "Default", "stage": "active", "at": 0, "changed": 0}


def now_ms() -> int:
    return int(time.time() * 1000)


def own_id(key: str) -> str:
    """The id of a job's own run, from an attempt's key."""
    return hashlib.sha256(b"mlflow-run:" + key.rpartition(".")[0].encode()).hexdigest()[:32]


class Runs:
    """One thread at a time. Methods raise Refused, and OSError when the disk takes nothing.

    Args:
        folder: the attempt's.
        key: the attempt's.
        ranks: those of this node.
    """

    def __init__(self, folder: Path, key: str, ranks: Sequence[int]) -> None:
        self.journal = Journal(folder / "tracking.jsonl")
        self.own = own_id(key)
        self._points = {rank: Points(folder / f"metrics-{rank}.jsonl") for rank in ranks}
        self._chosen: dict[int, str] = {}  # the experiment that a rank asked for last
        for ref, run in list(self.journal.of("run").items()):
            # What a tracker that was killed may have left undone.
            self._tell(run, self.journal.of(f"param {ref}"), self.journal.of(f"tag {ref}"))

    # -- experiments --------------------------------------------------------------------------------

    def experiments(self) -> dict[str, Entry]:
        return {"0": _DEFAULT, **self.journal.of("experiment")}

    def experiment(self, number: str) -> Entry:
        found = self.experiments().get(number)
        if found is None:
            raise missing(f"No Experiment with id={number[:100]} exists")
        return found

    def experiment_named(self, rank: int, name: str) -> Entry:
        for entry in self.experiments().values():
            if entry["name"] == name:
                self._chosen[rank] = entry["id"]
                return entry
        raise missing(f"Could not find experiment with name '{name[:200]}'")

    def create_experiment(self, rank: int, name: str, tags: Entry) -> str:
        known = self.experiments()
        if any(entry["name"] == name for entry in known.values()):
            raise exists(f"Experiment '{name[:200]}' already exists.")
        if len(known) >= MAX_EXPERIMENTS:
            raise Refused(
                400, "RESOURCE_LIMIT_EXCEEDED", f"A job has {MAX_EXPERIMENTS} experiments"
            )
        number, at = str(len(known)), now_ms()
        entry = {**_DEFAULT, "id": number, "name": name, "at": at, "changed": at}
        tagged = [(f"experiment-tag {number}", key, value) for key, value in tags.items()]
        self.journal.put(("experiment", number, entry), *tagged)
        self._chosen[rank] = number
        return number

    def change_experiment(self, number: str, **changes: Any) -> None:
        entry = {**self.experiment(number), **changes, "changed": now_ms()}
        self.journal.put(("experiment", number, entry))

    # -- runs ---------------------------------------------------------------------------------------

    def create(self, rank: int, given: Entry, tags: dict[str, str]) -> Entry:
        """A new run: the job's own, if the rank has none yet and this one has no parent.

        Args:
            given: `experiment`, `name`, `user` and `start` (ms).
        """
        self.experiment(given["experiment"])
        runs = self.journal.of("run")
        first = f"{rank}/{self.own}" not in runs and "mlflow.parentRunId" not in tags
        if len(runs) >= MAX_RUNS:
            raise Refused(
                400, "RESOURCE_LIMIT_EXCEEDED", f"A job has {MAX_RUNS} runs of MLflow's at most"
            )
        number = self.own if first else uuid.uuid4().hex
        # Not by chance, as MLflow has it: the curves of a later attempt go on under the same names.
        nameless = f"run-{1 + sum(run['rank'] == rank for run in runs.values())}"
        name = tags.get("mlflow.runName") or given["name"] or nameless
        run = {
            **given,
            "id": number,
            "name": name,
            "rank": rank,
            "status": "RUNNING",
            "end": None,
            "stage": "active",
            "prefix": "" if first else self._prefix(name),
        }
        ref = f"{rank}/{number}"
        tags = {**tags, "mlflow.runName": name}
        tagged = [(f"tag {ref}", key, value) for key, value in tags.items()]
        self.journal.put(("run", ref, run), *tagged)
        self._tell(run, {}, tags)
        return run

    def _prefix(self, name: str) -> str:
        """A name of its own for a run, as a folder and before the names of its metrics."""
        plain = re.sub(r"[^\w.\- :]", "_", name)[:80].strip(" .") or "run"
        taken = {run["prefix"] for run in self.journal.of("run").values()}
        count, found = 1, f"{plain}/"
        while found in taken:
            count += 1
            found = f"{plain}-{count}/"
        return found

    def run(self, rank: int, number: str) -> Entry:
        """A run by its id. The job's own is there from the beginning."""
        runs = self.journal.of("run")
        if number == self.own:
            found: Entry | None = runs.get(f"{rank}/{number}")
            if found is not None:
                return found
            chosen = self._chosen.get(rank, "0")
            given = {"experiment": chosen, "name": "", "user": "", "start": now_ms()}
            return self.create(rank, given, {})
        for run in runs.values():
            if run["id"] == number:
                return dict(run)
        raise missing(f"Run with id={number[:100]} not found")

    def all(self, rank: int) -> list[Entry]:
        """All runs that a rank sees, the newest first."""
        found = [
            run
            for run in self.journal.of("run").values()
            if run["rank"] == rank or run["id"] != self.own
        ]
        return found[::-1]

    def change(self, run: Entry, **changes: Any) -> Entry:
        new = {**run, **changes}
        entries = [("run", _ref(run), new)]
        if new["name"] != run["name"]:
            entries.append((f"tag {_ref(run)}", "mlflow.runName", new["name"]))
        self.journal.put(*entries)
        return new

    def active(self, rank: int, number: str) -> Entry:
        """A run that may be written to."""
        run = self.run(rank, number)
        if run["stage"] != "active":
            raise invalid(
                f"The run {number} must be in the 'active' state. Current state is deleted."
            )
        return run

    # -- what is in a run ---------------------------------------------------------------------------

    def log(
        self,
        run: Entry,
        points: Sequence[Point],
        params: Sequence[tuple[str, str]],
        tags: Sequence[tuple[str, str]],
        request: bytes,
    ) -> None:
        """Store a batch; what was acknowledged is on disk. See `Points.log` for `request`."""
        ref = _ref(run)
        known = self.journal.of(f"param {ref}")
        given: dict[str, str] = {}
        for key, value in params:
            old = given.get(key, known.get(key, value))
            if old != value:
                raise invalid(
                    f"Changing param values is not allowed. Param with key='{key}' was already logged with"
                    f" value='{old[:200]}' for run ID='{run['id']}'. Attempted logging new value"
                    f" '{value[:200]}'."
                )
            given[key] = value
        new = [(f"param {ref}", key, value) for key, value in given.items() if key not in known]
        told = self.points(run).told + len(new) + len(tags)
        if not run["prefix"] and new and told > MAX_FACTS:
            raise Refused(
                400,
                "RESOURCE_LIMIT_EXCEEDED",
                f"A run has {MAX_FACTS} parameters and tags at most; '{new[-1][1]}' is one more",
            )
        self.journal.put(*new, *[(f"tag {ref}", key, value) for key, value in tags])
        if points:
            self.points(run).log(run["id"], run["prefix"], points, request)
        if params or tags:
            self._tell(run, given, dict(tags))

    def delete_tag(self, run: Entry, key: str) -> None:
        ref = _ref(run)
        if key not in self.journal.of(f"tag {ref}"):
            raise missing(f"No tag with name: {key} in run with id {run['id']}")
        self.journal.put((f"tag {ref}", key, None))
        if _own_tag(run, key):
            self.points(run).tell([("tag", key, None)])

    def _tell(self, run: Entry, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Pass on what the registry is to know: parameters of all runs, tags of the job's own."""
        facts: list[tuple[str, str, str | None]] = [
            ("param", run["prefix"] + key, value) for key, value in params.items()
        ]
        facts += [("tag", key, value) for key, value in tags.items() if _own_tag(run, key)]
        self.points(run).tell(facts)

    def points(self, run: Entry) -> Points:
        return self._points[run["rank"]]

    def tags(self, run: Entry) -> dict[str, str]:
        return self.journal.of(f"tag {_ref(run)}")

    def params(self, run: Entry) -> dict[str, str]:
        return self.journal.of(f"param {_ref(run)}")

    def note(self, kind: str, run: Entry, entries: dict[str, Entry]) -> None:
        """Inputs and outputs of a run, by what makes each the same one."""
        ref = _ref(run)
        if len(self.journal.of(f"{kind} {ref}")) + len(entries) > MAX_FACTS:
            raise Refused(400, "RESOURCE_LIMIT_EXCEEDED", f"A run has {MAX_FACTS} {kind}s at most")
        self.journal.put(*[(f"{kind} {ref}", key, value) for key, value in entries.items()])

    def noted(self, kind: str, run: Entry) -> list[Entry]:
        return list(self.journal.of(f"{kind} {_ref(run)}").values())

    def add_model_json(self, run: Entry, text: str) -> None:
        """What a client of MLflow 2 says of a model that it has put into the run's artifacts."""
        try:
            model = json.loads(text)
        except (ValueError, RecursionError):
            raise invalid("Malformed model info: it is no JSON") from None
        tag = "mlflow.log-model.history"
        history = json.loads(self.tags(run).get(tag, "[]"))[-99:]
        value = json.dumps([*history, model])
        self.journal.put((f"tag {_ref(run)}", tag, value))


def _ref(run: Entry) -> str:
    return f"{run['rank']}/{run['id']}"


def _own_tag(run: Entry, key: str) -> bool:
    """MLflow's own tags say who and where, which the registry knows, and can be long."""
    return not run["prefix"] and not key.startswith("mlflow.")
