"""Models from a run's output to production, over SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select, text

from agents.controller.commands import decisions, models
from jobs.access.roles import Role
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, NotFound
from jobs.models.approval import Policy
from jobs.models.gates import Gate
from jobs.models.names import parse_ref
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store import models as stored
from jobs.store.modeltables import ModelVersionRow
from jobs.store.writing import Caller
from tests.agents.controller.conftest import Plane
from tests.agents.controller.registries import make_empty
from tests.openssh import need

BOB, EVE = Caller("bob", 60_002, Role.APPROVER), Caller("eve", 60_003, Role.APPROVER)
TRAIN = f"""{sys.executable} -c "
import os, quarterdeck
quarterdeck.log(val_acc=ACC, step=0)
os.makedirs('out')
open('out/model.safetensors', 'w').write('weights ACC')
open('out/labels.txt', 'w').write('0 1 2')
" """
OUTPUTS = {"model": "out/model.safetensors", "labels": "out/labels.txt"}
GATE = Gate(name="release", conditions=["val_acc >= 0.9", "val_acc >= production - 0.005"])
AWKWARD = 'größe\'); DROP TABLE models;-- "x" %_'


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def plane(request: pytest.FixtureRequest, make_plane: Callable[..., Any]) -> Plane:
    url = None
    if request.param == "postgres":
        url = request.getfixturevalue("postgres")
        make_empty(url)
    made: Plane = await make_plane(database_url=url)
    return made


async def train(plane: Plane, accuracy: float = 0.97) -> str:
    job = await plane.submit(
        TRAIN.replace("ACC", str(accuracy)), outputs=OUTPUTS, seed=7, params={"lr": 0.1}
    )
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    return job


async def register(plane: Plane, job: str, name: str = "digits", **more: Any) -> Any:
    return await plane.post("/v1/models", {"name": name, "run": job, **more})


async def take_in(plane: Plane, files: dict[str, bytes], name: str = "digits", **more: Any) -> Any:
    """A version of these files, as `qd model import` makes one."""
    manifest = store(plane, files)
    return await plane.post("/v1/models", {"name": name, "manifest": manifest.digest, **more})


def store(plane: Plane, files: dict[str, bytes]) -> Manifest:
    entries = []
    for path, data in files.items():
        with plane.controller.blobs.incoming() as incoming:
            incoming.write(data)
            entries.append(FileEntry(path, 0o644, len(data), incoming.commit()))
    manifest = Manifest.of(entries)
    plane.controller.blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
    return manifest


async def decide(
    plane: Plane, who: Caller, ref: str, decision: Any = "approve", **more: Any
) -> Any:
    """Approve or reject what `qd model show` says now."""
    view = await plane.get(f"/v1/models/{ref}")
    body = {"digest": view["digest"], "evidence": view["standing"]["evidence"], "comment": "ok"}
    return await decisions.decide_on(
        plane.controller, who, parse_ref(ref), decision, **{**body, **more}
    )


async def acts(plane: Plane, **query: Any) -> list[dict[str, Any]]:
    return await plane.lines("/v1/audit", **query)


