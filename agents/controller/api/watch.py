"""`GET /v1/watch`: revisioned deltas of what a screen shows, one NDJSON stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import cast

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from agents.controller.api.access import VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import (
    Lines,
    TheController,
    ndjson_batches,
    resolve,
    resolve_sweep,
    trial_pages,
)
from agents.controller.api.flows import resolve_pipeline
from agents.controller.controller import Controller
from agents.controller.stores.hub import Subscription
from jobs.base.errors import InvalidInput
from jobs.base.names import job_name
from jobs.store import flowreading, reading, sweepreading
from jobs.store.flowwriting import pipeline_name
from jobs.store.sweepwriting import sweep_name
from jobs.wire.sweepviews import TrialView
from jobs.wire.views import Delta

router = APIRouter(route_class=BoundedRoute)

MAX_TOPICS = 64
PING = 1.0
WHOLE_EVERY = 0.25
"""Seconds between two sendings of a topic that is sent whole: a screen draws no faster."""
_FINISHED = 500
_EVENTS = 200


@router.get("/watch", response_class=Lines, dependencies=[VIEWER])
async def watch(
    controller: TheController, topics: str = "jobs,nodes,events", since: int = 0, boot: str = ""
) -> StreamingResponse:
    wanted: list[str] = []
    named = list(dict.fromkeys(filter(None, topics.split(","))))
    if len(named) > MAX_TOPICS:
        raise InvalidInput(f"topics: found {len(named)}; allowed: at most {MAX_TOPICS}")
    for topic in named:
        if topic.startswith("job:"):
            topic = f"job:{job_name((await resolve(controller, topic[4:])).job)}"
        elif topic.startswith("sweep:"):
            topic = f"sweep:{sweep_name(await resolve_sweep(controller, topic[6:]))}"
        elif topic.startswith("pipeline:"):
            topic = f"pipeline:{pipeline_name(await resolve_pipeline(controller, topic[9:]))}"
        elif topic not in ("jobs", "nodes", "events", "sweeps", "deployments", "pipelines"):
            raise InvalidInput(
                f"topics: there is no topic '{topic}'",
                "jobs, nodes, events, sweeps, deployments, pipelines, job:ID, sweep:ID, pipeline:ID.",
            )
        if topic not in wanted:  # `job:last` may be one that is named, too
            wanted.append(topic)
    return ndjson_batches(_deltas(controller, wanted, since, boot))


async def _deltas(
    controller: Controller, topics: list[str], since: int, boot: str
) -> AsyncIterator[list[Delta]]:
    """What a watcher is told, those that are there at the same time together."""
    hub = controller.hub
    while True:
        subscription = hub.subscribe(topics)
        at = (
            hub.revision
        )  # later changes wait in the subscription: `rev` must not run ahead of them
        try:
            kept = hub.replay(since, boot) if boot else None
            yield [delta for delta in kept or [] if delta["topic"] in subscription.topics]
            for topic in topics:
                # The rest is sent whole, or told without being kept: only lists are worth replaying.
                if kept is not None and topic in ("jobs", "events", "sweeps", "pipelines"):
                    continue
                async for batch in _state(controller, topic, at):
                    yield batch
            yield [{"rev": at, "op": "ready", "topic": "", "boot": hub.boot}]
            async for batch in _changes(controller, subscription, at):
                yield batch
        finally:
            hub.unsubscribe(subscription)
        boot = ""  # it fell behind: everything again


async def _state(controller: Controller, topic: str, revision: int) -> AsyncIterator[list[Delta]]:
    """A topic's whole state, as of `revision` or later."""
    yield [{"rev": revision, "op": "reset", "topic": topic}]
    values: Mapping[str, object] = {}
    if topic == "nodes":
        values = {view["name"]: view for view in controller.node_views()}
    elif topic == "events":
        events = await controller.db.read(lambda s: reading.events(s, 0, _EVENTS, newest=True))
        values = {str(event["id"]): event for event in events}
    elif topic == "jobs":
        finished = reading.JobFilter(limit=_FINISHED)
        page = await controller.db.read(lambda s: reading.jobs_page(s, finished))
        known = {view["id"]: view for view in page["jobs"]}
        known |= {live.view["id"]: live.view for live in list(controller.reconciler.live.values())}
        values = {key: controller.reconciler.overlay(view) for key, view in known.items()}
    elif topic == "deployments":
        shown = controller.services.views()
        values = {f"{view['name']}@{view['target']}": view for view in shown}
    elif topic == "sweeps":
        sweeps = await controller.db.read(lambda s: sweepreading.sweep_views(s, controller.now()))
        values = {view["id"]: view for view in sweeps}
    elif topic.startswith("sweep:"):
        number, now = int(topic.removeprefix("sweep:s")), controller.now()
        detail = await controller.db.read(lambda s: sweepreading.sweep_detail(s, number, now))
        yield _puts(topic, revision, {detail["id"]: detail})
        async for trials in trial_pages(controller, number, _by_number):
            yield _puts(topic, revision, trials)
    elif topic == "pipelines":
        pipelines = await controller.db.read(flowreading.pipeline_views)
        values = {view["id"]: view for view in pipelines}
    elif topic.startswith("pipeline:"):
        number = int(topic.removeprefix("pipeline:p"))
        flow = await controller.db.read(lambda s: flowreading.pipeline_detail(s, number))
        tasks = {f"{task['step']}/{task['number']}": task for task in flow["tasks"]}
        values = {flow["id"]: {**flow, "tasks": [], "spec": {}}, **tasks}
    else:
        key = topic.removeprefix("job:")
        values = {key: await controller.job_detail(int(key[1:]))}
    puts = _puts(topic, revision, values)
    yield [*puts, {"rev": revision, "op": "ready", "topic": topic, "boot": controller.hub.boot}]


def _puts(topic: str, revision: int, values: Mapping[str, object]) -> list[Delta]:
    return [
        {"rev": revision, "op": "put", "topic": topic, "key": key, "value": value}
        for key, value in values.items()
    ]


def _by_number(trials: list[TrialView]) -> dict[str, object]:
    return {str(trial["number"]): trial for trial in trials}


async def _changes(
    controller: Controller, subscription: Subscription, revision: int
) -> AsyncIterator[list[Delta]]:
    """Changes after `revision` as they come, until the subscription has overflowed."""
    hub, loop = controller.hub, asyncio.get_running_loop()
    next_whole, next_ping = 0.0, loop.time() + PING
    while not subscription.overflowed:
        if not subscription.queue.empty():
            batch = [subscription.queue.get_nowait() for _ in range(subscription.queue.qsize())]
            revision = batch[-1]["rev"]
            yield batch
            next_ping = loop.time() + PING
        now = loop.time()
        if subscription.dirty and now >= next_whole:
            dirty, subscription.dirty = subscription.dirty, set()
            for topic in sorted(dirty):
                key = topic.removeprefix("job:")
                detail = await controller.job_detail(int(key[1:]))
                value = cast(object, detail)
                yield _puts(topic, revision, {key: value})
            next_whole = next_ping = loop.time()
            next_whole += WHOLE_EVERY
            next_ping += PING
        elif now >= next_ping:
            yield [{"rev": revision, "op": "ping", "topic": "", "boot": hub.boot}]
            next_ping = now + PING
        until = min(next_ping, next_whole) if subscription.dirty else next_ping
        try:
            async with asyncio.timeout_at(until):
                await subscription.wake.wait()
            subscription.wake.clear()
        except TimeoutError:
            continue
        if subscription.dirty and subscription.queue.empty():
            await asyncio.sleep(max(next_whole - loop.time(), 0))
