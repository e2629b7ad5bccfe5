"""`qd model`, `qd models`, `qd gate` and `qd audit` as people and scripts see them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from jobs.base.errors import Conflict, NotAllowed
from jobs.models.signers import APPROVAL, Signers, read_signers, statement
from jobs.snapshots.manifest import Manifest
from jobs.snapshots.pack import read_pack
from tests.console.fake_controller import FakeController, Reply, Request
from tests.openssh import need

DIGEST, EVIDENCE = "sha256:" + "ab" * 32, "sha256:" + "ef" * 32
AT = "2026-11-29T08:00:00.000Z"


def view(**over: Any) -> dict[str, Any]:
    """A ModelView."""
    return {
        "id": "digits:3", "name": "digits", "version": 3, "label": None, "digest": DIGEST, "stage": "",
        "aliases": [], "state": "PENDING", "reason": "needs 1 approval", "run": "j3.1",
        "format": "onnx", "pickle": False, "size": 10, "files": 1, "metrics": {"val_acc": 0.975},
        "approvals": 0, "approvals_needed": 1, "user": "ann", "created_at": AT, "archived_at": None,
    } | over  # fmt: skip


def evidence(passed: bool = True, **over: Any) -> dict[str, Any]:
    """An EvidenceView of one condition."""
    why = f"val_acc is 0.975, {'>=' if passed else '<'} 0.98"
    document = {
        "gate": {"name": "release", "digest": "sha256:g", "conditions": ["val_acc >= 0.98"]},
        "version": "digits:3", "digest": DIGEST, "run": "j3.1", "passed": passed, "at": AT, "by": "ann",
        "conditions": [
            {"asked": "val_acc >= 0.98", "metric": "val_acc", "measured": 0.975, "limit": 0.98,
             "against": None, "passed": passed, "why": why}
        ],
    }  # fmt: skip
    return {
        "evidence": EVIDENCE, "sound": True, "passed": passed, "at": AT, "user": "ann",
        "document": document,
    } | over  # fmt: skip


def detail(files: dict[str, bytes] | None = None, **over: Any) -> dict[str, Any]:
    """A ModelDetail."""
    contents = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in (files or {"model.onnx": b"0123456789"}).items()
    ]
    lineage = {
        "kind": "run", "run": "j3.1", "name": "digits", "user": "ann", "command": "python train.py",
        "params": {"lr": 0.1}, "seed": 7, "data": None, "snapshot": "sha256:s", "git": None,
        "sweep": None, "nodes": ["n1"],
    }  # fmt: skip
    standing = {
        "state": "PENDING", "reason": "needs 1 approval", "counted": 0, "needed": 1,
        "evidence": EVIDENCE,
    }  # fmt: skip
    return {
        **view(), "standing": standing, "main": "model.onnx", "pickles": [], "signature": None,
        "tags": {"team": "vision"}, "lineage": lineage, "policy": {}, "gates": [evidence()],
        "decisions": [], "evaluations": [], "contents": contents,
    } | over  # fmt: skip


def test_models_are_listed(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/models", [view(aliases=["production"], state="APPROVED")])
    result = qd("models", "digits", "--tag", "a=b=c", "--tag", "ü=' OR 1=1")
    assert result.code == 0
    assert result.out.splitlines()[1].split()[:3] == ["digits:3", "APPROVED", "production"]
    (request,) = controller.requests
    assert request.query["tag"] == ["a=b=c", "ü=' OR 1=1"]
    assert (request.one("name"), request.one("q")) == ("digits", None)
    assert json.loads(qd("models", "--json").out)[0]["id"] == "digits:3"
    assert qd("model", "--json").out == qd("models", "--json").out


def test_register_says_which_version(qd: Any, controller: FakeController) -> None:
    answer = {"id": "digits:3", "digest": DIGEST, "created": True, "warnings": ["m.pkl: it is one"]}
    controller.on("POST /v1/models", answer, {**answer, "created": False, "warnings": []})
    result = qd("model", "register", "j3", "digits", "--output", "model", "--tag", "k=v")
    assert (result.code, result.out) == (0, "digits:3\n")
    assert "warning: m.pkl: it is one" in result.err
    assert controller.requests[-1].json == {
        "name": "digits", "run": "j3", "outputs": ["model"], "label": None, "tags": {"k": "v"},
    }  # fmt: skip
    again = qd("model", "register", "j3", "digits")
    assert (again.out, "already" in again.err) == ("digits:3\n", True)
    assert qd("model", "register", "j3", "digits", "--tag", "novalue").code == 2


def test_import_sends_the_files_that_are_there(
    qd: Any, controller: FakeController, tmp_path: Path
) -> None:
    folder = tmp_path / "hub"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("no")
    (tmp_path / "blob").write_bytes(b"weights")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    (folder / "config.json").write_text("{}")
    controller.on("POST /v1/blobs/missing", lambda r: Reply.of({"missing": r.json["digests"]}))
    controller.on("POST /v1/blobs", {"stored": 3})
    answer = {"id": "digits:1", "digest": DIGEST, "created": True, "warnings": []}
    controller.on("POST /v1/models", answer)
    assert qd("model", "import", str(folder), "digits", "--label", "1.0.0").code == 0
    (pack,) = controller.asked("POST /v1/blobs")
    blobs = dict(read_pack(pack.body))
    body = controller.requests[-1].json
    manifest = Manifest.from_bytes(blobs[body["manifest"].removeprefix("sha256:")])
    assert {entry.path: blobs[entry.sha256] for entry in manifest.files} == {
        "config.json": b"{}", "model.safetensors": b"weights",
    }  # fmt: skip
    assert body["label"] == "1.0.0"
    assert body["origin"].endswith(str(folder))
    missing = qd("model", "import", str(tmp_path / "nothing"), "digits")
    assert (missing.code, "no such file" in missing.err) == (2, True)


def test_show(qd: Any, controller: FakeController) -> None:
    decision = {
        "id": 1, "decision": "approve", "user": "bob", "at": AT, "comment": "good\x1b[2J",
        "digest": DIGEST, "evidence": EVIDENCE, "counts": True, "expires_at": None,
        "revoked_at": None, "revoked_by": None, "revoked_why": None,
        "signer": "SHA256:key", "signature": "SIG", "statement": "{}",
    }  # fmt: skip
    signature = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 64]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [None, 10]}],
    }
    pickles = [["model.pkl", "it begins as pickle protocol 4 does"]]
    more: dict[str, Any] = {"signature": signature, "decisions": [decision], "pickles": pickles}
    controller.on("GET /v1/models/digits:3", detail(**more))
    result = qd("model", "show", "digits:3")
    assert result.code == 0
    for text in (
        DIGEST, "batch×64", "?×10", "j3.1 digits, by ann", '{"lr": 0.1}', "team=vision", "model.onnx",
        "signed by SHA256:key",
        "gate release passed", "val_acc >= 0.98", "good␛[2J", "pickle protocol 4",
    ):  # fmt: skip
        assert text in result.out, text
    assert json.loads(qd("model", "show", "digits:3", "--json").out)["id"] == "digits:3"


def test_names_are_one_segment_of_the_path(qd: Any, controller: FakeController) -> None:
    name = "größe'; DROP TABLE models;-- ?#%:2"
    controller.on(f"GET /v1/models/{name}", detail())
    assert qd("model", "show", name).code == 0


def test_an_approval_names_what_was_shown(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/models/digits", detail())
    controller.on("POST /v1/models/digits:3/approve", view(state="APPROVED", reason="by ann"))
    refused = qd("model", "approve", "digits")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert not controller.asked("POST /v1/models/digits:3/approve")
    result = qd("model", "approve", "digits", "--yes", "-m", "looks right")
    assert result.code == 0
    assert "gate release passed" in result.out
    assert result.out.splitlines()[-1] == "digits:3 APPROVED by ann"
    (request,) = controller.asked("POST /v1/models/digits:3/approve")
    assert request.json == {"digest": DIGEST, "evidence": EVIDENCE, "comment": "looks right"}


@pytest.mark.parametrize(("error", "code"), [(NotAllowed("no"), 4), (Conflict("no"), 6)])
def test_what_is_refused_ends_with_its_code(
    qd: Any, controller: FakeController, error: Any, code: int
) -> None:
    controller.on("GET /v1/models/digits:3", detail())
    controller.on("POST /v1/models/digits:3/reject", error)
    controller.on("POST /v1/models/digits:3/alias", error)
    assert qd("model", "reject", "digits:3", "--yes").code == code
    assert qd("model", "alias", "digits:3", "production").code == code


def test_an_approval_is_signed_only_for_what_was_shown(
    qd: Any, controller: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    need("ssh-keygen")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    controller.on("GET /v1/models/digits:3", detail(policy={"signed": True}))
    controller.on("POST /v1/models/digits:3/approve", view(state="APPROVED"))
    fields: dict[str, Any] = {
        "cluster": "c", "version": "digits:3", "digest": DIGEST, "decision": "approve",
        "evidence": EVIDENCE, "comment": "ok", "user": "ann",
    }  # fmt: skip
    for wrong in ({"digest": "sha256:" + "cd" * 32}, {"evidence": None}, {"decision": "reject"}):
        text = statement(**{**fields, **wrong}).decode()
        answer = {"statement": text, "namespace": APPROVAL}
        controller.on("POST /v1/models/digits:3/statement", answer)
        words = ["model", "approve", "digits:3", "--yes", "-m", "ok", "--key", str(key)]
        assert qd(*words).code == 6
    assert not controller.asked("POST /v1/models/digits:3/approve")
    answer = {"statement": statement(**fields).decode(), "namespace": APPROVAL}
    controller.on("POST /v1/models/digits:3/statement", answer)
    monkeypatch.setenv("QD_SIGNING_KEY", str(key))
    assert qd("model", "approve", "digits:3", "--yes", "-m", "ok").code == 0
    sent = controller.requests[-1].json["signature"]
    signers, _ = read_signers(f"ann {key.with_suffix('.pub').read_text()}")
    assert Signers("c", signers).check(sent, statement(**fields), "ann", 0.0)
    missing = qd("model", "approve", "digits:3", "--yes", "--key", str(tmp_path / "none"))
    assert (missing.code, "no such key" in missing.err) == (2, True)


def test_aliases_tags_archive_and_revoke(qd: Any, controller: FakeController) -> None:
    alias = {"name": "digits", "alias": "production", "version": "digits:3", "before": "digits:2"}
    controller.on("POST /v1/models/digits:3/alias", alias)
    controller.on("POST /v1/models/digits/unalias", {**alias, "version": None})
    controller.on("POST /v1/models/digits:3/tags", {"k": "v"})
    controller.on("POST /v1/models/digits:3/archive", view(state="ARCHIVED"))
    controller.on("POST /v1/models/digits:3/revoke", view())
    told = qd("model", "alias", "digits:3", "production").out
    assert told == "digits@production is digits:3 (was digits:2)\n"
    assert "is gone" in qd("model", "alias", "digits", "production", "--remove").out
    assert qd("model", "tag", "digits:3", "k=v").out == "k=v\n"
    qd("model", "tag", "digits:3", "k", "--remove")
    assert controller.requests[-1].json == {"tags": {"k": None}}
    assert "ARCHIVED" in qd("model", "archive", "digits:3", "-m", "old").out
    qd("model", "revoke", "digits:3", "--of", "bob")
    assert controller.requests[-1].json == {"reason": "", "user": "bob"}


def test_pull_takes_only_what_was_registered(
    qd: Any, controller: FakeController, tmp_path: Path
) -> None:
    files = {"model.onnx": b"0123456789", "a/labels.txt": b"0 1"}
    controller.on("GET /v1/models/digits:3", detail(files))
    for path, data in files.items():
        controller.on(f"GET /v1/models/digits:3/files/{path}", Reply(data))
    target = tmp_path / "here"
    result = qd("model", "pull", "digits:3", str(target))
    assert (result.code, result.out) == (0, f"{target}\n")
    assert {path: (target / path).read_bytes() for path in files} == files
    assert json.loads(qd("model", "pull", "digits:3", str(target), "--json").out)["fetched"] == 0
    (target / "model.onnx").unlink()
    controller.on("GET /v1/models/digits:3/files/model.onnx", Reply(b"something else"))
    bad = qd("model", "pull", "digits:3", str(target))
    assert (bad.code, "does not have the content" in bad.err) == (6, True)
    assert sorted(path.name for path in target.rglob("*")) == ["a", "labels.txt"]
    controller.on("GET /v1/models/digits:3", detail({"../evil": b"x"}))
    assert qd("model", "pull", "digits:3", str(target)).code == 6
    assert not (tmp_path / "evil").exists()


def test_verify_and_diff(qd: Any, controller: FakeController) -> None:
    ok = {"id": "digits:3", "digest": DIGEST, "ok": True, "files": 1, "bytes": 10, "problems": []}
    bad = {**ok, "ok": False, "problems": [{"path": "model.onnx", "problem": "was changed"}]}
    controller.on("POST /v1/models/digits:3/verify", ok, bad)
    assert qd("model", "verify", "digits:3").out.startswith("digits:3 ok")
    result = qd("model", "verify", "digits:3")
    assert (result.code, result.out) == (1, "FAILED model.onnx was changed\n")
    difference = {
        "left": "digits:1", "right": "digits:3",
        "files": [{"path": "model.onnx", "left": "aa", "right": None}],
        "facts": [{"what": "params.lr", "left": 0.1, "right": 0.2}],
        "metrics": [{"metric": "val_acc", "left": 0.9, "right": 0.975}],
    }  # fmt: skip
    controller.on("GET /v1/models/digits:1/diff/digits:3", difference)
    told = qd("model", "diff", "digits:1", "digits:3").out
    for text in ("val_acc", "0.975", "params.lr", "model.onnx", "-"):
        assert text in told


GATE = "name: release\nconditions:\n  - val_acc >= 0.98\n"


def test_a_gate_that_fails_ends_with_1_and_the_reason(
    qd: Any, controller: FakeController, tmp_path: Path
) -> None:
    file, junit = tmp_path / "gate.yaml", tmp_path / "gate.xml"
    file.write_text(GATE)
    controller.on("POST /v1/models/digits:3/gate", evidence(True), evidence(False))
    assert qd("gate", str(file), "digits:3", "--junit", str(junit)).code == 0
    assert controller.requests[-1].json["conditions"] == ["val_acc >= 0.98"]
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    result = qd("gate", str(file), "digits:3", "--junit", str(junit))
    assert result.code == 1
    assert result.err == "digits:3 is stopped: val_acc >= 0.98: val_acc is 0.975, < 0.98\n"
    (failure,) = ElementTree.parse(junit).getroot().iter("failure")
    assert failure.get("message") == "val_acc is 0.975, < 0.98"
    assert qd("gate", str(file), "digits:3", "--json").code == 1
    file.write_text("name: release\nconditions: [val_acc]\n")
    bad = qd("gate", str(file), "digits:3")
    assert (bad.code, "gate.yaml:2: conditions[0]" in bad.err) == (2, True)


def test_junit_holds_any_text(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    file, junit = tmp_path / "gate.yaml", tmp_path / "gate.xml"
    file.write_text(GATE)
    odd = evidence(False)
    odd["document"]["conditions"][0]["why"] = "<&\"' \x00\x1b\ud800\ufffe 🚀"
    controller.on("POST /v1/models/digits:3/gate", odd)
    assert qd("gate", str(file), "digits:3", "--junit", str(junit)).code == 1
    (failure,) = ElementTree.parse(junit).getroot().iter("failure")
    assert str(failure.get("message")).startswith("<&\"' ")


def test_a_policy_file_names_its_gate(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    from jobs.models.gates import load_gate

    (tmp_path / "gate.yaml").write_text(GATE)
    file = tmp_path / "policy.yaml"
    file.write_text("approvals: 2\nexpires: 30d\ngate: gate.yaml\n")

    def answer(request: Request) -> Reply:
        return Reply.of({"name": "digits", "policy": request.json})

    controller.on("POST /v1/models/digits/policy", answer)
    result = qd("model", "policy", "digits", str(file))
    assert result.code == 0
    sent = controller.requests[-1].json
    assert (sent["gate"], sent["expires"]) == (load_gate(tmp_path / "gate.yaml").digest, 2_592_000)
    assert "30d" in result.out
    file.write_text("aprovals: 2\n")
    bad = qd("model", "policy", "digits", str(file))
    assert (bad.code, "did you mean approvals?" in bad.err) == (2, True)


def test_which_version_an_alias_was_at_a_time(qd: Any, controller: FakeController) -> None:
    def acted(number: int, alias: str, after: str | None, action: str = "model.alias") -> Any:
        data = {"alias": alias, "before": None, "after": after, "digest": DIGEST}
        return {
            "id": number, "at": AT, "user": "ann", "uid": 1, "action": action, "target": "digits",
            "data": data, "hash": "aa", "previous": "bb",
        }  # fmt: skip

    rows = [
        acted(1, "production", "digits:1"), acted(2, "canary", "digits:2"),
        acted(3, "production", "digits:9", "model.alias.refused"),
        acted(4, "production", "digits:2"), acted(5, "canary", None),
    ]  # fmt: skip
    controller.on("GET /v1/audit", Reply.stream(rows))
    result = qd("models", "digits", "--at", "2026-11-29T12:00:00Z", "--json")
    (row,) = json.loads(result.out)
    assert (row["alias"], row["version"], row["audit"]) == ("production", "digits:2", 4)
    assert controller.requests[-1].query == {
        "action": ["model.alias"], "target": ["digits"], "until": ["2026-11-29T12:00:00.000Z"],
    }  # fmt: skip
    assert "digits:2" in qd("models", "digits", "--at", "10m").out
    assert "no such alias" in qd("models", "digits", "--at", "10m", "--alias", "canary").err
    assert "--at: 'never'" in qd("models", "digits", "--at", "never").err
    assert qd("models", "--at", "10m").code == 2


def test_audit(qd: Any, controller: FakeController) -> None:
    row = {
        "id": 7, "at": AT, "user": "ann", "uid": 1, "action": "model.alias", "target": "digits",
        "data": {"before": None, "after": "digits:3"}, "hash": "aa", "previous": "bb",
    }  # fmt: skip
    controller.on("GET /v1/audit", Reply.stream([row]))
    assert "after digits:3" in qd("audit", "--action", "model", "--user", "ann").out
    assert controller.requests[-1].query == {
        "action": ["model"], "user": ["ann"], "limit": ["50"],
    }  # fmt: skip
    assert [json.loads(line) for line in qd("audit", "export").out.splitlines()] == [row]
    assert controller.requests[-1].query == {}
    whole = {"ok": True, "rows": 7, "head": "aa", "broken_at": None, "reason": "", "checkpoints": 3}
    broken = {**whole, "ok": False, "broken_at": 5, "reason": "row 5 was changed"}
    controller.on("GET /v1/audit/verify", whole, broken)
    assert qd("audit", "verify").out.startswith("ok  7 rows")
    result = qd("audit", "verify")
    assert (result.code, result.out) == (1, "FAILED at row 5: row 5 was changed\n")
    assert qd("audit", "nothing").code == 2
