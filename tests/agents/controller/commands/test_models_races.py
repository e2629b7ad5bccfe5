"""People who act on one model at the same moment, and a controller that is killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlmodel import Session, col, select

from agents.controller.commands import decisions, models, publishing
from agents.controller.stores.auditheads import AuditHeads
from agents.controller.stores.blobs import FolderBlobs
from agents.controller.stores.trust import own_key
from jobs.access.roles import Role
from jobs.base.errors import Conflict, NotAllowed, QuarterdeckError
from jobs.models.approval import Policy
from jobs.models.names import parse_ref
from jobs.snapshots.manifest import Manifest
from jobs.store import audit
from jobs.store.modeltables import ModelVersionRow
from jobs.store.tables import AuditRow, EventRow
from jobs.store.writing import Caller
from tests.agents.controller.commands.test_models import (
    BOB,
    EVE,
    acts,
    decide,
    plane,
    store,
    take_in,
)
from tests.agents.controller.conftest import Plane

__all__ = ["plane"]  # over SQLite and PostgreSQL

ANN = Caller("ann", 60_001, Role.ADMIN)
ROUNDS = 8


async def outcome(doing: Awaitable[Any]) -> Any:
    """What it gives, or what it was refused with."""
    try:
        return await doing
    except QuarterdeckError as error:
        return error


async def test_two_approvers_at_once_are_two(plane: Plane) -> None:
    await models.set_policy(plane.controller, ANN, "digits", Policy(approvals=2))
    await take_in(plane, {"m.txt": b"1"})
    both = await asyncio.gather(*(decide(plane, who, "digits:1") for who in (BOB, EVE, BOB, EVE)))
    assert sorted(view["approvals"] for view in both)[-1] == 2
    view = await plane.get("/v1/models/digits:1")
    assert (view["state"], len(view["decisions"])) == ("APPROVED", 2)
    assert len(await acts(plane, action="model.approve")) == 2


async def test_approve_against_archive_ends_in_one_order(plane: Plane) -> None:
    for number in range(1, ROUNDS + 1):
        await take_in(plane, {"m.txt": str(number).encode()})
        ref = parse_ref(f"digits:{number}")
        steps = [
            outcome(decide(plane, BOB, str(ref))),
            outcome(models.archive(plane.controller, ANN, ref, "old")),
        ]
        if number % 2:
            steps.reverse()
        await asyncio.gather(*steps)
        view = await plane.get(f"/v1/models/{ref}")
        assert view["state"] == "ARCHIVED"
        story = [row["action"] for row in await acts(plane, target=str(ref))]
        assert story[1:] in (
            ["model.approve", "model.archive"],
            ["model.archive", "model.approve.refused"],
        )
        assert len(view["decisions"]) == ("model.approve" in story)


async def test_production_against_revoke_is_never_unapproved_when_it_is_given(plane: Plane) -> None:
    await take_in(plane, {"m.txt": b"1"})
    ref = parse_ref("digits:1")
    for number in range(ROUNDS):
        await decide(plane, BOB, "digits:1")
        steps = [
            outcome(models.set_alias(plane.controller, ANN, ref, "production")),
            outcome(decisions.revoke(plane.controller, BOB, ref, "a doubt")),
        ]
        if number % 2:
            steps.reverse()
        results = await asyncio.gather(*steps)
        refused = [one for one in results if isinstance(one, NotAllowed)]
        story = [row["action"] for row in await acts(plane, action="model", limit=2)]
        before = ["model.alias", "model.revoke"]
        assert story == (["model.revoke", "model.alias.refused"] if refused else before)
        with contextlib.suppress(QuarterdeckError):
            await models.drop_alias(plane.controller, ANN, "digits", "production")


async def test_versions_that_come_at_once_are_counted_once_each(plane: Plane) -> None:
    def made(data: bytes, **more: Any) -> Awaitable[Any]:
        digest = store(plane, {"m.txt": data}).digest
        doing = publishing.take_in(plane.controller, ANN, "digits", digest, origin="here", **more)
        return outcome(doing)

    same = await asyncio.gather(*(made(b"same") for _ in range(6)))
    assert [one["id"] for one in same] == ["digits:1"] * 6
    assert [one["created"] for one in same].count(True) == 1
    labelled = await asyncio.gather(*(made(b"%d" % n, label="1.0.0") for n in range(6)))
    assert [isinstance(one, Conflict) for one in labelled].count(False) == 1
    others = await asyncio.gather(*(made(b"other %d" % n) for n in range(6)))
    assert sorted(one["id"] for one in others) == [f"digits:{n}" for n in range(3, 9)]
    assert (await plane.get("/v1/audit/verify"))["ok"] is True


PUBLISHER = """
import asyncio, io, sys
from pathlib import Path
from agents.controller.commands import decisions, models, publishing
from agents.controller.controller import Controller
from agents.fabric.local import LocalFabric
from jobs.models.gates import Gate
from jobs.models.names import parse_ref
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store.writing import Caller

