"""Steps that the controller takes itself: registered, gated, approved by people, deployed, told."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pwd
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlmodel import Session, select

from agents.controller.flows import flowrecord, flowrun
from jobs.access.roles import Role
from jobs.base.errors import InvalidInput, NotFound
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store.alerttables import AlertNoteRow
from jobs.store.modeltables import GateRow, ModelVersionRow
from jobs.store.servicetables import ReleaseRow
from jobs.store.tables import AuditRow
from tests.agents.controller.commands.test_datasets import add
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.flows.test_flows import (
    ended,
    folder,
    log_of,
    metric,
    run,
    task,
    tasks,
)
from tests.agents.controller.services.test_models import times

T = TypeVar("T")
ME = pwd.getpwuid(os.getuid()).pw_name
STEPS: dict[str, Any] = {
    "train": {"job": {"command": f"cp times.onnx out.onnx; {metric('acc', '0.9')}",
                      "outputs": {"model": "out.onnx"}, "resources": {"cpu": 0.5}}},
    "register": {"register": {"model": "times", "run": "${steps.train.job}"}},
    "gate": {"gate": {"model": "${steps.register.model}", "name": "g",
                      "conditions": ["acc >= 0.8"]}},
    "approval": {"needs": ["gate"], "approval": {"model": "${steps.register.model}"}},
    "deploy": {"deploy": {"model": "${steps.approval.model}", "alias": "production", "warm": "1s",
                          "resources": {"cpu": 0.5}}},
    "word": {"always": True, "notify": {"text": "{name} {state}: {reason}"}},
}  # fmt: skip


def only(*names: str, **more: Any) -> dict[str, Any]:
    return {name: STEPS[name] for name in names} | more


@pytest.fixture
async def plane(make_plane: Any) -> Plane:
    made: Plane = await make_plane(cpus=4)
    return made


def code(plane: Plane, factor: float = 2.0) -> dict[str, Any]:
    data = times(factor)
    with plane.controller.blobs.incoming() as incoming:
        incoming.write(data)
        digest = incoming.commit()
    manifest = Manifest.of([FileEntry("times.onnx", 0o644, len(data), digest)])
    if not plane.controller.blobs.has(manifest.digest):
        plane.controller.blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
    return {"train": {"snapshot": manifest.digest}}


async def rows(plane: Plane, table: type[T]) -> list[T]:
    def read(session: Session) -> list[T]:
        found = list(session.exec(select(table)).all())
        session.expunge_all()
        return found

    return await plane.controller.db.read(read)


async def waiting(plane: Plane, name: str, step: str, told: str) -> str:
    async def look() -> str | None:
        view = await plane.get(f"/v1/pipelines/{name}")
        reason: str = task(view, step)["reason"]
        assert view["state"] == "RUNNING", view["reason"]
        return reason if told in reason else None

    found: str = await until(look, what=lambda: f"{step} to wait for {told}")
    return found


async def approve(plane: Plane, ref: str, word: str = "approve") -> None:
    view = await plane.get(f"/v1/models/{ref}")
    body = {"digest": view["digest"], "evidence": view["standing"]["evidence"], "comment": "ok"}
    await plane.post(f"/v1/models/{ref}/{word}", body)


async def test_from_training_to_production_with_one_step_by_hand(plane: Plane) -> None:
    sink = plane.root / "state" / "alerts.yaml"
    sink.write_text("channels: {ops: 'json://127.0.0.1:9/'}\n")  # nobody listens: the note stays
    name = await run(plane, STEPS, code=code(plane))
    told = await waiting(plane, name, "approval", "approval of times:1")
    assert told == "approval of times:1 by 1 approver: qd model approve times:1"
    await plane.restart()  # what waits for a person is not failed by that
    await approve(plane, "times:1")
    view = await ended(plane, name)
    assert view["state"] == "SUCCEEDED", view
    assert set(tasks(view).values()) == {"SUCCEEDED"}
    assert task(view, "deploy")["left"] == {"model": "times:1"}
    assert (await plane.get("/v1/models/times:1"))["aliases"] == ["production"]
    assert (await plane.get("/v1/deployments/times"))["live"] == "1"
    [note] = [note for note in await rows(plane, AlertNoteRow) if "probe" in note.text]
    assert (note.channel, note.text) == ("ops", "probe succeeded: ")
    mine = {
        row.action: json.loads(row.data)
        for row in await rows(plane, AuditRow)
        if row.user == ME and "step" in json.loads(row.data)
    }
    assert {action: data["step"] for action, data in mine.items()} == {
        "model.register": "register", "model.gate": "gate", "rollout.started": "deploy",
        "model.alias": "deploy",
    }  # fmt: skip
    assert mine["model.gate"]["pipeline"] == name

    story = await plane.get("/v1/stories/times")
    kinds = [(one["kind"], one["who"], one["step"]) for one in story["happenings"]]
    assert kinds == [
        ("pipeline.run", ME, None), ("run", ME, None), ("model.register", ME, "register"),
        ("model.gate", ME, "gate"), ("model.approve", ME, None), ("rollout.started", ME, "deploy"),
        ("rollout.promoted", "", None), ("model.alias", ME, "deploy"), ("pipeline.ended", "", None),
    ]  # fmt: skip
    assert story["serving"] == [{"service": "times", "target": "production", "version": "1"}]
    assert story["aliases"] == {"production": "times:1"}
    assert (await plane.get("/v1/stories/times", limit=2))["left_out"] == len(kinds) - 2
    with pytest.raises(NotFound, match="there is no model 'time'"):
        await plane.get("/v1/stories/time")

    # Once more: the same bytes are the same version, which is approved and serves already.
    again = await ended(plane, await run(plane, STEPS, code=code(plane)))
    assert tasks(again)["train"] == "CACHED"
    assert again["state"] == "SUCCEEDED"
    assert len(await rows(plane, ReleaseRow)) == 1
    part = await ended(plane, await run(plane, STEPS, only="deploy"))
    assert (tasks(part)["approval"], tasks(part)["deploy"]) == ("CACHED", "SUCCEEDED"), part
    assert task(part, "deploy")["left"] == {"model": "times:1"}


async def test_data_are_checked_and_the_version_that_was_is_the_one_that_is_used(
    plane: Plane,
) -> None:
    async def add(text: str) -> None:
        body = {"name": "rows", "digest": folder(plane, **{"a.csv": text}), "file": "a.csv"}
        await plane.post("/v1/data", body)

    steps = {
        "check": {"data-check": {"data": "${params.data}", "python": sys.executable,
                                 "expect": {"table": {"columns": {"n": {"type": "integer", "max": 5}}}},
                                 "resources": {"cpu": 0.1}}},
        "use": {"job": {"command": "cat $QD_DATA_ROWS", "resources": {"cpu": 0.1}},
                "data": {"rows": "${steps.check.data}"}},
    }  # fmt: skip
    with pytest.raises(NotFound, match=r"steps.check: there is no data set rows"):
        await run(plane, steps, params={"data": "rows"})
    await add("n\n1\n5\n")
    view = await ended(plane, await run(plane, steps, params={"data": "rows"}))
    assert view["state"] == "SUCCEEDED", view
    assert task(view, "check")["left"] == {"data": "rows@1"}
    assert await log_of(plane, task(view, "use")["job"]) == ["n", "1", "5"]
    again = await ended(plane, await run(plane, steps, params={"data": "rows"}))
    assert set(tasks(again).values()) == {"CACHED"}
    await add("n\n1\n6\n")
    bad = await ended(plane, await run(plane, steps, params={"data": "rows"}))
    assert tasks(bad) == {"check": "FAILED", "use": "SKIPPED"}
    assert task(bad, "check")["reason"].startswith("the data are not as expected")
    told = "\n".join(await log_of(plane, task(bad, "check")["job"]))
    assert "n" in told
    assert "max" in told or "5" in told


def test_what_a_message_says_is_never_read_again() -> None:
    text = "$${x} {state} ${params.word}: {reason} {other}"
    values = {"params.word": "{reason} ${params.word}"}
    news = {"state": "failed", "reason": "{state} ${params.word}"}
    told = flowrecord.told(text, values, news)
    assert told == "${x} failed {reason} ${params.word}: {state} ${params.word} {other}"


async def test_a_gate_stops_and_says_why(plane: Plane) -> None:
    strict = {"model": "${steps.register.model}", "name": "g", "conditions": ["acc >= 0.95"]}
    name = await run(plane, {**STEPS, "gate": {"gate": strict}}, code=code(plane))
    view = await ended(plane, name)
    why = "times:1 was stopped by gate g: acc >= 0.95: acc is 0.9, < 0.95"
    assert view["reason"] == f"gate failed: {why}"
    assert tasks(view)["approval"] == tasks(view)["deploy"] == "SKIPPED"


async def test_nobody_but_a_person_approves(plane: Plane) -> None:
    policy = {"approvals": 0, "protected": ["production"]}
    await plane.post("/v1/models/times/policy", policy)
    steps = only("train", "register", approval={"approval": {"model": "${steps.register.model}"}})
    name = await run(plane, steps, code=code(plane))
    await waiting(plane, name, "approval", "by 1 approver")
    await approve(plane, "times:1", "reject")
    view = await ended(plane, name)
    assert view["reason"] == f"approval failed: times:1 is rejected by {ME}"
    limited = {"approval": {"model": "times:1"}, "timeout": "1h"}
    await plane.post("/v1/models/times:1/revoke", {"reason": "try again"})
    name = await run(plane, {"approval": limited})
    await waiting(plane, name, "approval", "by 1 approver")
    plane.now.offset += 3700
    await plane.post("/v1/models/times:1/tags", {"tags": {"a": "b"}})  # a hint
    view = await ended(plane, name)
    assert view["reason"].startswith("approval failed: times:1 was not approved within 1h")
    name = await run(plane, {"approval": {"approval": {"model": "times:1"}}})
    await waiting(plane, name, "approval", "by 1 approver")
    await plane.post(f"/v1/pipelines/{name}/cancel")
    assert (await ended(plane, name))["state"] == "CANCELLED"


async def test_production_takes_only_what_is_approved(plane: Plane) -> None:
    steps = only("train", "register", deploy={"deploy": {"model": "${steps.register.model}"}})
    view = await ended(plane, await run(plane, steps, code=code(plane)))
    assert "times:1 may not be deployed to production" in task(view, "deploy")["reason"]
    assert await rows(plane, ReleaseRow) == []


async def test_a_rollout_that_comes_back_fails_its_step(plane: Plane) -> None:
    steps = only(
        "train", "register",
        deploy={"deploy": {"model": "${steps.register.model}", "to": "staging", "python": "/bin/false",
                           "resources": {"cpu": 0.5}}},
    )  # fmt: skip
    name = await run(plane, steps, code=code(plane))
    await waiting(plane, name, "deploy", "times:1 at staging to be ready")
    await plane.post("/v1/deployments/times/abort?target=staging")
    view = await ended(plane, name)
    assert task(view, "deploy")["reason"] == f"times:1 aborted by {ME}"
    name = await run(plane, steps, code=code(plane))
    await waiting(plane, name, "deploy", "times:1 at staging to be ready")
    await plane.post(f"/v1/pipelines/{name}/cancel")
    view = await ended(plane, name)
    assert (view["state"], tasks(view)["deploy"]) == ("CANCELLED", "CANCELLED")
    rollout = (await plane.get("/v1/deployments/times", target="staging"))["rollout"]
    assert rollout["phase"] == "aborted"


async def test_what_is_not_there_is_refused_before_anything_starts(plane: Plane) -> None:
    with pytest.raises(NotFound, match=r"steps.a: there is no model 'm'"):
        await run(plane, {"a": {"approval": {"model": "m:1"}}})
    with pytest.raises(InvalidInput, match=r"steps.a: to: there is no channel 'ops'"):
        await run(plane, {"a": {"notify": {"text": "x", "to": "ops"}}})
    with pytest.raises(NotFound, match=r"steps.a: there is no data set digits"):
        await run(plane, {"a": {"job": {"command": "true", "data": {"d": "digits"}}}})
    assert await plane.get("/v1/pipelines") == []


async def test_a_controller_that_dies_between_any_two_writes_does_each_thing_once(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write of the engine is lost before its commit, or its controller dies after it."""
    monkeypatch.setattr(flowrun, "RETRY", (0.01, 30.0))
    writes: list[str] = []
    kills: list[str] = []
    chance = random.Random(7)
    died = asyncio.Event()
    (plane.root / "state" / "alerts.yaml").write_text("channels: {ops: 'json://127.0.0.1:9/'}\n")

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        async def write(work: Callable[[Session], Any]) -> Any:
            named = asyncio.current_task()
            name = "" if named is None else named.get_name()
            if not name.startswith(("pipeline-", "act-")):
                return await real(work)
            writes.append(name)
            how = chance.choice(["before", "after", "", ""]) if len(kills) < 12 else ""
            if how:
                kills.append(how)
            if how == "before":
                raise RuntimeError("killed before the commit")
            done = await real(work)
            if how == "after":
                died.set()
                raise asyncio.CancelledError
            return done

        return write

    async def go_on(name: str, *, waits: bool) -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/pipelines/{name}")
        if view["state"] != "RUNNING" or (waits and task(view, "approval")["reason"]):
            return view
        if died.is_set():
            died.clear()
            await plane.restart()
            monkeypatch.setattr(plane.controller.db, "write", dying(plane.controller.db.write))
        return None

    monkeypatch.setattr(plane.controller.db, "write", dying(plane.controller.db.write))
    name = await run(plane, STEPS, code=code(plane))
    await until(lambda: go_on(name, waits=True), what=lambda: str(writes))
    await approve(plane, "times:1")
    view = await until(lambda: go_on(name, waits=False), what=lambda: str(writes))
    assert view["state"] == "SUCCEEDED", view
    assert all(one["tries"] == 1 for one in view["tasks"])
    for table in (ModelVersionRow, GateRow, ReleaseRow):
        assert len(await rows(plane, table)) == 1, table
    assert [n.text for n in await rows(plane, AlertNoteRow) if "probe" in n.text] == [
        "probe succeeded: "
    ]
    assert len((await plane.get("/v1/jobs"))["jobs"]) == 3  # a training, a replica, the front
    assert len(kills) == 12