async def test_from_a_run_to_production(plane: Plane) -> None:
    job = await train(plane)
    made = await register(plane, job, label="1.0.0", tags={"team": "vision"})
    assert (made["id"], made["created"], made["warnings"]) == ("digits:1", True, [])
    again = await register(plane, job)
    assert (again["id"], again["created"]) == ("digits:1", False)

    view = await plane.get("/v1/models/digits:1.0.0")
    assert (view["state"], view["run"], view["format"]) == ("PENDING", f"{job}.1", "safetensors")
    assert view["metrics"] == {"val_acc": 0.97}
    assert [file["path"] for file in view["contents"]] == ["labels.txt", "model.safetensors"]
    lineage, detail = view["lineage"], await plane.get(f"/v1/jobs/{job}")
    assert (lineage["seed"], lineage["params"], lineage["nodes"]) == (7, {"lr": 0.1}, ["n1"])
    assert lineage["outputs"] == {a["name"]: a["digest"] for a in detail["artifacts"]}
    assert lineage["command"] == detail["spec"]["command"]

    with pytest.raises(NotAllowed, match="may not become production: needs 1 approval"):
        await plane.post("/v1/models/digits:1/alias", {"alias": "production"})
    await plane.post("/v1/models/digits:1/alias", {"alias": "candidate"})
    result = await plane.post("/v1/models/digits:1/gate", GATE.model_dump())
    assert result["passed"] is True
    assert (await decide(plane, BOB, "digits@candidate"))["state"] == "APPROVED"
    await plane.post("/v1/models/digits:1/alias", {"alias": "production"})
    view = await plane.get("/v1/models/digits@production")
    assert (view["stage"], view["aliases"]) == ("production", ["candidate", "production"])
    (approval,) = view["decisions"]
    assert (approval["counts"], approval["evidence"]) == (True, result["evidence"])

    worse = await register(plane, await train(plane, 0.5))
    assert worse["id"] == "digits:2"
    result = await plane.post("/v1/models/digits:2/gate", GATE.model_dump())
    assert [one["passed"] for one in result["document"]["conditions"]] == [False, False]
    assert result["document"]["conditions"][1]["against"]["version"] == "digits:1"
    with pytest.raises(Conflict, match="has failed its gate"):
        await decide(plane, BOB, "digits:2")
    diff = await plane.get("/v1/models/digits:1/diff/digits:2")
    assert {"metric": "val_acc", "left": 0.97, "right": 0.5} in diff["metrics"]
    assert [row["path"] for row in diff["files"]] == ["model.safetensors"]

    done = [row["action"] for row in await acts(plane, action="model")]
    assert done == [
        "model.register", "model.alias.refused", "model.alias", "model.gate", "model.approve",
        "model.alias", "model.register", "model.gate", "model.approve.refused",
    ]  # fmt: skip
    kinds = [event["kind"] for event in await plane.lines("/v1/events")]
    assert [kind for kind in kinds if kind.startswith("model.")] == done
    assert (await plane.get("/v1/audit/verify"))["ok"] is True


async def test_who_may_approve_what_and_when(plane: Plane) -> None:
    job = await train(plane)
    await register(plane, job)
    ref, controller = parse_ref("digits:1"), plane.controller
    with pytest.raises(NotAllowed, match="may not set the policy"):
        await models.set_policy(controller, BOB, "digits", Policy(approvals=0))
    me = (await plane.get("/v1/models/digits:1"))["user"]
    policy = {"approvals": 2, "submitter": False, "expires": "1h", "gate": GATE.digest}
    await plane.post("/v1/models/digits/policy", {**policy, "approvers": ["bob", "eve", me]})
    view = await plane.get("/v1/models/digits:1")
    body = {"digest": view["digest"], "comment": ""}

    with pytest.raises(NotAllowed, match="made digits:1"):  # by the submitter
        await plane.post("/v1/models/digits:1/approve", body)
    with pytest.raises(NotAllowed, match="may not decide"):
        await decide(plane, Caller("mallory", 60_009), "digits:1")
    with pytest.raises(Conflict, match="has not been run"):
        await decide(plane, BOB, "digits:1")
    await models.run_gate(controller, BOB, ref, GATE)
    with pytest.raises(Conflict, match="has changed since"):  # what he saw is not what there is
        await decide(plane, BOB, "digits:1", evidence=None)
    with pytest.raises(Conflict, match="has the digest"):
        await decide(plane, BOB, "digits:1", digest="sha256:" + "0" * 64)
    with pytest.raises(InvalidInput, match="user"):  # a forged identity
        await plane.post("/v1/models/digits:1/approve", {**body, "user": "bob", "uid": 60_002})

    assert (await decide(plane, BOB, "digits:1"))["reason"] == "needs 1 more approval"
    assert (await decide(plane, BOB, "digits:1"))["approvals"] == 1, "he has said so already"
    assert (await decide(plane, EVE, "digits:1"))["state"] == "APPROVED"
    with pytest.raises(NotAllowed, match="take back"):
        await decisions.revoke(controller, EVE, ref, "", user="bob")
    assert (await decisions.revoke(controller, EVE, ref, "a doubt"))["state"] == "PENDING"
    with pytest.raises(Conflict, match="no decision"):
        await decisions.revoke(controller, EVE, ref, "again")
    assert (await decide(plane, EVE, "digits:1"))["state"] == "APPROVED"
    plane.now.offset += 3700
    assert "expired" in (await plane.get("/v1/models/digits:1"))["reason"]

    refused = [row["user"] for row in await acts(plane, action="model.approve.refused")]
    assert refused == [me, "mallory", "bob", "bob", "bob"]
    assert [row["action"] for row in await acts(plane, user="eve")] == [
        "model.approve", "model.revoke.refused", "model.revoke", "model.revoke.refused",
        "model.approve",
    ]  # fmt: skip


def keygen(*words: str, data: bytes = b"") -> bytes:
    need("ssh-keygen")
    command = ["ssh-keygen", *words]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


