"""The HTTP API: `create_app(controller)` gives the ASGI application. See docs/api.md."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agents.controller.api import blobs, jobs, logs, nodes, status, sweeps, watch
from agents.controller.api.limits import BodyLimit
from agents.controller.controller import Controller
from jobs import __version__
from jobs.errors import InvalidInput, NotFound, QuarterdeckError

log = logging.getLogger(__name__)


def create_app(controller: Controller) -> FastAPI:
    app = FastAPI(
        title="Quarterdeck",
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.controller = controller
    app.add_middleware(BodyLimit)
    for module in (status, jobs, sweeps, logs, nodes, blobs, watch):
        app.include_router(module.router, prefix="/v1")
    app.add_exception_handler(QuarterdeckError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _broken)
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
    return _answer(InvalidInput(f"{request.method} {request.url.path}: {error.detail}"))


async def _broken(request: Request, error: Exception) -> JSONResponse:
    log.exception("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(
        QuarterdeckError(
            f"internal error: {error!r}", "It is in the controller's log (`qd doctor`)."
        )
    )
