"""The HTTP API: `create_app(controller)` gives the ASGI application. See docs/api.md."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agents.controller.api import (
    alerts,
    audit,
    backups,
    batches,
    blobs,
    data,
    edges,
    evaluations,
    features,
    flows,
    jobs,
    logs,
    maintenance,
    metering,
    models,
    monitors,
    nodes,
    results,
    runs,
    schedules,
    services,
    shells,
    status,
    stories,
    strays,
    sweeps,
    watch,
)
from agents.controller.api.access import check_routes
from agents.controller.api.common import STREAMED, Lines
from agents.controller.api.limits import BodyLimit, Stamped
from agents.controller.controller import Controller
from jobs import __version__
from jobs.base.errors import InvalidInput, NotFound, QuarterdeckError
from jobs.wire.views import ErrorView

log = logging.getLogger(__name__)

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorView, "description": "It is refused."},
    "5XX": {"model": ErrorView, "description": "It failed; a 503 or 507 may work later."},
}


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The document, once made. FastAPI gives a refusal the type of the route's good answer, and a stream
        of documents that of one."""
        if self.openapi_schema is None:
            schema = {"schema": {"$ref": "#/components/schemas/ErrorView"}}
            for methods in super().openapi()["paths"].values():
                for operation in methods.values():
                    for status in _REFUSALS:
                        operation["responses"][status]["content"] = {"application/json": schema}
                    if STREAMED.items() <= operation.items():
                        good = operation["responses"]["200"]
                        good["content"] = {Lines.media_type: good["content"]["application/json"]}
        return super().openapi()


def create_app(controller: Controller) -> FastAPI:
    app = _Api(
        title="Quarterdeck",
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.controller = controller
    app.add_middleware(BodyLimit)
    app.add_middleware(Stamped)
    routers = (
        status,
        jobs,
        runs,
        sweeps,
        data,
        models,
        evaluations,
        monitors,
        services,
        edges,
        batches,
        features,
        flows,
        schedules,
        alerts,
        logs,
        results,
        shells,
        nodes,
        maintenance,
        stories,
        strays,
        metering,
        blobs,
        audit,
        backups,
        watch,
    )
    check_routes(module.router for module in routers)
    for module in routers:
        app.include_router(module.router, prefix="/v1", responses=_REFUSALS)
    app.add_exception_handler(QuarterdeckError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _broken)
    # FastAPI makes a router's routes as the first request looks for one: a tenth of a second for each,
    # in which nobody else would be served.
    for route in app.routes:
        route.matches({"type": "http", "method": "GET", "path": "/v1/none", "root_path": ""})
    return app


def _answer(error: QuarterdeckError) -> JSONResponse:
    return JSONResponse(error.to_json(), status_code=error.http_status)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, QuarterdeckError)
    return _answer(error)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "request"
    return _answer(InvalidInput(f"{where}: {first['msg']}", "See docs/api.md."))


async def _no_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _answer(NotFound(f"there is no {request.url.path}", "See docs/api.md."))
    told = InvalidInput(f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(told.to_json(), error.status_code, error.headers)


async def _broken(request: Request, error: Exception) -> JSONResponse:
    log.exception("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(
        QuarterdeckError(
            f"internal error: {error!r}", "It is in the controller's log (`qd doctor`)."
        )
    )