async def test_a_signed_approval_is_believed_for_as_long_as_its_key(
    plane: Plane, tmp_path: Path
) -> None:
    await take_in(plane, {"m.txt": b"1"})
    await take_in(plane, {"m.txt": b"2"})
    await plane.post("/v1/models/digits/policy", {"signed": True})
    key, allowed = tmp_path / "key", plane.root / "state" / "allowed_signers"
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(key))
    public = key.with_suffix(".pub").read_text()

    async def signature(who: Caller, ref: str) -> str:
        asked = await decisions.statement_for(
            plane.controller, who, parse_ref(ref), "approve", "ok"
        )
        return keygen(
            "-Y", "sign", "-n", asked["namespace"], "-f", str(key), data=asked["statement"].encode()
        ).decode()  # fmt: skip

    good = await signature(BOB, "digits:1")
    with pytest.raises(NotAllowed, match="only signed"):
        await decide(plane, BOB, "digits:1")
    with pytest.raises(NotAllowed, match="not an allowed key"):
        await decide(plane, BOB, "digits:1", signature=good)
    allowed.write_text(f"bob {public}")
    allowed.chmod(0o666)
    with pytest.raises(NotAllowed, match="not an allowed key"):  # others could have written it
        await decide(plane, BOB, "digits:1", signature=good)
    allowed.chmod(0o644)
    for who, ref, other in (
        (EVE, "digits:1", {}), (BOB, "digits:2", {}), (BOB, "digits:1", {"comment": "something else"}),
    ):  # fmt: skip
        with pytest.raises(NotAllowed, match="does not hold"):
            await decide(plane, who, ref, signature=good, **other)
    assert (await decide(plane, BOB, "digits:1", signature=good))["state"] == "APPROVED"

    (row,) = (await plane.get("/v1/models/digits:1"))["decisions"]
    (tmp_path / "sig").write_text(row["signature"])
    told = keygen(
        "-Y", "verify", "-f", str(allowed), "-I", "bob", "-n", "quarterdeck-approval", "-s",
        str(tmp_path / "sig"), data=row["statement"].encode(),
    )  # fmt: skip
    assert row["signer"].encode() in told

    await plane.controller.db.write(
        lambda s: s.connection().execute(text("UPDATE model_approvals SET version_id = 2")).rowcount
    )
    assert (await plane.get("/v1/models/digits:2"))["state"] == "PENDING", "moved to other files"
    moved = "UPDATE model_approvals SET digest = (SELECT digest FROM model_versions WHERE id = 2)"
    await plane.controller.db.write(lambda s: s.connection().execute(text(moved)).rowcount)
    assert "does not hold" in (await plane.get("/v1/models/digits:2"))["reason"]
    await plane.controller.db.write(
        lambda s: s.connection().execute(text("UPDATE model_approvals SET version_id = 1, digest ="
        " (SELECT digest FROM model_versions WHERE id = 1)")).rowcount
    )  # fmt: skip
    assert (await plane.get("/v1/models/digits:1"))["state"] == "APPROVED"
    allowed.write_text("# bob's key was lost\n")
    assert (await plane.get("/v1/models/digits:1"))["state"] == "PENDING"


async def test_checkpoints_are_signed_and_a_copy_finds_what_the_file_cannot(plane: Plane) -> None:
    for number in range(3):
        await take_in(plane, {"m.txt": str(number).encode()})
    file = plane.root / "state" / "audit-heads.jsonl"
    copy = file.read_text()
    last = (await acts(plane))[-1]["id"]
    await plane.controller.db.write(
        lambda s: s.connection().execute(text(f"DELETE FROM audit WHERE id = {last}")).rowcount
    )
    lines = copy.splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))  # somebody who can write both
    assert (await plane.get("/v1/audit/verify"))["ok"] is True
    found = await plane.post("/v1/audit/verify", {"heads": copy})
    assert (found["ok"], found["broken_at"]) == (False, last)
    forged = lines[0].replace('"id": 1', '"id": 2')
    found = await plane.post("/v1/audit/verify", {"heads": forged})
    assert found["ok"] is False
    head = json.loads(lines[1])
    head["at"] += 1
    found = await plane.post("/v1/audit/verify", {"heads": json.dumps(head)})
    assert (found["ok"], "not signed" in found["reason"]) == (False, True)


