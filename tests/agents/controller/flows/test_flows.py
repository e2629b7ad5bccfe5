"""Pipelines on a real control plane: real jobs, real files from step to step."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from agents.controller.flows import flowrecord, flowrun
from agents.controller.stores.blobs import FolderBlobs
from jobs.base.errors import Conflict, InvalidInput, NotFound, Unreachable
from jobs.flows.spec import PipelineSpec
from jobs.snapshots.manifest import FileEntry, Manifest
from tests.agents.controller.conftest import Plane, until


@pytest.fixture
async def plane(make_plane: Any) -> Plane:
    made: Plane = await make_plane(cpus=4)
    return made


async def run(plane: Plane, steps: dict[str, Any], **more: Any) -> str:
    top = {name: more.pop(name) for name in ("name", "params", "timeout") if name in more}
    if isinstance(top.get("params"), dict):
        more.setdefault("params", more.pop("values", {}))
    spec = PipelineSpec.from_json({"name": "probe", "steps": steps, **top}).to_json()
    answer = await plane.post("/v1/pipelines", {"spec": spec, **more})
    name: str = answer["id"]
    return name


async def ended(plane: Plane, name: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/pipelines/{name}")
        return view if view["state"] in ("SUCCEEDED", "FAILED", "CANCELLED") else None

    view: dict[str, Any] = await until(look, what=lambda: f"{name} to end")
    return view


def tasks(view: dict[str, Any]) -> dict[str, str]:
    return {
        f"{task['step']}/{task['number']}" if task["matrix"] else task["step"]: task["state"]
        for task in view["tasks"]
    }


async def log_of(plane: Plane, job: str) -> list[str]:
    return [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")]


def task(view: dict[str, Any], step: str, number: int = 0) -> dict[str, Any]:
    return next(t for t in view["tasks"] if (t["step"], t["number"]) == (step, number))


def metric(name: str, value: str) -> str:
    point = f'{{\\"n\\":\\"{name}\\",\\"s\\":0,\\"v\\":{value},\\"t\\":1.0}}'
    return f'echo "{point}" >> $QD_METRICS_FILE'


def folder(plane: Plane, **files: str) -> str:
    """A snapshot of these files, in the controller's store."""
    blobs, entries = plane.controller.blobs, []
    for path, text in files.items():
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        if not blobs.has(f"sha256:{digest}"):
            blobs.put(f"sha256:{digest}", io.BytesIO(data))
        entries.append(FileEntry(path, 0o644, len(data), digest))
    manifest = Manifest.of(entries)
    if not blobs.has(manifest.digest):
        blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
    return manifest.digest


CHAIN: dict[str, Any] = {
    "data": {
        "job": {"command": f"cat base > out.txt; echo {{n}} >> out.txt; {metric('rows', '7')}",
                "outputs": {"text": "out.txt"}},
        "params": {"n": "${params.n}"},
    },
    "train": {
        "matrix": {"x": [1, 2]},
        "job": {"command": "cat in/text.txt > m.txt; echo {x} >> m.txt", "outputs": {"m": "m.txt"}},
        "inputs": {"in/text.txt": "${steps.data.outputs.text}"},
    },
    "all": {
        "when": "steps.data.metrics.rows >= 7",
        "job": {"command": "cat models/0.txt models/1.txt; echo {rows} {from} '{word}'"},
        "inputs": {"models": "${steps.train.outputs.m}"},
        "params": {
            "rows": "${steps.data.metrics.rows}",
            "from": "${steps.data.job}",
            "word": "${params.word}",
        },
    },
    "never": {"when": "params.n > 5", "job": {"command": "false"}},
    "after": {"needs": ["never"], "job": {"command": "false"}},
    "word": {"on_failure": True, "notify": "echo {failed}"},
}  # fmt: skip
PARAMS = {"n": 3, "word": "a b"}


