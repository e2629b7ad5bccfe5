"""Logs, metrics and events as streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from agents.controller.api.access import VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import (
    Lines,
    Number,
    Octets,
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
from agents.controller.stores import search
from agents.controller.stores.logread import LogQuery, LogReader, batches, follow
from jobs.base.errors import InvalidInput, NotFound
from jobs.base.names import RunRef, job_name
from jobs.base.states import TERMINAL
from jobs.metrics.series import between, in_order, one_curve, standing_out
from jobs.store import metricpoints
from jobs.store import reading as queries
from jobs.wire.views import EventView, LogLine, MetricPoint, SeriesPoint

router = APIRouter(route_class=BoundedRoute)

_POLL = 1.0
"""Seconds after which a follower looks again even without a hint."""
_PAGE = 1000
_RAW_LIMIT = 4 << 20
"""Bytes of a log that are given to who names no limit."""
MAX_TAIL = 100_000
"""Lines. They are all held at once; whoever wants more reads on from an offset, or from a time."""


Names = Annotated[list[str] | None, Query(max_length=1000)]
Moment = Annotated[float | None, Query(ge=0, le=1e11)]


@router.get("/jobs/{job}/logs", response_class=Lines, dependencies=[VIEWER])
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
        await controller.logs.run_reader(search.check, grep)
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


@router.get("/jobs/{job}/logs/{rank}/raw", response_class=Octets, dependencies=[VIEWER])
async def raw(
    job: str,
    rank: Annotated[int, Path(lt=2**63)],
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


@router.get("/jobs/{job}/metrics", response_class=Lines, dependencies=[VIEWER])
async def metrics(
    job: str,
    controller: TheController,
    name: Names = None,
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
        async for point in _earlier(controller, job, attempt, names):
            yield point
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
                            metricpoints.metric_points,
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


async def _earlier(
    controller: Controller, job: int, attempt: int | None, names: list[str]
) -> AsyncIterator[MetricPoint]:
    """What attempts before the newest logged, but for the steps that were trained again since; nothing
    when one attempt is asked for."""
    epochs = await controller.db.read(lambda s: queries.epochs_of(s, job, attempt))
    later = [await controller.db.read(partial(metricpoints.spans, epoch=e)) for e in epochs[1:]]
    for number, epoch in enumerate(epochs[:-1]):
        after = 0
        while True:
            points, after = await controller.db.read(
                partial(
                    metricpoints.metric_points, epoch=epoch, names=names, after=after, limit=_PAGE
                )
            )
            for point in points:
                places = (spans.get((point["name"], point["rank"])) for spans in later[number:])
                if not any(place and place[0] <= point["step"] <= place[1] for place in places):
                    yield point
            if len(points) < _PAGE:
                break


@router.get("/jobs/{job}/series", dependencies=[VIEWER])
async def series(
    job: str,
    controller: TheController,
    name: Names = None,
    points: Annotated[int, Query(ge=2, le=5000)] = 200,
    since: Moment = None,
    until: Moment = None,
) -> dict[str, list[SeriesPoint]]:
    """Each metric as a line of about so many points, with the extremes of every stretch. `since` and `until`
    are unix times: of what was logged between them, and one point beyond either, as many as of the whole."""
    ref = await resolve(controller, job)

    def read(session: Session) -> tuple[dict[str, Any], list[dict[str, list[SeriesPoint]]]]:
        epochs = queries.epochs_of(session, ref.job, ref.attempt)
        found = [metricpoints.series(session, epoch, name or []) for epoch in epochs]
        return queries.get_job(session, ref.job).spec, found

    spec, attempts = await controller.db.read(read)
    objective = (spec.get("objective") or {}).get("metric")
    names = in_order({name for lines in attempts for name in lines}, objective)
    return await asyncio.to_thread(
        lambda: {
            name: _thinned(
                between(one_curve([lines.get(name, []) for lines in attempts]), since, until),
                points,
            )
            for name in names
        }
    )


def _thinned(line: list[SeriesPoint], points: int) -> list[SeriesPoint]:
    """At most about `points` of a line, with the extremes of every stretch."""
    if len(line) <= points:
        return line
    finite = [point for point in line if point["value"] is not None]
    pairs = [(float(point["step"]), point["value"] or 0.0) for point in finite]
    return [finite[n] for n in standing_out(pairs, max(points // 4, 1))]


@router.get("/events", response_class=Lines, dependencies=[VIEWER])
async def events(
    controller: TheController,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 200,
    job: str | None = None,
    follow_: Annotated[bool, Query(alias="follow")] = False,
    before: Number | None = None,
    text: Annotated[str, Query(max_length=200)] = "",
    level: Literal["all", "warning", "error"] = "all",
) -> StreamingResponse:
    number = (await resolve(controller, job)).job if job else None
    if before is None and not text and level == "all":
        return ndjson(_events(controller, after, limit, number, follow_))
    if follow_:
        raise InvalidInput("follow: not with before, text or level", "Choose while you read.")
    severities = {"all": (), "warning": ("warning", "error"), "error": ("error",)}[level]

    def read(session: Session) -> list[EventView]:
        return queries.events(
            session,
            after,
            limit,
            number,
            newest=after == 0,
            before=before,
            text=text,
            severities=severities,
        )

    return ndjson(_each(await controller.db.read(read)))


async def _each(found: list[EventView]) -> AsyncIterator[EventView]:
    for event in found:
        yield event


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
