"""What a version comes from, in every form."""

from __future__ import annotations

import json
import uuid
from typing import Any

import yaml

from jobs.base.times import parse_time
from jobs.models.lineage import card, drawn, openlineage, provenance, tree
from tests.console.test_cli_models import AT, DIGEST, EVIDENCE, detail


def version(**over: Any) -> dict[str, Any]:
    """A version of everything."""
    decision = {
        "id": 1, "decision": "approve", "user": "bob", "at": AT, "comment": "good", "digest": DIGEST,
        "evidence": EVIDENCE, "counts": True, "expires_at": None, "revoked_at": None,
        "revoked_by": None, "revoked_why": None, "signer": "SHA256:k", "signature": "S",
        "statement": "{}",
    }  # fmt: skip
    lineage = {
        "kind": "run", "run": "j3.1", "name": "digits", "user": "ann", "command": "python train.py",
        "params": {"lr": 0.1}, "seed": 7, "data": {"train": "digits@2"}, "snapshot": "sha256:" + "5" * 64,
        "git": {"commit": "c" * 40, "branch": "main", "dirty": True}, "ranks": 2, "nodes": ["n1", "n2"],
        "sweep": {"id": "s1", "trial": 4}, "gpus": ["GPU-1"], "started_at": AT, "ended_at": AT,
        "python": None, "requirements": None,
    }  # fmt: skip
    return detail(
        **{"lineage": lineage, "decisions": [decision], "aliases": ["production"], **over}
    )


def test_the_tree_has_everything_that_is_known() -> None:
    lines = list(drawn(tree(version())))
    assert lines[0].startswith("digits:3 PENDING sha256:")
    text = "\n".join(lines)
    for part in (
        "├─ run j3.1 digits, by ann", "snapshot sha256:5", "git cccccccccccc on main, with changes",
        "data train = digits@2", "sweep s1, trial 4", "parameters lr=0.1, seed=7",
        "2 ranks on n1, n2, 1 GPU", "val_acc 0.975", "model.onnx 10", "gate release passed",
        "holds: val_acc >= 0.98", "approved by bob", "signed by SHA256:k: good", "└─ alias production",
    ):  # fmt: skip
        assert part in text, part
    assert all(line.isascii() for line in drawn(tree(version()), ascii_only=True))
    imported = version(lineage={"kind": "import", "run": None, "origin": "host:/x", "user": "ann"})
    assert "import host:/x" in "\n".join(drawn(tree(imported)))


def test_an_openlineage_event() -> None:
    event = openlineage(version(), "abc")
    assert event["eventType"] == "COMPLETE"
    assert parse_time(event["eventTime"])
    assert uuid.UUID(event["run"]["runId"]) == uuid.UUID(
        openlineage(version(), "abc")["run"]["runId"]
    )
    assert event["run"] != openlineage(version(), "other")["run"]
    assert [one["name"] for one in event["inputs"]] == ["data/train", "snapshot"]
    (output,) = event["outputs"]
    assert (output["namespace"], output["name"]) == ("quarterdeck://abc", "models/digits")
    assert output["facets"]["version"]["datasetVersion"] == f"3+{DIGEST}"
    facets = [output["facets"]["version"], event["job"]["facets"]["sourceCodeLocation"]]
    assert all(facet.keys() >= {"_producer", "_schemaURL"} for facet in facets)
    imported = version(lineage={"kind": "import", "run": None, "origin": "host:/x", "user": "ann"})
    assert openlineage(imported, "abc")["inputs"] == []
    json.dumps(event, allow_nan=False)


def test_slsa_provenance_is_about_the_files() -> None:
    statement = provenance(version(), "abc")
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    (subject,) = statement["subject"]
    assert (subject["name"], len(subject["digest"]["sha256"])) == ("model.onnx", 64)
    build = statement["predicate"]["buildDefinition"]
    assert build["externalParameters"]["params"] == {"lr": 0.1}
    assert [one["name"] for one in build["resolvedDependencies"]] == [
        "snapshot",
        "git",
        "data/train",
    ]
    assert statement["predicate"]["runDetails"]["metadata"]["invocationId"] == "j3.1"


def test_a_card_is_markdown_with_metadata_whatever_the_words_are() -> None:
    tags = {"a: b\n- c": 'x"y', "größe": ""}
    text = card(version(tags=tags, reason="<script>|`*", id="di|gits_#:3"))
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "onnx", "tags": ['a: b\n- c:x"y', "größe"], "metrics": ["val_acc"],
    }  # fmt: skip
    assert "# di\\|gits\\_\\#:3" in body
    assert "\\<script\\>\\|\\`\\*" in body
    assert "| val\\_acc | 0.975 |" in body
    assert body.count("```") == 2
    evil = card(
        version(lineage={"kind": "import", "run": None, "origin": "x\n```\n# h", "user": "a"})
    )
    assert evil.count("```") == 2