async def test_a_step_acts_with_the_role_of_who_started_it(plane: Plane) -> None:
    await plane.controller.acts.check(  # an operator may
        _act("approval", {"model": "${steps.x.model}"}), {"model": None}, _caller(Role.OPERATOR)
    )
    from jobs.base.errors import NotAllowed

    with pytest.raises(NotAllowed):
        await plane.controller.acts.check(
            _act("approval", {"model": "${steps.x.model}"}), {"model": None}, _caller(Role.VIEWER)
        )


def _act(kind: str, fields: dict[str, Any]) -> Any:
    from jobs.flows.spec import Step

    return Step.model_validate({kind: fields}).act


def _caller(role: Role) -> Any:
    from jobs.store.writing import Caller

    return Caller("ada", 7, role)


async def test_a_version_is_evaluated_on_its_way(plane: Plane, tmp_path: Path) -> None:
    """The larger of two numbers is the class; of forty rows one is another."""
    dice = random.Random(1)
    pairs = [(dice.random(), dice.random()) for _ in range(40)]
    rows = [f"{a},{b},{int(b > a) ^ (not n)}" for n, (a, b) in enumerate(pairs)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,target", *rows]) + "\n")
    await add(plane, "test", tmp_path / "t.csv")
    evaluate = {"model": "${steps.register.model}", "data": "test"}
    gate: dict[str, Any] = {"model": "${steps.evaluate.model}", "name": "g", "data": "test"}
    gate["conditions"] = ["accuracy >= 0.8"]
    steps = only("train", "register", evaluate={"evaluate": evaluate}, gate={"gate": gate})
    view = await ended(plane, await run(plane, steps, code=code(plane)))
    assert view["state"] == "SUCCEEDED", view["reason"]
    left = {one["step"]: one["left"] for one in view["tasks"]}["evaluate"]
    assert left == {"model": "times:1", "data": "test@1", "evaluation": "e1"}
    (found,) = (await plane.get("/v1/models/times:1"))["gates"]
    assert found["document"]["conditions"][0]["on"]["evaluation"] == "e1"

    steps["evaluate"] = {"evaluate": evaluate | {"target": "nose"}}
    view = await ended(plane, await run(plane, steps, code=code(plane)))
    assert tasks(view)["evaluate"] == "FAILED" and tasks(view)["gate"] == "SKIPPED"
    why = "evaluate failed: could not measure times:1 on test@1 (e2): there is no column 'nose'"
    assert view["reason"].startswith(why)
    steps["evaluate"] = {"evaluate": evaluate | {"data": "nothing"}}
    with pytest.raises(NotFound, match=r"steps\.evaluate: there is no data set nothing"):
        await run(plane, steps, code=code(plane))
