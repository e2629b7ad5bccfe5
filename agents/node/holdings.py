"""All that a node holds: its attempts, who has which GPU, and which messages come too late."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from agents.node.attempts import Attempt, job_of
from agents.node.guard import records
from agents.node.guard.closed import ClosedJobs
from agents.node.results.kept import USUAL, Kept, written_from
from agents.node.staging.caches import Bounds
from agents.node.staging.ledger import Ledger
from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.base.names import parse_key
from jobs.placement.gpus import gpus_of_rank
from jobs.wire.dataviews import DataPin
from jobs.wire.messages import Given, LaunchPlan, StopRequest

log = logging.getLogger(__name__)


class Holdings:
    """The attempts below `root/attempts`, as a dictionary that the disk can always rebuild."""

    def __init__(self, root: Path, ledger: Ledger, now: float, left: Bounds = USUAL) -> None:
        """`left`: bounds of what attempts that are over may leave here."""
        self._folder, self.trash = root / "attempts", root / "trash"
        for folder in (self._folder, self.trash):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self.kept = Kept(root, self.trash, left)
        self._ledger = ledger
        self._closed = ClosedJobs(root / "closed", now)
        self._attempts: dict[str, Attempt] = {}
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self._attempts.values())

    def get(self, key: str) -> Attempt | None:
        return self._attempts.get(key)

    @property
    def busy(self) -> bool:
        """Whether an attempt is here that is not over."""
        return any(attempt.standing.state != "ended" for attempt in self._attempts.values())

    def tag(self, key: str) -> str:
        """What marks an attempt's processes: two agents on one host may hold parts of one gang."""
        return f"{key}@{self._root}"

    def adopt(self, now: float, clock: float) -> None:
        """Take over what an earlier agent left on disk. Times as in `Attempt.refresh`."""
        for folder in sorted(self._folder.iterdir()):
            try:
                attempt = Attempt.load(folder)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.problems.append(f"{folder} cannot be read: {error}")
                continue
            if attempt is None:  # its maker died before it had told anyone of it
                self._throw_away(folder)
                continue
            self._attempts[attempt.key] = attempt
            try:
                attempt.refresh(now, clock)
                if attempt.staged and attempt.plan and attempt.standing.state != "ended":
                    self._ledger.restore(attempt.key, attempt.staged.gpus, attempt.plan["gpus"])
            except Exception as error:  # whatever a rank did to it, the others are adopted
                log.exception("adopting %s", attempt.key)
                self.problems.append(f"{folder} cannot be read: {error}")
            log.info("adopted %s: %s", attempt.key, attempt.standing.state)

    def refresh(
        self, now: float, clock: float, only: Collection[str] | None = None
    ) -> tuple[bool, bool]:
        """Look at all that is not over, or at those of them with the keys in `only`; (whether a
        standing changed, whether a file grew). Times as in `Attempt.refresh`."""
        changed = grew = False
        keys = list(self._attempts) if only is None else only
        found = [self._attempts[key] for key in keys if key in self._attempts]
        for attempt in [attempt for attempt in found if attempt.standing.state != "ended"]:
            try:
                news, more = attempt.refresh(now, clock)
            except Exception as error:  # the others are looked at all the same
                log.warning("cannot look at %s: %s", attempt.key, error)
                continue
            changed, grew = changed or news, grew or more
            if attempt.standing.state == "ended":
                self.settle(attempt)
        return changed, grew

    def settle(self, attempt: Attempt) -> None:
        """An attempt is over: give back what it held. Secrets that a failing disk keeps go with the
        folder."""
        self._ledger.release(attempt.key)
        with contextlib.suppress(OSError):
            (attempt.folder / records.SECRETS).unlink(missing_ok=True)

    def admit(self, plan: LaunchPlan) -> Attempt:
        """The attempt of a plan, made now if it is new.

        A newer epoch takes the key over from an attempt that never started. Raises Conflict when the
        plan is of the past, InvalidInput for a bad key, StorageFull.
        """
        key, epoch = plan["key"], plan["epoch"]
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.epoch < epoch:
            self._retire(attempt)
            attempt = None
        if attempt is None:
            self._check_epoch(key, epoch)
            attempt = self._attempts[key] = Attempt.create(self._folder / key, plan)
        elif epoch < attempt.epoch:
            raise _stale(key, epoch, attempt.epoch)
        return attempt

    def _retire(self, attempt: Attempt) -> None:
        if attempt.standing.state == "staged":
            attempt.refuse("a newer attempt took its place")
            attempt.refresh(0.0, 0.0)
        if attempt.standing.outcome != "refused":
            raise Conflict(f"{attempt.key} has started already with epoch {attempt.epoch}")
        self.settle(attempt)
        self._remove(attempt)

    def known(self, key: str, epoch: int) -> Attempt:
        """The attempt that a launch is for. Raises NotFound when it was not staged here, Conflict
        when the request is of the past."""
        attempt = self._attempts.get(key)
        if attempt is None:
            self._check_epoch(key, epoch)
            raise NotFound(f"{key} was not staged on this node", "Stage it first.")
        if epoch != attempt.epoch:
            raise _stale(key, epoch, attempt.epoch)
        self._check_epoch(key, epoch)
        return attempt

    def stopped(self, request: StopRequest) -> Attempt:
        """The attempt that a stop is for; one that is not known is noted as refused, so that a launch
        which comes late will not start it. Raises Conflict when the request is of the past."""
        key, epoch = request["key"], request["epoch"]
        attempt = self._attempts.get(key)
        if attempt is None:
            self._check_epoch(key, epoch)
            folder = self._folder / key
            attempt = Attempt.tombstone(folder, key, epoch, request["reason"])
            self._attempts[key] = attempt
        elif epoch < attempt.epoch:
            raise _stale(key, epoch, attempt.epoch)
        return attempt

    def _check_epoch(self, key: str, epoch: int) -> None:
        job = job_of(key)
        newest = max((a.epoch for a in self._attempts.values() if a.job == job), default=-1)
        if epoch < newest or epoch <= self._closed.epoch(job):
            raise _stale(key, epoch, max(newest, self._closed.epoch(job)))

    def given(self) -> dict[str, Given]:
        """By cluster, the highest numbers that were ever met here."""
        found: dict[str, Given] = {}
        here = [(attempt.job, attempt.epoch) for attempt in self._attempts.values()]
        for job, epoch in (*here, *self._closed):
            with contextlib.suppress(InvalidInput):  # a line that a failing disk has changed
                key = parse_key(f"{job}.0")
                known = found.setdefault(key.cluster, Given(job=0, epoch=0))
                known["job"] = max(known["job"], key.job)
                known["epoch"] = max(known["epoch"], epoch)
        return found

    def rival(self, attempt: Attempt) -> Attempt | None:
        """Another attempt of the same job that still runs here."""
        return next(
            (
                other
                for other in self._attempts.values()
                if other.job == attempt.job and other is not attempt and other.live
            ),
            None,
        )

    def ports(self) -> list[int]:
        """First ports given to attempts that are not over."""
        return [
            attempt.staged.port
            for attempt in self._attempts.values()
            if attempt.staged and attempt.staged.port and attempt.standing.state != "ended"
        ]

    def interpreters(self) -> list[str]:
        """Paths of those that attempts which are not over were given."""
        return [
            attempt.staged.python
            for attempt in self._attempts.values()
            if attempt.staged and attempt.staged.python and attempt.standing.state != "ended"
        ]

    def data(self) -> list[DataPin]:
        """Versions of data sets and models that attempts which are not over were given."""
        return [
            pin
            for attempt in self._attempts.values()
            if attempt.plan is not None and attempt.standing.state != "ended"
            for pins in (attempt.plan.get("data"), attempt.plan.get("models"))
            for pin in (pins or {}).values()
        ]

    def bound(self) -> dict[str, list[int]]:
        """GPU UUID -> pids of the ranks that it belongs to."""
        pids: dict[str, list[int]] = {}
        for attempt in filter(lambda attempt: attempt.live, self._attempts.values()):
            gpus = attempt.staged.gpus if attempt.staged else []
            ranks = [rank for rank in attempt.standing.ranks if rank["ended_at"] is None]
            for rank in ranks:
                for gpu in gpus_of_rank(gpus, len(attempt.standing.ranks), rank["local_rank"]):
                    pids.setdefault(gpu, []).append(rank["pid"])
        return pids

    def forget(self, keys: Iterable[str], now: float) -> bool:
        """Let go of attempts that are over; whether there were any. Raises OSError."""
        known = [self._attempts[key] for key in keys if key in self._attempts]
        over = [attempt for attempt in known if attempt.standing.state == "ended"]
        marks: dict[str, int] = {}
        for attempt in over:
            marks[attempt.job] = max(attempt.epoch, marks.get(attempt.job, -1))
        self._closed.close(marks, now)  # first: from here on a late message finds this
        for attempt in over:
            if attempt.left is not None:
                since = written_from(attempt.folder)
                self.kept.take(attempt.key, attempt.work, attempt.left, since, now)
            self._remove(attempt)
        return bool(over)

    def _remove(self, attempt: Attempt) -> None:
        # In this order: what cannot be removed now is still known, and removed the next time.
        if attempt.folder.exists():
            self._throw_away(attempt.folder)
        del self._attempts[attempt.key]

    def _throw_away(self, folder: Path) -> None:
        """Out of sight at once; `empty_trash` removes it."""
        folder.rename(self.trash / uuid.uuid4().hex)

    def tidy(self) -> None:
        """Remove what was forgotten, and what is not kept any longer. Blocking."""
        self.empty_trash()
        self.kept.tidy(time.time())

    def empty_trash(self) -> None:
        """Remove the folders of what was forgotten. Blocking, as long as large folders take."""
        for folder in self.trash.iterdir():
            shutil.rmtree(folder, ignore_errors=True)


def _stale(key: str, epoch: int, known: int) -> Conflict:
    return Conflict(
        f"a message for {key} with epoch {epoch} came too late: this node knows of epoch {known}",
        known=known,
    )
