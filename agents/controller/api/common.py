"""What the routes share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from agents import loops
from agents.controller.api.identity import caller_of
from agents.controller.controller import Controller
from agents.controller.stores.hub import Subscription
from jobs.base.errors import InvalidInput
from jobs.base.names import RunRef
from jobs.base.numbers import dumps
from jobs.base.times import parse_time
from jobs.store import reading, sweepreading, sweepwriting
from jobs.store.writing import Caller
from jobs.wire.sweepviews import TrialView

T = TypeVar("T")

TRIALS_AT_ONCE = 500
"""Trials that are read and encoded in one go: some 20 ms of a core."""


class Lines(StreamingResponse):
    """What a route declares that answers with NDJSON."""

    media_type = "application/x-ndjson"


STREAMED: dict[str, Any] = {"x-streamed": True}
"""`openapi_extra` of a route whose `response_model` is that of each line of NDJSON."""


class Octets(StreamingResponse):
    """What a route declares that answers with bytes."""

    media_type = "application/octet-stream"


Number = Annotated[int, Query(ge=0, lt=2**63)]
"""As large as files and databases count."""


# Dependencies are coroutines: FastAPI runs plain functions on a thread, two hops for every request.


async def controller_of(request: Request) -> Controller:
    controller: Controller = request.app.state.controller
    return controller


async def caller(request: Request) -> Caller:
    return caller_of(request.scope)


TheController = Annotated[Controller, Depends(controller_of)]
TheCaller = Annotated[Caller, Depends(caller)]


async def resolve(controller: Controller, text: str) -> RunRef:
    return await controller.db.read(lambda session: reading.resolve(session, text))


async def resolve_sweep(controller: Controller, text: str) -> int:
    return await controller.db.read(lambda session: sweepwriting.resolve(session, text))


async def trial_pages(
    controller: Controller, sweep: int, encode: Callable[[list[TrialView]], T]
) -> AsyncIterator[T]:
    """A sweep's trials in order, so many at a time that nobody else waits for long; `encode` runs on
    the thread that reads them."""
    after = -1

    def page(session: Session) -> tuple[int, int, T]:
        found = sweepreading.trial_views(
            session, sweep, controller.now(), after=after, limit=TRIALS_AT_ONCE
        )
        return len(found), found[-1]["number"] if found else after, encode(found)

    while True:
        count, after, encoded = await controller.db.read(page)
        yield encoded
        if count < TRIALS_AT_ONCE:
            return


def time_argument(name: str, text: str | None) -> float | None:
    """A time from a query, as unix time."""
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError:
        raise InvalidInput(
            f"{name}: '{text}' is not a time", "Write it in RFC 3339: 2026-11-23T06:28:01Z."
        ) from None


def ndjson(documents: AsyncIterator[Any]) -> StreamingResponse:
    """One JSON document a line, in chunks as they come.

    A request that turns out to be wrong on the way ends with its error as the last line; every
    other fault cuts the stream, and the client may ask again.
    """

    async def singly() -> AsyncIterator[list[Any]]:
        async for document in documents:
            yield [document]

    return ndjson_batches(singly())


def ndjson_batches(batches: AsyncIterator[list[Any]]) -> StreamingResponse:
    """The same of many documents, each batch in one chunk: a chunk costs ten times what a line does."""

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for batch in batches:
                if batch:
                    yield b"".join(map(_line, batch))
        except InvalidInput as error:
            yield _line(error.to_json())

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _line(document: Any) -> bytes:
    return dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def json_list(batches: AsyncIterator[bytes]) -> StreamingResponse:
    """A JSON array in chunks, each of them the inside of an array (`inside`)."""

    async def chunks() -> AsyncIterator[bytes]:
        separator = b"["
        async for batch in batches:
            if batch:
                yield separator + batch
                separator = b","
        yield b"]" if separator == b"," else b"[]"

    return StreamingResponse(chunks(), media_type="application/json")


def inside(documents: Sequence[Any]) -> bytes:
    """A JSON array of these without its brackets."""
    return dumps(documents, ensure_ascii=False, separators=(",", ":"))[1:-1].encode()


async def woken(subscription: Subscription, seconds: float) -> bool:
    """Wait until something that the subscription is about has changed; False after `seconds`."""
    if not await loops.woken(subscription.wake, seconds):
        return False
    subscription.wake.clear()
    return True


def in_thread(controller: Controller) -> Callable[[Callable[[], list[T]]], Any]:
    async def run(fn: Callable[[], list[T]]) -> list[T]:
        return await controller.logs.run_reader(fn)

    return run
