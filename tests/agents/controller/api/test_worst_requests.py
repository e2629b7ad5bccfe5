"""The worst that somebody may ask for: answered or refused, while everybody else is served.

What a request makes the event loop do is measured in CPU time of its thread, step by step: it does not
depend on how busy the machine is. A lease of 5 s is renewed meanwhile, which nothing of this may prevent.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import pkgutil
import sys
import time
from asyncio import events
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from agents.controller import api
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.limits import BodyLimit
from agents.controller.commands import requests
from agents.daemon import TURN
from jobs.base.errors import InvalidInput, QuarterdeckError
from tests.agents.controller.conftest import Plane

STEP = 0.05
"""Seconds of CPU that one step of the event loop may take."""
COMMAND = {"command": "true"}


def _fields(count: int) -> bytes:
    spec = {**COMMAND, **{f"unknown{number}": 0 for number in range(count)}}
    return json.dumps({"spec": spec}).encode()


def _job(**spec: Any) -> bytes:
    return json.dumps({"spec": {**COMMAND, **spec}}).encode()


def _sweep(space: Any, **fields: Any) -> bytes:
    spec = {
        "job": {**COMMAND, "objective": {"metric": "loss", "goal": "minimize"}},
        "space": space,
        "trials": 1,
        **fields,
    }
    return json.dumps({"spec": spec, "dry_run": True}).encode()


def _points(count: int, names: int) -> bytes:
    space = {f"p{number}": {"low": 0, "high": 10} for number in range(names)}
    return _sweep(space, enqueue=[dict.fromkeys(space, 5) for _ in range(count)], sampler="random")


SPACE = {"x": {"low": 0, "high": 9}}
WIDE = {name: {"low": 0, "high": 99} for name in "xy"} | {"z": {"low": 0, "high": 9}}
FINE = {"low": 0.0, "high": 1e15, "step": 1.0}
SLOW_TO_READ = "(?i)" + "[À-\\U0000ffff]" * 60

POSTS: dict[str, tuple[str, bytes]] = {
    "a million unknown fields": ("/v1/jobs", _fields(900_000)),
    "as many as fit": ("/v1/jobs", _fields(220_000)),
    "what 300 kB hold": ("/v1/jobs", _fields(20_000)),
    "what is read at once": ("/v1/jobs", _fields(900)),
    "long names that resemble ours": (
        "/v1/jobs",
        json.dumps({"spec": {"priorit" * 900 + str(n): 0 for n in range(2)}}).encode(),
    ),
    "a name of megabytes": ("/v1/jobs", _job(**{"x" * 3_000_000: 0})),
    "a value of megabytes": ("/v1/jobs", _job(kind="\x01" * 600_000)),
    "nested too deeply": ("/v1/jobs", b'{"spec": ' + b"[" * 900_000 + b"]" * 900_000 + b"}"),
    "a list of numbers": ("/v1/jobs", _job(tags=[1] * 1_000_000)),
    "numbers of many digits": ("/v1/jobs", _job(params={"n": "N"}).replace(b'"N"', b"9" * 4000)),
    "a diff that is all escapes": (
        "/v1/jobs",
        json.dumps(
            {
                "spec": COMMAND,
                "git": {"commit": "", "branch": "", "dirty": 1, "diff": "é" * 600_000},
            }
        ).encode(),
    ),
    "a grid of two thousand millions": (
        "/v1/sweeps",
        _sweep({"x": {"low": 0, "high": 2 * 10**9}}, sampler="grid"),
    ),
    "a step into a million millions": (
        "/v1/sweeps",
        _sweep({"x": FINE, "y": {"choices": [1], "when": {"x": 0.5}}}, enqueue=[{"x": 0.5}]),
    ),
    "a large grid under constraints": (
        "/v1/sweeps",
        _sweep(WIDE, sampler="grid", constraints=["x * y * z + x ** 2 <= -1"] * 30),
    ),
    "points that are none": ("/v1/sweeps", _sweep(SPACE, enqueue=[{"y": [1]}] * 100_000)),
    "ten thousand points": ("/v1/sweeps", _points(10_000, 8)),
    "more values than a sweep may have": ("/v1/sweeps", _points(10_000, 12)),
    "a condition on a million values": (
        "/v1/sweeps",
        _sweep({**SPACE, "y": {"choices": [1], "when": {"x": [1] * 500_000}}}),
    ),
    "twenty thousand digests that are none": (
        "/v1/blobs/missing",
        json.dumps({"digests": [0] * 20_000}).encode(),
    ),
    "a million digests": ("/v1/blobs/missing", json.dumps({"digests": [""] * 900_000}).encode()),
    "a thousand points more": (
        "/v1/sweeps/s1/extend",
        json.dumps({"points": [{"x": 1}] * 20_000}).encode(),
    ),
    "many fields where few are": (
        "/v1/blobs/prune",
        json.dumps({f"a{number}": 0 for number in range(28_000)}).encode(),
    ),
}
GETS: dict[str, tuple[str, dict[str, Any]]] = {
    "an expression that takes long to read": ("/v1/jobs/j1/logs", {"grep": SLOW_TO_READ}),
    "an expression that takes long to search": ("/v1/jobs/j1/logs", {"grep": "(a+)+$"}),
    "ten thousand topics": ("/v1/watch", {"topics": ",".join(f"job:{n}" for n in range(6_000))}),
    "ten thousand names": ("/v1/jobs/j1/series", {"name": ["n"] * 9_000}),
    "a long text to look for": ("/v1/jobs", {"q": "%" * 50_000}),
    "many states": ("/v1/jobs", {"state": ["active"] * 5_000}),
}
FINE_ONES = {"ten thousand points", "an expression that takes long to read"}


_asked: ContextVar[str] = ContextVar("asked", default="")


@pytest.fixture
def worst(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, str]]]:
    """The longest steps of requests, and of what takes in their bytes; the node agent, which has a process
    of its own elsewhere, is not counted."""
    taken: list[tuple[float, str]] = []
    run: Callable[[events.Handle], None] = events.Handle._run
    call = BodyLimit.__call__

    async def marked(self: BodyLimit, scope: Any, receive: Any, send: Any) -> None:
        _asked.set(f"{scope['path']}?{scope['query_string'][:60]}")
        await call(self, scope, receive, send)

    def measured(handle: Any) -> None:
        began = time.thread_time()
        run(handle)
        took = time.thread_time() - began
        what = handle._context.get(_asked) or ("bytes" if "_read_ready" in repr(handle) else "")
        if what:
            taken.append((took, what))

    monkeypatch.setattr(BodyLimit, "__call__", marked)
    monkeypatch.setattr(events.Handle, "_run", measured)
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN)  # as the controller has it
    gc.freeze()  # what other tests have left here is not collected in a step of a request
    yield taken
    gc.unfreeze()
    sys.setswitchinterval(before)


@pytest.mark.timeout(300)
async def test_the_worst_requests_hold_up_nobody(
    plane: Plane, worst: list[tuple[float, str]]
) -> None:
    job = await plane.submit(f"echo {'a' * 64}!; exec sleep 200", lease="5s")
    await plane.wait(job, "RUNNING")

    def send(name: str) -> None:
        client = plane.client.with_timeout(200)
        if name in POSTS:
            path, body = POSTS[name]
            pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
            client.upload(path, pieces, "application/json")
        else:
            path, query = GETS[name]
            with client.stream(path, **query) as stream:
                list(stream)

    # Not the threads that everything else here uses, the agent and the controller too.
    callers = ThreadPoolExecutor(len(POSTS) + len(GETS))

    async def ask(name: str) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(callers, send, name)
        except QuarterdeckError as error:
            assert error.http_status < 500, (name, error.message)
            assert len(error.message) < 2000, name
            answered[name] = error.message
        else:
            answered[name] = ""

    answered: dict[str, str] = {}
    with callers:
        await asyncio.gather(*map(ask, (*POSTS, *GETS)))
    assert [step for step in worst if step[0] > STEP] == []
    assert len(worst) > len(answered), "it was measured"
    assert {name for name, words in answered.items() if not words} <= FINE_ONES
    view = await plane.get(f"/v1/jobs/{job}")
    assert (view["state"], view["attempt"]) == ("RUNNING", 1), "its lease was renewed all the time"
    await plane.post(f"/v1/jobs/{job}/cancel", {"grace": 0})
    await plane.wait(job)


async def test_a_submission_that_is_read_apart_is_taken_as_it_was_sent(plane: Plane) -> None:
    diff = "+ 'ü', [1], \\u0000\n" * 3000
    asked = {
        "spec": {**COMMAND, "tags": {"a": "1"}},
        "git": {"commit": "c" * 40, "branch": "main", "dirty": True, "diff": diff},
        "key": "k",
    }
    body = json.dumps(asked).encode()
    assert len(body) > requests.SMALL
    answer = await plane.post("/v1/jobs", asked)
    detail = await plane.get(f"/v1/jobs/{answer['id']}")
    assert detail["git"] == asked["git"]
    assert detail["spec"]["tags"] == {"a": "1"}
    assert detail["name"] == "true", "derived from the command, as for a small one"
    assert (await plane.post("/v1/jobs", asked))["created"] is False


@pytest.mark.parametrize(
    "body",
    [
        {"spec": COMMAND, "key": "half \ud800"},
        {"spec": COMMAND, "key": "nul \0"},
        {"spec": COMMAND, "git": {"commit": "\udfff", "branch": "b", "dirty": False}},
        {"spec": COMMAND, "git": {"commit": "c", "branch": "b\0", "dirty": False}},
        {"spec": COMMAND, "snapshot": "\ud800"},
        {"spec": {**COMMAND, "tags": {"a\0": "b"}}},
        {"spec": {"command": ["true", "\udc80"]}},
    ],
    ids=ascii,
)
async def test_what_is_no_text_is_refused(plane: Plane, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await plane.post("/v1/jobs", body)
    assert (await plane.get("/v1/jobs"))["total"] == 0


async def test_what_no_database_can_hold_is_refused_everywhere(plane: Plane) -> None:
    with pytest.raises(InvalidInput):
        await plane.post("/v1/blobs/missing", {"digests": ["\ud800"]})
    with pytest.raises(InvalidInput):
        await plane.post("/v1/nodes/n1/drain", {"reason": "\udead"})
    for path, query in (
        ("/v1/sweeps/s1/curves", {"trial": 9999999999999999999}),
        ("/v1/jobs", {"user": "a\0b"}),
        ("/v1/jobs/j1%00", {}),
        ("/v1/sweeps/s1/slices", {"objective": 10**20}),
    ):
        with pytest.raises(InvalidInput):
            await plane.get(path, **query)
    with pytest.raises(InvalidInput):
        await plane.post("/v1/sweeps/s1/trials/9999999999999999999/prune")


@pytest.mark.parametrize(
    "name", [item.name for item in pkgutil.iter_modules(api.__path__) if item.name != "bodies"]
)
def test_every_router_reads_bodies_within_bounds(name: str) -> None:
    module = importlib.import_module(f"{api.__name__}.{name}")
    router = getattr(module, "router", None)
    if router is not None:
        assert all(isinstance(route, BoundedRoute) for route in router.routes)
