"""Programs beside a rank: begin one, read, write, tell its size."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from agents.controller.api.access import OPERATOR
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import Octets, TheCaller, TheController, resolve
from agents.controller.commands import shells
from jobs.wire.views import ShellView

router = APIRouter(route_class=BoundedRoute)

Side = Annotated[int, Field(ge=1, le=1000)]


class ShellCommand(BaseModel):
    """`attach`: it stays while nobody reads, and who attaches to that rank again has the same."""

    model_config = ConfigDict(extra="forbid")

    rank: Annotated[int, Field(ge=0)] = 0
    argv: list[str]
    env: dict[str, str] = Field(default_factory=dict)
    terminal: bool = False
    rows: Side = 24
    columns: Side = 80
    attach: bool = False


@router.post("/jobs/{job}/shells", status_code=201, dependencies=[OPERATOR])
async def begin(
    job: str, request: ShellCommand, controller: TheController, who: TheCaller
) -> ShellView:
    return await shells.begin(controller, who, await resolve(controller, job), **dict(request))


class ForwardCommand(BaseModel):
    """A port of 127.0.0.1, or of any address, on the rank's node."""

    model_config = ConfigDict(extra="forbid")

    rank: Annotated[int, Field(ge=0)] = 0
    port: Annotated[int, Field(ge=1, le=65535)]


class ProfileCommand(BaseModel):
    """`seconds` of sampling, `rate` samples a second. `gil`: only who holds Python's lock. `native`: C frames
    too. `idle`: waiting threads too. `children`: also of its processes."""

    model_config = ConfigDict(extra="forbid")

    rank: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    rate: Annotated[int, Field(ge=1, le=1000)] = 100
    gil: bool = False
    native: bool = False
    idle: bool = False
    children: bool = False


@router.post("/jobs/{job}/tunnels", status_code=201, dependencies=[OPERATOR])
async def forward(
    job: str, request: ForwardCommand, controller: TheController, who: TheCaller
) -> ShellView:
    """A tunnel for many connections; it is talked to as a program is."""
    ref = await resolve(controller, job)
    return await shells.forward(controller, who, ref, request.rank, request.port)


@router.post("/jobs/{job}/profiles", status_code=201, dependencies=[OPERATOR])
async def profile(
    job: str, request: ProfileCommand, controller: TheController, who: TheCaller
) -> ShellView:
    """Sample a rank's Python stacks; they are read as a program's output is, folded, with counts."""
    options = ["--duration", str(request.seconds), "--rate", str(request.rate), "--threads"]
    chosen = {"gil": request.gil, "native": request.native, "idle": request.idle}
    options += [f"--{name}" for name, wanted in chosen.items() if wanted]
    options += ["--subprocesses"] * request.children
    ref = await resolve(controller, job)
    return await shells.profile(controller, who, ref, request.rank, options)


@router.get("/jobs/{job}/shells/{rank}/{name}", response_class=Octets, dependencies=[OPERATOR])
async def read(
    job: str,
    rank: int,
    name: str,
    controller: TheController,
    who: TheCaller,
    offset: Annotated[int, Query(ge=0, lt=2**62)] = 0,
    wait: Annotated[float, Query(ge=0, le=5)] = 5.0,
) -> Response:
    """Records of output from an offset on; `X-Position` is the next one, `X-Exit` the exit code."""
    ref = await resolve(controller, job)
    said = await shells.talk(
        controller, who, ref, rank, name, kind="read", number=offset, wait=wait
    )
    headers = {"X-Position": str(said["position"])}
    if said["ended"]:
        headers["X-Exit"] = str(said["code"])
    return Response(said["data"], media_type="application/octet-stream", headers=headers)


@router.post("/jobs/{job}/shells/{rank}/{name}/{kind}", dependencies=[OPERATOR])
async def write(
    job: str,
    rank: int,
    name: str,
    kind: Literal["write", "end", "size", "signal"],
    request: Request,
    controller: TheController,
    who: TheCaller,
    number: Annotated[int, Query(ge=0, lt=2**32)] = 0,
) -> dict[str, int]:
    """Bytes for its input, its end, its size (rows * 65536 + columns), or a signal. `waiting` says
    how many bytes of input it has not taken yet."""
    ref = await resolve(controller, job)
    data = await request.body()
    said = await shells.talk(controller, who, ref, rank, name, kind=kind, number=number, data=data)
    return {"waiting": said["position"]}
