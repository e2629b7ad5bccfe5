"""A version that is tried as a shadow: real replicas, real copies, and callers that never notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from jobs.base.errors import Conflict, InvalidInput
from tests.agents.controller.conftest import Plane, guards_of, until
from tests.agents.controller.services.test_models import approve, deploy, over, take_in, times
from tests.serving import service

BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
).encode()


async def served(plane: Plane, *factors: float) -> str:
    """Versions of a model, approved; the first serves. Its address for inference."""
    for factor in factors:
        await approve(plane, await take_in(plane, {"times.onnx": times(factor)}))
    await deploy(plane, "times:1")
    url = (await over(plane, "production"))["url"]
    return f"{url}/v2/models/times/infer"


@contextlib.asynccontextmanager
async def asking(url: str) -> AsyncIterator[Counter[str]]:
    """Requests without end; each answer is counted."""
    told: Counter[str] = Counter()
    going = True

    def ask() -> str:
        try:
            with urllib.request.urlopen(url, BODY, timeout=10) as answer:
                told: list[float] = json.load(answer)["outputs"][0]["data"]
                return str(told)
        except OSError as error:
            return f"failed: {error!r}"

    async def run() -> None:
        while going:
            told[await asyncio.to_thread(ask)] += 1

    task = asyncio.create_task(run())
    try:
        yield told
    finally:
        going = False
        await task


async def compared(plane: Plane, copies: int) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = (await plane.get("/v1/deployments/times"))["rollout"]
        return view if view.get("shadow", {}).get("copies", 0) >= copies else None

    view: dict[str, Any] = await until(look, lambda: str(plane.controller.problems()))
    return view


def copiers(plane: Plane) -> list[psutil.Process]:
    return [one for one in guards_of(plane.root) if "shadow.py" in " ".join(one.cmdline())]


async def test_another_models_answers_are_compared_and_never_returned(plane: Plane) -> None:
    url = await served(plane, 2, 2.5)
    steps = {"shadow": 100, "rest": 0, "least": 50, "canary": [50], "patience": 600}
    steps["slower"] = 100  # on a busy machine a program that has just begun is slow
    async with asking(url) as told:
        await deploy(plane, "times:2", spec={"resources": {"cpu": 0.5}, **steps})
        first = await compared(plane, 20)
        assert first["phase"] == "shadowing"
        await plane.restart()
        for process in copiers(plane):
            process.kill()  # what it had counted stays counted
        await compared(plane, first["shadow"]["copies"] + 20)

        async def ready() -> dict[str, Any] | None:
            view: dict[str, Any] = (await plane.get("/v1/deployments/times"))["rollout"]
            return view if view["reason"] else None

        view = await until(ready)
        assert view["reason"].startswith("no worse in ")
        (output,) = view["shadow"]["outputs"]
        assert (output["name"], output["same"]) == ("y", output["rows"])
        assert (output["mean"], output["most"]) == (0.75, 1.0)
        assert view["errors"]["new_bad"] == 0 and view["errors"]["new_seen"] >= 40
        assert view["shadow"]["new_p95"] < 5, "seconds, inside the server"
        assert set(told) == {"[2.0, 4.0]"}, told
        status = await plane.get("/v1/status")
        assert "waits for promote or abort" in json.dumps(status["problems"])
        await plane.post("/v1/deployments/times/promote")
        await until(lambda: told["[2.5, 5.0]"] > 5)
        await until(lambda: not copiers(plane))
    assert set(told) == {"[2.0, 4.0]", "[2.5, 5.0]"}, told


async def test_what_agrees_too_little_is_over_without_anybody(plane: Plane) -> None:
    url = await served(plane, 2, -2)
    steps = {"shadow": 100, "agree": 99, "rest": 0, "least": 20}
    async with asking(url) as told:
        await deploy(plane, "times:2", spec={"resources": {"cpu": 0.5}, **steps})

        async def done() -> dict[str, Any] | None:
            view: dict[str, Any] = (await plane.get("/v1/deployments/times"))["rollout"]
            return view if view["phase"] == "rolled_back" else None

        view = await until(done, lambda: str(plane.controller.problems()))
        assert "it answers otherwise: y is the same in 0 of " in view["reason"]
        assert (await plane.get("/v1/deployments/times"))["live"] == "1"
    assert set(told) == {"[2.0, 4.0]"}, told


async def test_what_cannot_be_compared_is_refused(plane: Plane) -> None:
    await approve(plane, await take_in(plane, {"times.onnx": times(2)}))
    with pytest.raises(Conflict, match="whose answers could be compared"):
        await deploy(plane, "times:1", spec={"resources": {"cpu": 0.5}, "shadow": 10})
    await plane.post("/v1/deployments", {"spec": service("1")})

    async def live() -> bool:
        view = await plane.get("/v1/deployments/hello")
        return view["live"] is not None

    await until(live)
    with pytest.raises(InvalidInput, match="shadow: our model server sends"):
        await plane.post("/v1/deployments", {"spec": service("2", shadow=10)})