async def test_outputs_go_from_step_to_step_and_equal_steps_are_taken_from_before(
    plane: Plane,
) -> None:
    code = {"data": {"snapshot": folder(plane, base="base\n")}}
    word = "${steps.data.job}; $(false)"  # data: nobody reads it as anything else
    first = await run(plane, CHAIN, params=PARAMS, code=code, values={"word": word})
    view = await ended(plane, first)
    assert view["state"] == "SUCCEEDED", view
    assert tasks(view) == {
        "data": "SUCCEEDED", "train/0": "SUCCEEDED", "train/1": "SUCCEEDED", "all": "SUCCEEDED",
        "never": "SKIPPED", "after": "SKIPPED", "word": "SKIPPED",
    }  # fmt: skip
    assert task(view, "after")["reason"] == "never was skipped"
    log = await log_of(plane, task(view, "all")["job"])
    assert log == ["base", "3", "1", "base", "3", "2", f"7.0 j1 {word}"]

    again = await ended(
        plane, await run(plane, CHAIN, params=PARAMS, code=code, values={"word": word})
    )
    assert set(tasks(again).values()) == {"CACHED", "SKIPPED"}
    assert task(again, "data")["taken_from"] == first
    assert len((await plane.get("/v1/jobs"))["jobs"]) == 4

    # Another parameter of the last step, and of the first.
    other = await ended(
        plane, await run(plane, CHAIN, params=PARAMS, code=code, values={"word": "z"})
    )
    assert [t["step"] for t in other["tasks"] if t["state"] == "SUCCEEDED"] == ["all"]
    other = await ended(plane, await run(plane, CHAIN, params=PARAMS, code=code, values={"n": 4}))
    assert sum(t["state"] == "SUCCEEDED" for t in other["tasks"]) == 4
    # One changed file, and --no-cache.
    changed = {"data": {"snapshot": folder(plane, base="new\n")}}
    other = await ended(plane, await run(plane, CHAIN, params=PARAMS, code=changed))
    assert sum(t["state"] == "SUCCEEDED" for t in other["tasks"]) == 4
    other = await ended(plane, await run(plane, CHAIN, params=PARAMS, code=changed, cache=False))
    assert sum(t["state"] == "SUCCEEDED" for t in other["tasks"]) == 4


async def test_a_dry_run_says_what_would_be_taken_and_starts_nothing(plane: Plane) -> None:
    code = {"data": {"snapshot": folder(plane, base="base\n")}}
    spec = PipelineSpec.from_json({"name": "probe", "steps": CHAIN, "params": PARAMS}).to_json()
    body = {"spec": spec, "code": code, "dry_run": True}
    plan = (await plane.post("/v1/pipelines", body))["plan"]
    assert [item["plan"] for item in plan if item["step"] in ("data", "train")] == [
        "run", "depends", "depends",
    ]  # fmt: skip
    assert await plane.get("/v1/pipelines") == []
    assert (await plane.get("/v1/jobs"))["jobs"] == []
    await ended(plane, (await plane.post("/v1/pipelines", body | {"dry_run": False}))["id"])
    plan = (await plane.post("/v1/pipelines", body | {"params": {"word": "new"}}))["plan"]
    told = {f"{item['step']}/{item['number']}": item["plan"] for item in plan}
    assert told["data/0"] == told["train/1"] == "cached"
    assert told["all/0"] == "run"
    assert len((await plane.get("/v1/jobs"))["jobs"]) == 4


async def test_a_part_is_run_with_what_others_left(plane: Plane) -> None:
    code = {"data": {"snapshot": folder(plane, base="base\n")}}
    with pytest.raises(InvalidInput, match="there is no earlier result of data"):
        await run(plane, CHAIN, params=PARAMS, code=code, only="all")
    with pytest.raises(InvalidInput, match="there is no step 'al'; did you mean all"):
        await run(plane, CHAIN, params=PARAMS, code=code, only="al")
    await ended(plane, await run(plane, CHAIN, params=PARAMS, code=code))
    view = await ended(plane, await run(plane, CHAIN, params=PARAMS, only="all"))
    assert view["state"] == "SUCCEEDED"
    assert tasks(view) == {
        "data": "CACHED", "train/0": "CACHED", "train/1": "CACHED", "all": "SUCCEEDED",
        "never": "SKIPPED", "after": "SKIPPED", "word": "SKIPPED",
    }  # fmt: skip
    view = await ended(plane, await run(plane, CHAIN, params=PARAMS, from_step="train"))
    assert tasks(view)["data"] == "CACHED"
    assert tasks(view)["train/0"] == tasks(view)["all"] == "SUCCEEDED"


async def test_failures_retries_and_what_runs_all_the_same(plane: Plane) -> None:
    steps: dict[str, Any] = {
        "flaky": {"retries": 2, "job": {"command": "test -e /nonexistent"}},
        "next": {"needs": ["flaky"], "job": {"command": "true"}},
        "other": {"job": {"command": "true"}},
        "clean": {"always": True, "job": {"command": "echo {how}"},
                  "params": {"how": "${steps.flaky.state}"}},
        "word": {"on_failure": True, "notify": "echo {pipeline} {state} {failed}: {reason}"},
        "silent": {"job": {"command": "true", "outputs": {"o": "o.txt"}}},
        "user": {"job": {"command": "true"}, "inputs": {"i": "${steps.silent.outputs.o}"}},
    }  # fmt: skip
    name = await run(plane, steps)
    view = await ended(plane, name)
    assert view["state"] == "FAILED"
    assert view["reason"].startswith("flaky and silent failed; first flaky: ")
    assert tasks(view) == {
        "flaky": "FAILED", "next": "SKIPPED", "other": "SUCCEEDED", "clean": "SUCCEEDED",
        "word": "SUCCEEDED", "silent": "FAILED", "user": "SKIPPED",
    }  # fmt: skip
    assert task(view, "flaky")["tries"] == 3
    assert task(view, "silent")["reason"] == "it succeeded without its output o (o.txt)"
    assert await log_of(plane, task(view, "clean")["job"]) == ["failed"]
    [told] = await log_of(plane, task(view, "word")["job"])
    assert told.startswith(f"{name} failed flaky silent: ")
    jobs = (await plane.get("/v1/jobs"))["jobs"]
    assert len(jobs) == 7
    again = await plane.post(f"/v1/pipelines/{name}/retry")
    assert again["state"] == "RUNNING"
    view = await ended(plane, name)
    assert task(view, "flaky")["tries"] == 4
    assert task(view, "other")["tries"] == 1
    audit = [
        e for e in await plane.lines("/v1/events", limit=200) if e["kind"] == "pipeline.failed"
    ]
    assert len(audit) == 2