async def test_a_no_and_the_archive(plane: Plane) -> None:
    await take_in(plane, {"model.safetensors": b"one"})
    await decide(plane, BOB, "digits:1")
    assert (await decide(plane, EVE, "digits:1", "reject", comment="why?"))["state"] == "REJECTED"
    with pytest.raises(NotAllowed, match="rejected by eve"):
        await plane.post("/v1/models/digits:1/alias", {"alias": "production"})
    assert (await decide(plane, EVE, "digits:1"))["state"] == "APPROVED"
    await plane.post("/v1/models/digits:1/alias", {"alias": "production"})
    with pytest.raises(Conflict, match="digits:1 is production"):
        await plane.post("/v1/models/digits:1/archive", {})
    gone = await plane.post("/v1/models/digits:1/unalias", {"alias": "production"})
    assert (gone["version"], gone["before"]) == (None, "digits:1")
    await plane.post("/v1/models/digits:1/archive", {"reason": "old"})
    assert await plane.get("/v1/models") == []
    assert [v["id"] for v in await plane.get("/v1/models", archived=True)] == ["digits:1"]
    with pytest.raises(Conflict, match="is archived"):
        await decide(plane, BOB, "digits:1")
    with pytest.raises(Conflict, match="is archived"):
        await take_in(plane, {"model.safetensors": b"one"})
    await plane.post("/v1/models/digits:1/archive", {"undo": True})
    assert (await plane.get("/v1/models/digits:1"))["state"] == "APPROVED"


async def test_words_of_people_are_stored_and_found_and_nothing_else(plane: Plane) -> None:
    long = "ä" * 10_240
    tags = {AWKWARD: "' OR '1'='1", 'a"b\\c': long, "emoji": "🚀\u202e"}
    await take_in(plane, {"m.onnx.txt": b"x"}, AWKWARD, tags=tags)
    await take_in(plane, {"other.txt": b"y"}, "plain", tags={"k": "v"})
    (found,) = await plane.get("/v1/models", name=AWKWARD)
    assert found["name"] == AWKWARD
    assert len(await plane.get("/v1/models", q="%_")) == 1, "no wildcards"
    for key, value in tags.items():
        rows = await plane.get("/v1/models", tag=f"{key}={value}")
        assert [row["name"] for row in rows] == [AWKWARD]
    for odd in ("x' OR '1'='1", "') UNION SELECT * FROM audit--"):
        assert await plane.get("/v1/models", name=odd) == []
        assert await plane.get("/v1/models", tag=f"k={odd}") == []
        assert await plane.get("/v1/models", alias=odd) == []
        assert await acts(plane, user=odd) == []
    changed = await plane.post(
        "/v1/models/plain:1/tags", {"tags": {"k": None, "'; DELETE FROM model_tags;--": "x"}}
    )
    assert changed == {"'; DELETE FROM model_tags;--": "x"}
    assert len(await plane.get("/v1/models")) == 2
    assert (await plane.get("/v1/audit/verify"))["ok"] is True


async def test_pickles_are_refused_and_marked_where_they_are_taken(plane: Plane) -> None:
    data = pickle.dumps({"w": 1})
    for name in ("model.pkl", "innocent.bin"):
        with pytest.raises(NotAllowed, match="takes no pickles"):
            await take_in(plane, {name: data})
    assert await plane.get("/v1/models") == []
    with pytest.raises(NotFound):
        await plane.get("/v1/models/digits/policy")
    await plane.post("/v1/models/digits/policy", {"pickle": True})
    made = await take_in(plane, {"model.pkl": data})
    assert "runs what is in it" in made["warnings"][0]
    await plane.post("/v1/models/digits/policy", {"pickle": False})
    view = await plane.get("/v1/models/digits:1")
    assert (view["pickle"], view["format"]) == (True, "pickle")


async def test_versions_are_what_was_sent_or_are_not_there(plane: Plane) -> None:
    whole = store(plane, {"a.txt": b"a"})
    lies = Manifest.of([FileEntry("a.txt", 0o644, 9, whole.files[0].sha256)])
    gone = Manifest.of([FileEntry("a.txt", 0o644, 1, "0" * 64)])
    link = Manifest.of([FileEntry("a.txt", 0o644, 0, "", "/etc/passwd")])
    for manifest, error in ((lies, InvalidInput), (gone, NotFound), (link, InvalidInput)):
        plane.controller.blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
        with pytest.raises(error):
            await plane.post("/v1/models", {"name": "digits", "manifest": manifest.digest})
    with pytest.raises(InvalidInput, match="not an ONNX file"):
        await take_in(plane, {"model.onnx": b"not at all"})
    with pytest.raises(NotFound):
        await plane.post("/v1/models", {"name": "digits", "run": "j99"})
    assert await plane.get("/v1/models") == []
    await take_in(plane, {"a.txt": b"a"}, label="1.0.0")
    with pytest.raises(Conflict, match=r"has a version 1\.0\.0"):
        await take_in(plane, {"b.txt": b"b"}, label="1.0.0")
    assert (await take_in(plane, {"b.txt": b"b"}))["id"] == "digits:2", "numbers leave no gaps"