ANN = Caller("ann", 60_001)

async def main(state, first):
    controller = await Controller.open(state=Path(state), fabric=LocalFabric([]))
    await controller.start()
    for number in range(int(first), int(first) + 100_000):
        entries = []
        for name in ("a", "b"):
            with controller.blobs.incoming() as incoming:
                incoming.write(f"{name} {number}".encode() * 1000)
                size = len(f"{name} {number}") * 1000
                entries.append(FileEntry(name, 0o644, size, incoming.commit()))
        manifest = Manifest.of(entries)
        controller.blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
        made = await publishing.take_in(controller, ANN, "digits", manifest.digest, origin="here")
        print(made["id"], flush=True)
        ref = parse_ref(made["id"])
        gate = Gate(name="g", conditions=["x >= production"])
        seen = await models.run_gate(controller, ANN, ref, gate)
        await decisions.decide_on(
            controller, ANN, ref, "approve", digest=made["digest"], evidence=seen["evidence"], comment="",
        )
        await models.set_alias(controller, ANN, ref, "production")
        print(made["id"], "production", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_controller_that_is_killed_leaves_versions_whole_or_absent(tmp_path: Path) -> None:
    state, told = tmp_path / "state", list[str]()
    chance = random.Random(7)
    for turn in range(5):
        command = [sys.executable, "-c", PUBLISHER, str(state), str(turn * 1000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told.append(process.stdout.readline().strip())  # it works
            time.sleep(chance.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
            told += [line.strip() for line in process.stdout if line.endswith("\n")]
    look_at(state, [line for line in told if line])


def look_at(state: Path, told: list[str]) -> None:
    """All that was acknowledged is there, and all that is there is whole."""
    engine = create_engine(f"sqlite:///{state / 'state.db'}")
    blobs = FolderBlobs(state / "blobs")
    with Session(engine) as session:
        rows = session.exec(select(ModelVersionRow).order_by(col(ModelVersionRow.number))).all()
        acts_ = session.exec(select(AuditRow)).all()
        events = session.exec(select(EventRow)).all()
        heads = AuditHeads(state, own_key(state)).read()
        verdict = audit.verify_all(session, [(head.id, head.hash) for head in heads])
    engine.dispose()
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        manifest = Manifest.from_bytes(blobs.read(row.digest))
        assert (manifest.digest, len(manifest.files)) == (row.digest, 2)
        assert blobs.missing(manifest.blobs) == []
    acknowledged = {line.split()[0] for line in told}
    assert acknowledged <= {f"digits:{row.number}" for row in rows}
    done = [(act.action, act.target) for act in acts_]
    for number in (row.number for row in rows):
        assert done.count(("model.register", f"digits:{number}")) == 1
    after = {json.loads(act.data)["after"] for act in acts_ if act.action == "model.alias"}
    assert {line.split()[0] for line in told if line.endswith("production")} <= after
    kinds = sorted(event.kind for event in events if event.kind.startswith("model."))
    assert kinds == sorted(act.action for act in acts_ if act.action.startswith("model."))
    assert (verdict.broken_at, verdict.reason) == (None, "")


@pytest.mark.parametrize("name", ["ann", "bob"])
async def test_what_a_person_says_twice_is_one_word(plane: Plane, name: str) -> None:
    who = Caller(name, 61_000, Role.APPROVER)
    await take_in(plane, {"m.txt": b"1"})
    await asyncio.gather(*(decide(plane, who, "digits:1") for _ in range(5)))
    assert len((await plane.get("/v1/models/digits:1"))["decisions"]) == 1
