"""One pass over a pipeline, written down in one transaction.

In the same transaction as a step begins, its job is entered: a controller that is killed before the
commit has started nothing, and one that is killed after it finds the job in the registry. The job's key
says which try of which step it is, so none is ever entered twice.

The store of blobs may be far away, and a pass waits for it nowhere: see `inputs.Shelf`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sqlmodel import Session

from agents.controller.flows.inputs import Lacking, Shelf
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.secretstore import SecretStore
from jobs.access.roles import Role
from jobs.base.errors import QuarterdeckError
from jobs.base.numbers import finite
from jobs.data.names import parse_ref
from jobs.features.names import parse_ref as parse_features
from jobs.features.names import pin_name
from jobs.flows import checks, conditions, fingerprint
from jobs.flows.acts import DataCheck
from jobs.flows.course import (
    BAD,
    ENDED,
    Decision,
    End,
    Task,
    TaskId,
    decide,
    judge,
)
from jobs.flows.references import Reference, filled, template
from jobs.flows.spec import CHECK_FILE, PipelineSpec, Step
from jobs.models.names import parse_ref as parse_model
from jobs.snapshots.manifest import Manifest
from jobs.spec.command import Scalar, as_text
from jobs.spec.job import JobSpec
from jobs.store import datasets, features, flowwriting, models, sweepwriting
from jobs.store import writing as registry
from jobs.store.entering import Entered, Entry, enter_jobs
from jobs.store.flowtables import PipelineRow
from jobs.store.flowwriting import Artifact, Place
from jobs.store.writing import Caller
from jobs.sweeps.spec import SweepSpec
from jobs.wire.views import EventView

AT_ONCE = 200
"""Tasks that start in one transaction: submissions of other people should not wait for thousands."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What a pass writes to beside the registry."""

    blobs: BlobStore
    secrets: SecretStore  # of pipelines
    job_secrets: SecretStore
    sweep_secrets: SecretStore


@dataclass(frozen=True, slots=True)
class Book:
    """What a run's engine knows before a pass."""

    number: int
    spec: PipelineSpec
    steered: int
    tasks: Mapping[str, tuple[Task, ...]]


@dataclass(frozen=True, slots=True)
class Made:
    """A job or a sweep that was made for a task."""

    task: TaskId
    spec: JobSpec | None = None
    entered: Entered | None = None
    sweep: int | None = None


@dataclass(slots=True)
class Passed:
    """What a pass has come to. `stale`: a person has changed something, and nothing was done."""

    decision: Decision | None = None
    tasks: dict[str, list[Task]] = field(default_factory=dict)
    changed: list[TaskId] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    events: list[EventView] = field(default_factory=list)
    stale: bool = False
    again: bool = False
    acts: bool = False  # a step has begun that the controller takes itself


_NEWS = re.compile(r"\{([a-z]+)\}")


class _Unresolved(Exception):
    """A reference yields nothing; the message says why."""


def advance(
    session: Session,
    stores: Stores,
    shelf: Shelf,
    book: Book,
    ends: Mapping[TaskId, End],
    now: float,
    *,
    dry: bool = False,
) -> Passed:
    """Take a run as far as it goes now.

    Args:
        ends: how the jobs and sweeps of tasks have ended.
        dry: make no job and no sweep; for a transaction that is taken back.

    Raises Lacking: nothing is to be written, and it is to be done again once the shelf has more.
    """
    row = flowwriting.get(session, book.number)
    if row.steered != book.steered:
        return Passed(stale=True)
    return _Pass(session, stores, shelf, book, row, now, dry).run(ends)