async def test_a_run_is_cancelled(plane: Plane) -> None:
    name = await run(plane, {
        "long": {"job": {"command": "sleep 600", "grace": 0, "notice": 0}},
        "next": {"needs": ["long"], "job": {"command": "true"}},
        "clean": {"always": True, "job": {"command": "true"}},
    })  # fmt: skip
    await until(lambda: plane.controller.reconciler.live)
    await plane.wait("j1", "RUNNING")
    with pytest.raises(Conflict, match="is not over"):
        await plane.post(f"/v1/pipelines/{name}/retry")
    view = await plane.post(f"/v1/pipelines/{name}/cancel")
    assert view["state"] == "STOPPING"
    view = await ended(plane, name)
    assert (view["state"], set(tasks(view).values())) == ("CANCELLED", {"CANCELLED"})
    with pytest.raises(Conflict, match="is over"):
        await plane.post(f"/v1/pipelines/{name}/cancel")
    with pytest.raises(NotFound):
        await plane.get("/v1/pipelines/p9")


async def test_a_sweep_as_a_step(plane: Plane) -> None:
    steps = {
        "search": {"sweep": {
            "job": {"command": metric("loss", "{x}")},
            "space": {"x": {"choices": [3, 2, 1]}},
            "objective": {"metric": "loss", "goal": "minimize"},
            "sampler": "grid",
        }},
        "use": {
            "job": {"command": "echo {x} {loss}", "params": {"x": 0}},
            "params": {"x": "${steps.search.best.params.x}", "loss": "${steps.search.best.value}"},
            "when": "steps.search.best.value < 2",
        },
    }  # fmt: skip
    view = await ended(plane, await run(plane, steps))
    assert view["state"] == "SUCCEEDED", view
    assert await log_of(plane, task(view, "use")["job"]) == ["1 1.0"]
    assert task(view, "search")["sweep"] == "s1"
    view = await ended(plane, await run(plane, steps))
    assert tasks(view) == {"search": "CACHED", "use": "CACHED"}