async def test_what_a_version_refers_to_is_never_pruned(plane: Plane) -> None:
    await take_in(plane, {"model.safetensors": b"one"})
    store(plane, {"nobody.txt": b"two"})
    plane.now.offset += 30 * 86_400
    view = await plane.post("/v1/blobs/prune", {"older_than": 3600})
    assert view["blobs"] == 2, "a file and a manifest that nothing refers to"
    await plane.post("/v1/models/digits:1/archive", {})
    plane.now.offset += 30 * 86_400
    assert (await plane.post("/v1/blobs/prune", {"older_than": 3600}))["blobs"] == 0
    assert (await plane.post("/v1/models/digits:1/verify"))["ok"] is True


async def test_a_tampered_file_is_found_and_located(plane: Plane, tmp_path: Path) -> None:
    await take_in(plane, {"a/model.safetensors": b"one", "b.txt": b"two"})
    view = await plane.get("/v1/models/digits:1")
    blob = plane.controller.blobs.local(view["contents"][0]["sha256"])
    path = "/v1/models/digits:1/files/a/model.safetensors"
    assert (await asyncio.to_thread(plane.client.raw, path))[0] == b"one"
    blob.write_bytes(b"uno")
    found = await plane.post("/v1/models/digits:1/verify")
    assert (found["ok"], [item["path"] for item in found["problems"]]) == (
        False,
        ["a/model.safetensors"],
    )
    blob.unlink()
    (problem,) = (await plane.post("/v1/models/digits:1/verify"))["problems"]
    assert problem["problem"] == "is gone"
    assert (await plane.lines("/v1/events"))[-1]["kind"] == "model.damaged"


async def test_evidence_that_was_changed_takes_the_approval_away(plane: Plane) -> None:
    await register(plane, await train(plane, 0.5))
    gate = Gate(name="g", conditions=["val_acc >= 0.4"])
    await plane.post("/v1/models/digits:1/gate", gate.model_dump())
    assert (await decide(plane, BOB, "digits:1"))["state"] == "APPROVED"
    statement = "UPDATE model_gates SET evidence = REPLACE(CAST(evidence AS VARCHAR), '0.5', '0.9')"
    if "postgres" in (plane.database_url or ""):
        statement = "UPDATE model_gates SET evidence = REPLACE(evidence::text, '0.5', '0.9')::json"
    await plane.controller.db.write(lambda s: s.connection().execute(text(statement)).rowcount)
    view = await plane.get("/v1/models/digits:1")
    assert (view["state"], "was changed" in view["reason"]) == ("PENDING", True)
    assert view["gates"][0]["sound"] is False


async def test_a_tampered_audit_row_and_a_cut_end_are_found(plane: Plane) -> None:
    for number in range(3):
        await take_in(plane, {"m.txt": str(number).encode()})
    assert (await plane.get("/v1/audit/verify"))["ok"] is True

    async def tamper(statement: str) -> Any:
        await plane.controller.db.write(lambda s: s.connection().execute(text(statement)).rowcount)
        return await plane.get("/v1/audit/verify")

    last = (await acts(plane))[-1]["id"]
    found = await tamper(f"UPDATE audit SET target = 'digits:9' WHERE id = {last - 1}")
    assert (found["ok"], found["broken_at"]) == (False, last - 1)
    assert (await tamper(f"UPDATE audit SET target = 'digits:2' WHERE id = {last - 1}"))[
        "ok"
    ] is True
    cut = await tamper(f"DELETE FROM audit WHERE id = {last}")
    assert (cut["ok"], cut["broken_at"], "cut off" in cut["reason"]) == (False, last, True)
    await take_in(plane, {"m.txt": b"after"})  # where ids are used again, the checkpoint differs
    found = await plane.get("/v1/audit/verify")
    assert (found["ok"], found["broken_at"]) == (False, last)


async def test_a_new_controller_finds_it_all(plane: Plane) -> None:
    await take_in(plane, {"m.txt": b"1"}, tags={"k": "v"})
    await decide(plane, BOB, "digits:1")
    before = await plane.get("/v1/models/digits:1")
    await plane.restart()
    assert await plane.get("/v1/models/digits:1") == before

    def versions(session: Session) -> int:
        stored.digests(session)
        return len(session.exec(select(ModelVersionRow)).all())

    assert await plane.controller.db.read(versions) == 1
    assert (await plane.get("/v1/audit/verify"))["ok"] is True
