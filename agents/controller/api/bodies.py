"""Bodies of requests, read so that none of them holds up the event loop.

JSON is parsed in one step that nothing can interrupt, so what a document holds is counted before: commas
and brackets bound the number of its values. Small ones are parsed at once, larger ones on a thread, and a
submission that has more than `commands.requests` reads in a moment in a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from agents.controller.commands import requests
from jobs.base.errors import InvalidInput, Unreachable

AT_ONCE = 1 << 14
"""Bytes that are parsed without a thread: a millisecond."""
MAX_VALUES = 30_000
"""In the JSON of a request that is no submission: some 20 ms."""
MAX_FIELDS = 64
"""At its top. Each one that is unknown is an error of its own, with words of its own."""


class _Bounded(Request):
    """A request whose JSON is counted, and looked through for text that cannot be stored or shown."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                if requests.values_in(body) > MAX_VALUES:
                    raise InvalidInput(f"more than {MAX_VALUES} values")
                if len(body) <= AT_ONCE:
                    found = requests.parse(body)
                else:
                    found = await run_in_threadpool(requests.parse, body)
                if isinstance(found, dict) and len(found) > MAX_FIELDS:
                    raise InvalidInput(f"{len(found)} fields")
            except InvalidInput as error:  # the one exception that FastAPI lets through here
                raise HTTPException(error.http_status, error.message) from None
            self._json = found
        return self._json


class BoundedRoute(APIRoute):
    """A route that reads its body as above. Every router of the API is made with it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            if b"%00" in request.scope["query_string"] or "\0" in request.scope["path"]:
                raise InvalidInput("the address has a NUL character", "See docs/api.md.")
            try:
                return await handle(_Bounded(request.scope, request.receive))
            except asyncio.CancelledError:
                # The server ends, and waits no longer for its answers. Whoever asked may ask the next one:
                # without this they get a bare status 500, as of a fault.
                raise Unreachable(
                    "the controller is stopped before it could answer",
                    "`qd status` says how it is.",
                ) from None

        return bounded


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body itself."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _without_definitions(model)}},
        }
    }


def _without_definitions(model: type[BaseModel]) -> dict[str, Any]:
    """A model's schema with its definitions put where they are referred to: in an OpenAPI document there
    is no place for them beside it."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def put_in(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return put_in(definitions[node["$ref"].rsplit("/", 1)[1]])
            return {key: put_in(value) for key, value in node.items()}
        return [put_in(item) for item in node] if isinstance(node, list) else node

    found: dict[str, Any] = put_in(schema)
    return found
