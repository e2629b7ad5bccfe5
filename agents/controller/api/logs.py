"""Logs, metrics and events as streams."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from agents.controller import search
from agents.controller.api.common import (
    TheController,
    in_thread,
    ndjson,
    ndjson_batches,
    resolve,
    time_argument,
    woken,
)
from agents.controller.api.files import FileStretches, Stretch
from agents.controller.controller import Controller
from agents.controller.logread import LogQuery, LogReader, batches, follow
from jobs import metricstore, queries
from jobs.errors import InvalidInput, NotFound
from jobs.names import RunRef, job_name
from jobs.series import decimate
from jobs.states import TERMINAL
from jobs.views import EventView, LogLine, MetricPoint, SeriesPoint

router = APIRouter()

_POLL = 1.0
"""Seconds after which a follower looks again even without a hint."""
_PAGE = 1000
_RAW_LIMIT = 4 << 20
"""Bytes of a log that are given to who names no limit."""
MAX_TAIL = 100_000
"""Lines. They are all held at once; whoever wants more reads on from an offset, or from a time."""

Number = Annotated[int, Query(ge=0, lt=2**63)]
"""As large as files and databases count."""


@router.get("/jobs/{job}/logs", response_class=StreamingResponse)
async def logs(
    job: str,
    controller: TheController,
    attempt: Number | None = None,
    rank: Number | None = None,
    since: str | None = None,
    tail: Annotated[int | None, Query(ge=0, le=MAX_TAIL)] = None,
    grep: Annotated[str | None, Query(max_length=1000)] = None,
    offset: Number | None = None,
    follow_: Annotated[bool, Query(alias="follow")] = False,
) -> StreamingResponse:
    ref = await _run(controller, job, attempt)
    number = ref.attempt
    chosen = rank if rank is not None else ref.rank
    if offset is not None and chosen is None:
        raise InvalidInput("offset: needs a rank", "Each rank has a log of its own: rank=0.")
    view = await controller.job_view(ref.job)
    if chosen is not None and chosen >= view["ranks"]:
        raise NotFound(f"{job} has no rank {chosen}", f"Its ranks are 0 to {view['ranks'] - 1}.")
    if grep is not None:
        search.check(grep)
    moment = time_argument("since", since)

    def reader(of: int) -> LogReader:
        first = of == started
        return LogReader(
            controller.logs,
            LogQuery(
                job=ref.job,
                attempt=of,
                rank=chosen,
                since=moment,
                tail=tail if first else None,
                grep=grep,
                offset=offset if first else None,
            ),
        )

    started = number or max(view["attempt"], 1)
    if not follow_:
        over = await _attempt_over(controller, ref.job, started)
        return ndjson_batches(_all(controller, reader(started), final=over))
    return ndjson_batches(_follow(controller, ref.job, started, reader, pinned=number is not None))


async def _run(controller: Controller, job: str, attempt: int | None) -> RunRef:
    """What `job` names, with `attempt` in place of its own. Raises as `resolve`."""
    ref = await resolve(controller, job)
    if attempt is None:
        return ref
    await resolve(controller, f"{job_name(ref.job)}.{attempt}")
    return replace(ref, attempt=attempt)


async def _all(
    controller: Controller, reader: LogReader, *, final: bool
) -> AsyncIterator[list[LogLine]]:
    with contextlib.closing(reader):
        async for batch in batches(reader, final=final, run=in_thread(controller)):
            yield batch


async def _follow(
    controller: Controller,
    job: int,
    attempt: int,
    reader: Callable[[int], LogReader],
    *,
    pinned: bool,
) -> AsyncIterator[list[LogLine]]:
    """Follow an attempt, and the ones that come after it unless one was named."""
    name = job_name(job)
    subscription = controller.hub.subscribe([f"log:{name}", f"job:{name}"], hints_only=True)

    async def changed() -> None:
        await woken(subscription, _POLL)

    try:
        while True:
            current = attempt

            async def ended(of: int = current) -> bool:
                return await _attempt_over(controller, job, of)

            with contextlib.closing(reader(attempt)) as reading:
                async for batch in follow(
                    reading, ended=ended, changed=changed, run=in_thread(controller)
                ):
                    yield batch
            view = await controller.job_view(job)
            while not pinned and view["state"] not in TERMINAL and view["attempt"] <= attempt:
                await changed()
                view = await controller.job_view(job)
            if pinned or view["attempt"] <= attempt:
                return
            attempt += 1
    finally:
        controller.hub.unsubscribe(subscription)


async def _attempt_over(controller: Controller, job: int, attempt: int) -> bool:
    """Whether an attempt has ended; its logs are complete then."""
    view = await controller.job_view(job)
    if view["state"] in TERMINAL or view["attempt"] > attempt:
        return True
    live = controller.reconciler.live.get(job)
    current = live.job.attempt if live is not None else None
    return current is not None and current.number == attempt and current.ended_at is not None


@router.get("/jobs/{job}/logs/{rank}/raw")
async def raw(
    job: str,
    rank: int,
    controller: TheController,
    attempt: Number | None = None,
    offset: Number = 0,
    limit: Annotated[int, Query(ge=1, lt=2**63)] = _RAW_LIMIT,
    follow_: Annotated[bool, Query(alias="follow")] = False,
) -> StreamingResponse:
    ref = await _run(controller, job, attempt)
    view = await controller.job_view(ref.job)
    if not 0 <= rank < view["ranks"]:
        raise NotFound(f"{job} has no rank {rank}", f"Its ranks are 0 to {view['ranks'] - 1}.")
    number = ref.attempt or max(view["attempt"], 1)
    size = controller.logs.size(ref.job, number, rank)
    headers = {"X-Size": str(size)}
    stretches: AsyncIterator[Stretch]
    if follow_:
        stretches = _raw_follow(controller, ref.job, number, rank, offset)
    else:
        end = max(offset, min(offset + limit, size))
        headers["Content-Length"] = str(end - offset)
        stretches = _just((offset, end))
    opened = partial(controller.logs.run_reader, controller.logs.open, ref.job, number, rank)
    return FileStretches(opened, stretches, headers)


async def _just(stretch: Stretch) -> AsyncIterator[Stretch]:
    yield stretch


async def _raw_follow(
    controller: Controller, job: int, attempt: int, rank: int, offset: int
) -> AsyncIterator[Stretch]:
    """A log from an offset on, until its attempt has ended."""
    name = job_name(job)
    subscription = controller.hub.subscribe([f"log:{name}", f"job:{name}"], hints_only=True)
    try:
        while True:
            over = await _attempt_over(controller, job, attempt)  # asked before: see logread.follow
            end = controller.logs.size(job, attempt, rank)
            if offset < end:
                yield offset, end
                offset = end
            if over:
                return
            await woken(subscription, _POLL)
    finally:
        controller.hub.unsubscribe(subscription)


@router.get("/jobs/{job}/metrics", response_class=StreamingResponse)
async def metrics(
    job: str,
    controller: TheController,
    name: Annotated[list[str] | None, Query()] = None,
    follow_: Annotated[bool, Query(alias="follow")] = False,
) -> StreamingResponse:
    ref = await resolve(controller, job)
    return ndjson(_metrics(controller, ref.job, ref.attempt, name or [], follow_))


async def _metrics(
    controller: Controller, job: int, attempt: int | None, names: list[str], follow_: bool
) -> AsyncIterator[MetricPoint]:
    subscription = controller.hub.subscribe(
        [f"metrics:{job_name(job)}", f"job:{job_name(job)}"], hints_only=True
    )
    after, at_epoch = 0, None
    try:
        while True:
            view = await controller.job_view(job)
            found = await controller.db.read(lambda s: queries.epoch_of(s, job, attempt))
            if found is not None:
                if found[0] != at_epoch:
                    after, at_epoch = 0, found[0]
                epoch = found[0]
                while True:
                    points, after = await controller.db.read(
                        partial(
                            metricstore.metric_points,
                            epoch=epoch,
                            names=names,
                            after=after,
                            limit=_PAGE,
                        )
                    )
                    for point in points:
                        yield point
                    if len(points) < _PAGE:
                        break
            if not follow_ or view["state"] in TERMINAL:
                return
            await woken(subscription, _POLL)
    finally:
        controller.hub.unsubscribe(subscription)


@router.get("/jobs/{job}/series")
async def series(
    job: str,
    controller: TheController,
    name: Annotated[list[str] | None, Query()] = None,
    points: Annotated[int, Query(ge=2, le=5000)] = 200,
) -> dict[str, list[SeriesPoint]]:
    ref = await resolve(controller, job)
    found = await controller.db.read(lambda s: queries.epoch_of(s, ref.job, ref.attempt))
    if found is None:
        return {}
    lines = await controller.db.read(lambda s: metricstore.series(s, found[0], name or []))
    return {name: _thinned(line, points) for name, line in lines.items()}


def _thinned(line: list[SeriesPoint], points: int) -> list[SeriesPoint]:
    """At most about `points` of a line, with the extremes of every stretch."""
    if len(line) <= points:
        return line
    finite = [(float(i), p["value"]) for i, p in enumerate(line) if p["value"] is not None]
    return [line[int(x)] for x, _ in decimate(finite, max(points // 4, 1))]


@router.get("/events", response_class=StreamingResponse)
async def events(
    controller: TheController,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 200,
    job: str | None = None,
    follow_: Annotated[bool, Query(alias="follow")] = False,
) -> StreamingResponse:
    number = (await resolve(controller, job)).job if job else None
    return ndjson(_events(controller, after, limit, number, follow_))


async def _events(
    controller: Controller, after: int, limit: int, job: int | None, follow_: bool
) -> AsyncIterator[EventView]:
    subscription = controller.hub.subscribe(["events"], hints_only=True)
    try:
        while True:
            start = after

            def read(session: Session, since: int = start) -> list[EventView]:
                # Without a point to start from, people want the newest ones.
                return queries.events(session, since, limit, job, newest=since == 0)

            page = await controller.db.read(read)
            for event in page:
                yield event
                after = event["id"]
            if not follow_:
                return
            if len(page) < limit or start == 0:
                await woken(subscription, _POLL)
    finally:
        controller.hub.unsubscribe(subscription)