class _Pass:
    def __init__(
        self,
        session: Session,
        stores: Stores,
        shelf: Shelf,
        book: Book,
        row: PipelineRow,
        now: float,
        dry: bool,
    ) -> None:
        self._session, self._stores, self._row, self._now = session, stores, row, now
        self._shelf, self._dry = shelf, dry
        self._spec = book.spec
        self._who = Caller(row.user, row.uid, Role(row.role))
        self._tasks = {name: list(group) for name, group in book.tasks.items()}
        self._changes: dict[TaskId, dict[str, Any]] = {}
        self._made: list[Made] = []
        self._entries: list[tuple[Task, JobSpec, Entry]] = []
        self._sweeps: list[tuple[Task, SweepSpec, str | None]] = []
        self._instances: dict[str, list[dict[str, Scalar]]] = {}
        self._sources: dict[str, list[tuple[Place, dict[str, Artifact]]]] = {}
        self._demands = checks.demands(book.spec)
        self._acts = False

    def run(self, ends: Mapping[TaskId, End]) -> Passed:
        stopping = self._row.state == "STOPPING"
        for (name, number), end in ends.items():
            task = self._tasks[name][number]
            step = self._spec.steps[name]
            state, reason = judge(step, task, end, self._demands[name], stopping=stopping)
            if step.data_check is not None and state == "FAILED":
                reason = f"the data are not as expected, or could not be read: {reason}"
            ended_at = None if state == "WAITING" else self._now
            self._set(task, state=state, reason=reason, ended_at=ended_at)
            if end.left:
                self._changes[task.id]["result"] = {"left": dict(end.left)}
        run, started, more = flowwriting.run_of(self._row), 0, True
        decision = decide(self._spec, run, self._tasks, self._now, AT_ONCE)
        while more:
            more = self._act(decision)
            started += len(decision.start)
            if more:
                left = AT_ONCE - started
                decision = decide(self._spec, run, self._tasks, self._now, max(left, 0))
        self._shelf.check()
        if self._dry:
            return Passed(decision, self._tasks, list(self._changes))
        self._enter()
        self._create_sweeps()
        changes = [
            {"step": step, "number": number, **values}
            for (step, number), values in self._changes.items()
        ]
        flowwriting.save_tasks(self._session, self._row.id or 0, changes)
        events = self._move(decision)
        return Passed(
            decision,
            self._tasks,
            list(self._changes),
            self._made,
            events,
            again=started >= AT_ONCE,
            acts=self._acts,
        )

    def _set(self, task: Task, **values: Any) -> Task:
        """Change a task, here and in the registry."""
        self._changes.setdefault(task.id, {}).update(values)
        known = {key: values[key] for key in ("state", "reason", "tries") if key in values}
        new = replace(task, **known)
        self._tasks[task.step][task.number] = new
        return new

    def _act(self, decision: Decision) -> bool:
        """Do what was decided. True when it may allow for more at once."""
        for (name, number), reason in decision.skip:
            task = self._tasks[name][number]
            self._set(task, state="SKIPPED", reason=reason, ended_at=self._now)
        for name, number in decision.cancel:
            task = self._tasks[name][number]
            self._set(task, state="CANCELLED", reason=decision.reason, ended_at=self._now)
        over = bool(decision.skip or decision.cancel)
        for name, number in decision.start:
            over = self._start(self._tasks[name][number]) != "RUNNING" or over
        return over

    def _start(self, task: Task) -> str:
        """Begin a task whose needs are met; gives its new state."""
        step = self._spec.steps[task.step]
        try:
            values = self._values(step, task)
            if step.when is not None and not conditions.parse(step.when).holds(values):
                told = f"{step.when} does not hold"
                return self._set(task, state="SKIPPED", reason=told, ended_at=self._now).state
            return self._begin(step, task, values)
        except Lacking:  # on with the others: what they lack is brought with it
            return "RUNNING"
        except (_Unresolved, ValueError) as error:
            reason = str(error)
        except QuarterdeckError as error:
            reason = error.message
        return self._set(task, state="FAILED", reason=reason, ended_at=self._now).state

    def _begin(self, step: Step, task: Task, values: Mapping[str, Scalar]) -> str:
        if step.act is not None and not step.is_job:
            self._acts = True
            asked = {name: as_text(filled(v, values)) for name, v in step.act.texts().items()}
            if step.kind == "notify":
                asked["text"] = told(step.act.texts()["text"], values, self._told())
            nothing = {"job_id": None, "sweep_id": None, "result": {"asked": asked}}
            return self._running(task, None, **nothing)
        given = {name: filled(value, values) for name, value in step.params.items()}
        params = {**self._matrix(step, task), **given}
        snapshot = self._snapshot(step, task)
        if step.kind == "sweep":
            assert step.sweep is not None
            sweep = _sweep_spec(step.sweep, params, self._name(step, task))
            print_ = fingerprint.of_sweep(sweep.to_json(), snapshot)
            return self._cached(step, task, print_) or self._sweep(task, sweep, snapshot, print_)
        if step.kind == "notify":
            params = {**self._told(), **params}
        spec = self._job_spec(step, task, params, values)
        print_ = fingerprint.of_job(spec.to_json(), snapshot)
        if found := self._cached(step, task, print_):
            return found
        git = self._row.code.get(task.step, {}).get("git")
        submission = flowwriting.submission_of(self._row, task, spec, snapshot, git)
        self._entries.append((task, spec, Entry(submission, self._who, self._now)))
        more = {"result": {"left": {"data": spec.data["set"]}}} if step.data_check else {}
        wanted = None if step.kind == "notify" or not step.cache else print_
        return self._running(task, wanted, **more)

    def _running(self, task: Task, print_: str | None, **values: Any) -> str:
        return self._set(
            task,
            state="RUNNING",
            reason="",
            tries=task.tries + 1,
            fingerprint=print_,
            started_at=self._now,
            ended_at=None,
            taken_from=None,
            **values,
        ).state

    # -- what it runs -------------------------------------------------------------------------------

    def _name(self, step: Step, task: Task) -> str:
        name = f"{self._row.name[:30]}-{task.step[:25]}"
        return f"{name}-{task.number}" if step.matrix else name

    def _job_spec(
        self,
        step: Step,
        task: Task,
        params: Mapping[str, Scalar],
        references: Mapping[str, Scalar],
    ) -> JobSpec:
        base = step.base
        assert base is not None
        data = {**base.data, **step.data}
        if step.data_check is not None:
            data = {"set": step.data_check.data}
        named = {name: as_text(filled(text, references)) for name, text in data.items()}
        values = base.filled(params).model_dump(exclude_unset=True) | {
            "name": self._name(step, task),
            "tags": {**base.tags, "pipeline": f"p{self._row.id}", "step": task.step},
            "data": {name: self._pinned(text) for name, text in named.items()},
        }
        if base.models:
            values["models"] = {
                name: models.pin(self._session, parse_model(text))["version"]
                for name, text in base.models.items()
            }
        if base.features is not None:
            exact = features.pin(features.get(self._session, parse_features(base.features)))
            values["features"] = exact["version"].removeprefix(pin_name(""))
        if step.data_check is not None and base.python is None:
            values["python"] = sys.executable
        if step.timeout is not None:
            values["timeout"] = step.timeout
        return JobSpec.from_json(values)

    def _pinned(self, text: str) -> str:
        """The exact version of a data set as it is now: `digits` becomes `digits@3`."""
        return datasets.pin(datasets.get(self._session, parse_ref(text)))["version"]

    def _told(self) -> dict[str, Scalar]:
        """What a notification says."""
        bad = [task for group in self._tasks.values() for task in group if task.state in BAD]
        return {
            "pipeline": f"p{self._row.id}",
            "name": self._row.name,
            "state": "failed" if bad else "succeeded",
            "failed": " ".join(dict.fromkeys(task.step for task in bad)),
            "reason": bad[0].reason if bad else "",
        }

    def _snapshot(self, step: Step, task: Task) -> str | None:
        """The digest of the work folder with the step's inputs in it."""
        digest: str | None = self._row.code.get(task.step, {}).get("snapshot")
        sources: dict[str, Any] = {}
        for path, item in step.references:
            if item.form == "output":
                sources[str(path[1])] = self._output(item)
        if step.data_check is not None:
            return self._saved(self._expectations(step.data_check))
        if not sources:
            return digest
        return self._saved(self._shelf.laid(digest, sources))

    def _expectations(self, check: DataCheck) -> Manifest:
        """A folder with the file of what is expected."""
        data = json.dumps(check.expect.model_dump(mode="json", exclude_unset=True)).encode()
        return self._shelf.written(CHECK_FILE, data)

    def _saved(self, manifest: Manifest) -> str:
        """The digest of a manifest, which is noted as that of a snapshot."""
        if not self._dry:
            size = (len(manifest.files), manifest.total_bytes)
            registry.save_snapshot(self._session, manifest.digest, *size, self._now)
        return manifest.digest

    # -- results from before ------------------------------------------------------------------------

    def _cached(self, step: Step, task: Task, print_: str) -> str | None:
        """The task's new state, if there is an equal result from before."""
        if not step.cache or step.kind == "notify" or task.step in self._row.fresh:
            return None
        found = flowwriting.equal_result(self._session, self._row.uid, print_)
        if found is None:
            return None
        if found.job is not None:
            there = flowwriting.artifacts(self._session, [found.job])[found.job]
            logged = flowwriting.metrics(self._session, [found.job])[found.job]
            outputs, metrics = self._demands[task.step]
            whole = step.outputs.keys() <= there.keys() and self._shelf.present(there)
            if not (whole and outputs <= there.keys() and metrics <= logged.keys()):
                return None
        more = {"result": {"left": dict(found.left)}} if found.left else {}
        return self._set(
            task,
            state="CACHED",
            **more,
            reason=f"equal to its run in {flowwriting.pipeline_name(found.pipeline)}",
            job_id=found.job,
            sweep_id=found.sweep,
            taken_from=found.pipeline,
            fingerprint=print_,
            ended_at=self._now,
        ).state

    # -- values of references -----------------------------------------------------------------------

    def _values(self, step: Step, task: Task) -> dict[str, Scalar]:
        """What the references of a task yield, by their texts; those to outputs are left out."""
        matrix = self._matrix(step, task)
        found: dict[str, Scalar] = {}
        for _, item in step.references:
            if item.form == "param":
                found[item.text] = self._row.params[item.name]
            elif item.form == "matrix":
                found[item.text] = matrix[item.name]
            elif item.form == "pipeline":
                found[item.text] = f"p{self._row.id}" if item.name == "id" else self._row.name
            elif item.form != "output":
                found[item.text] = self._of_step(item)
        return found

    def _matrix(self, step: Step, task: Task) -> dict[str, Scalar]:
        """The values of the matrix for a task."""
        if not step.matrix:
            return {}
        if task.step not in self._instances:
            self._instances[task.step] = step.instances()
        return self._instances[task.step][task.number]

    def _of_step(self, item: Reference) -> Scalar:
        if item.form == "state":
            return self._state(item.step)
        if item.form == "left":
            return self._left(item)
        (place, _), *_ = self._results(item.step)
        if item.form == "job":
            if place.job is None and place.sweep is None:
                raise _Unresolved(f"{item.step} did not run, so it has no job")
            return f"j{place.job}" if place.job is not None else f"s{place.sweep}"
        self._must_have_succeeded(item)
        if item.form == "metric":
            assert place.job is not None
            value = flowwriting.metrics(self._session, [place.job])[place.job].get(item.name)
            if value is None:
                raise _Unresolved(f"{item.step} logged no {item.name}")
            return value
        assert place.sweep is not None
        best = flowwriting.best_of(self._session, place.sweep)
        if best is None or (item.form == "best" and item.name not in best.params):
            raise _Unresolved(f"the best trial of {item.step} has no {item.name}")
        if item.form == "best":
            found: Scalar = best.params[item.name]
            return found
        if finite(best.value) is None:
            raise _Unresolved(
                f"the best value of {item.step} is {best.value}, which no parameter is"
            )
        return best.value

    def _left(self, item: Reference) -> Scalar:
        self._must_have_succeeded(item)
        new = self._changes.get((item.step, 0), {}).get("result")
        left = (new or {}).get("left")
        if left is None:
            number = self._row.id or 0
            left = flowwriting.left_by(self._session, number, [item.step])[item.step, 0]
        if item.name not in left:
            raise _Unresolved(f"{item.step} left no {item.name}")
        return str(left[item.name])

    def _state(self, name: str) -> str:
        states = {task.state for task in self._tasks[name]}
        if states & BAD:
            return "failed" if "FAILED" in states else "cancelled"
        return "skipped" if states == {"SKIPPED"} else "succeeded"

    def _must_have_succeeded(self, item: Reference) -> None:
        for task in self._tasks[item.step]:
            if task.state not in ("SUCCEEDED", "CACHED"):
                was = "was left out" if task.left_out else f"is {task.state}"
                raise _Unresolved(f"it takes {item.text}, and {item.step} {was}")

    def _output(self, item: Reference) -> list[tuple[str, Artifact]] | tuple[str, Artifact]:
        """An output that a task takes: one, or all of a matrix."""
        self._must_have_succeeded(item)
        found = []
        for _, outputs in self._results(item.step):
            if item.name not in outputs:
                raise _Unresolved(f"{item.step} left no output {item.name}")
            found.append((item.name, outputs[item.name]))
        return found if self._spec.steps[item.step].matrix else found[0]

    def _results(self, name: str) -> list[tuple[Place, dict[str, Artifact]]]:
        """The places and outputs of all tasks of a step that is over."""
        if name not in self._sources:
            number = self._row.id or 0
            places = flowwriting.places_of(self._session, number, [name])
            for task in self._tasks[name]:  # of this pass, which are not written yet
                new = self._changes.get(task.id, {})
                if "job_id" in new or "sweep_id" in new:
                    places[task.id] = Place(new.get("job_id"), new.get("sweep_id"))
            jobs = [place.job for place in places.values() if place.job is not None]
            outputs = flowwriting.artifacts(self._session, jobs)
            self._sources[name] = [
                (place, outputs.get(place.job or 0, {}))
                for place in (places[task.id] for task in self._tasks[name])
            ]
        return self._sources[name]

    # -- starting -----------------------------------------------------------------------------------

    @cached_property
    def _secrets(self) -> dict[str, str]:
        return self._stores.secrets.load(self._row.id or 0)

    def _enter(self) -> None:
        """Enter the jobs of the tasks that start, all together."""
        entered = enter_jobs(self._session, [entry for _, _, entry in self._entries])
        for (task, spec, _), item in zip(self._entries, entered, strict=True):
            if spec.secrets and item.created:
                # Before the commit: see `submitting`.
                values = {name: self._secrets[name] for name in spec.secrets}
                self._stores.job_secrets.save(item.number, values)
            self._changes[task.id] |= {"job_id": item.number, "sweep_id": None}
            self._made.append(Made(task.id, spec, item))

    def _sweep(self, task: Task, spec: SweepSpec, snapshot: str | None, print_: str) -> str:
        self._sweeps.append((task, spec, snapshot))
        return self._running(task, print_ if self._spec.steps[task.step].cache else None)

    def _create_sweeps(self) -> None:
        for task, spec, snapshot in self._sweeps:
            row, created = sweepwriting.create(
                self._session,
                spec,
                self._who,
                self._now,
                key=flowwriting.task_key(self._row, task),
                snapshot=snapshot,
                git=self._row.code.get(task.step, {}).get("git"),
            )
            assert row.id is not None
            if created and spec.job.secrets:
                values = {name: self._secrets[name] for name in spec.job.secrets}
                self._stores.sweep_secrets.save(row.id, values)
            self._changes[task.id] |= {"job_id": None, "sweep_id": row.id}
            self._made.append(Made(task.id, sweep=row.id))

    def _move(self, decision: Decision) -> list[EventView]:
        row = self._row
        wanted = decision.state, decision.reason, decision.ending
        if wanted == (row.state, row.reason, row.ending):
            return []
        row.state, row.reason, row.ending = wanted
        events: list[EventView] = []
        if row.state in ENDED:
            row.ended_at = self._now
            kind = f"pipeline.{row.state.lower()}"
            events = flowwriting.note(
                self._session, row, kind, f"{row.state}: {row.reason}", self._now
            )
        self._session.add(row)
        return events


def told(text: str, values: Mapping[str, Scalar], news: Mapping[str, Scalar]) -> str:
    """A message with its references and what is to be told filled in, in one pass: neither is read again.

    Args:
        values: by the references' texts.
        news: what stands for `{state}` and the like.
    """

    def filled_in(part: str) -> str:
        return _NEWS.sub(lambda match: as_text(news.get(match[1], match[0])), part)

    return "".join(
        filled_in(part) if isinstance(part, str) else as_text(values[part.text])
        for part in template(text).parts
    )


def _sweep_spec(spec: SweepSpec, params: Mapping[str, Scalar], name: str) -> SweepSpec:
    data = spec.to_json()
    data["job"] = spec.job.filled(params).to_json()
    return SweepSpec.from_json({**data, "name": name})