async def test_blobs_that_are_away_hold_up_neither_the_registry_nor_fail_a_step(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step takes of the store of blobs is brought before its transaction, and waited for."""
    monkeypatch.setattr(flowrun, "RETRY", (0.01, 0.01))
    away: list[str] = []
    asked_by: list[str] = []

    def guarded(name: str) -> Callable[..., Any]:
        real = getattr(FolderBlobs, name)

        def call(store: FolderBlobs, *args: Any) -> Any:
            asked_by.append(threading.current_thread().name)
            if away and name == "put":
                raise Unreachable(away[0])
            return real(store, *args)

        return call

    for name in ("has", "missing", "put", "read", "local", "size"):
        monkeypatch.setattr(FolderBlobs, name, guarded(name))
    code = {"data": {"snapshot": folder(plane, base="base\n")}}
    more: dict[str, Any] = {"params": PARAMS, "code": code, "values": {"word": "z"}}
    await ended(plane, await run(plane, {"data": CHAIN["data"]}, **more, only="data"))
    search: dict[str, Any] = {
        "sweep": {
            "job": {"command": metric("loss", "{x}")},
            "space": {"x": {"choices": [1, 2]}},
            "objective": {"metric": "loss", "goal": "minimize"},
            "sampler": "grid",
        },
        "inputs": {"in.txt": "${steps.data.outputs.text}"},
    }
    steps = {**CHAIN, "search": search}
    away.append("the storage is away")
    name = await run(plane, steps, **more)

    async def stuck() -> bool:
        problems = (await plane.get("/v1/status"))["problems"]
        return any("the storage is away" in one["what"] for one in problems)

    await until(stuck)
    view = await plane.get(f"/v1/pipelines/{name}")
    assert tasks(view)["data"] == "WAITING", "the pass was taken back"
    away.clear()
    view = await ended(plane, name)
    assert view["state"] == "SUCCEEDED", view
    assert task(view, "data")["state"] == "CACHED"
    assert task(view, "search")["sweep"] == "s1"
    assert (await plane.get("/v1/status"))["problems"] == []

    wanted = {"search": {**search, "params": {"x": 1}}, **steps}
    spec = PipelineSpec.from_json({"name": "probe", "steps": wanted, "params": PARAMS}).to_json()
    answer = {"spec": spec, "params": {"word": "y"}, "code": code, "dry_run": True}
    planned = (await plane.post("/v1/pipelines", answer))["plan"]
    assert {item["plan"] for item in planned if item["step"] == "train"} == {"cached"}
    assert asked_by
    assert not [thread for thread in asked_by if thread.startswith("db-write")]


async def test_a_controller_that_dies_anywhere_starts_nothing_twice(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash before each commit, and one after each: the next controller goes on from the registry."""
    monkeypatch.setattr(flowrun, "RETRY", (0.01, 30.0))
    real = flowrecord.advance
    passes: list[bool] = []

    def dying(*args: Any, **options: Any) -> Any:
        passed = real(*args, **options)
        passes.append(True)
        if len(passes) % 2:
            raise RuntimeError("killed before the commit")
        return passed

    def passed(wanted: int) -> bool:
        return len(passes) > wanted

    monkeypatch.setattr(flowrun, "advance", dying)
    code = {"data": {"snapshot": folder(plane, base="base\n")}}
    name = await run(plane, CHAIN, params=PARAMS, code=code)
    for wanted in (1, 2, 4):
        await until(functools.partial(passed, 2 * wanted))
        await plane.restart()
    view = await ended(plane, name)
    assert view["state"] == "SUCCEEDED", view
    jobs = (await plane.get("/v1/jobs"))["jobs"]
    assert sorted(job["tags"]["step"] for job in jobs) == ["all", "data", "train", "train"]
    assert all(t["tries"] <= 1 for t in view["tasks"])


async def test_secrets_reach_the_steps_that_ask_and_go_with_the_run(plane: Plane) -> None:
    steps = {
        "a": {"job": {"command": "echo $TOKEN", "secrets": ["TOKEN"]}},
        "b": {"job": {"command": "echo x$TOKEN"}},
    }
    with pytest.raises(InvalidInput, match="no value was sent for TOKEN"):
        await run(plane, steps)
    name = await run(plane, steps, secrets={"TOKEN": "s3cret"})
    view = await ended(plane, name)
    assert await log_of(plane, task(view, "a")["job"]) == ["s3cret"]
    assert await log_of(plane, task(view, "b")["job"]) == ["x"]
    assert "s3cret" not in json.dumps(view)
    await until(lambda: not any((plane.root / "state" / "secrets" / "pipelines").iterdir()))


async def test_what_could_never_run_is_refused_before_anything_starts(plane: Plane) -> None:
    steps: dict[str, Any] = {
        "a": {"job": {"command": "true"}},
        "b": {"job": {"command": "true", "resources": {"cpu": 99}}},
    }
    with pytest.raises(InvalidInput, match=r"steps.b: no node can run this"):
        await run(plane, steps)
    steps = {
        "a": {"job": {"command": "true", "outputs": {"o": "o"}}},
        "b": {"job": {"command": "true"}, "inputs": {"base/x": "${steps.a.outputs.o}"}},
    }
    code = {"b": {"snapshot": folder(plane, base="a file")}}
    with pytest.raises(InvalidInput, match=r"steps.b: inputs.base/x: the work folder has a file"):
        await run(plane, steps, code=code)
    assert await plane.get("/v1/pipelines") == []


async def test_many_at_once_and_a_watcher(plane: Plane) -> None:
    lines = await plane.lines("/v1/events", limit=1)
    assert lines is not None
    steps = {"a": {"job": {"command": "true", "resources": {"cpu": 0.1}}, "matrix": {"x": list(range(30))},
                   "parallel": 4}}  # fmt: skip
    name = await run(plane, steps)
    seen: set[str] = set()

    def watch() -> None:
        with plane.client.stream("/v1/watch", topics=f"pipeline:{name},pipelines") as stream:
            for delta in stream:
                if delta["op"] == "put" and delta["topic"] == f"pipeline:{name}":
                    seen.add(delta["key"])
                    if delta["key"] == name and delta["value"]["state"] == "SUCCEEDED":
                        return

    await asyncio.to_thread(watch)
    assert {f"a/{number}" for number in range(30)} | {name} <= seen
    view = await plane.get(f"/v1/pipelines/{name}/wait", timeout=5)
    assert view["counts"] == {"SUCCEEDED": 30, "total": 30}
