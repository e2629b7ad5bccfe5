"""`qd export image` and its kin: files, a model from a fake controller, and what is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.console.fake_controller import FakeController, Reply

BASE = "docker.io/library/python@sha256:" + "b" * 64
SERVICE = "name: app\ncommand: python server.py --port $PORT\nready: /ok\n"
CONTENT = b"an ONNX file"


@pytest.fixture
def work(home: Path) -> Path:
    folder = home / "work"
    folder.mkdir()
    (folder / "app.yaml").write_text(SERVICE)
    (folder / "server.py").write_text("print('hi')\n")
    (folder / "requirements.txt").write_text("rich==14.0.0\n")
    return folder


def image(qd: Any, work: Path, *words: str, out: str = "ctx") -> Any:
    return qd("export", "image", str(work / "app.yaml"), "--out", str(work / out), *words)


def test_a_folder_to_build(qd: Any, work: Path) -> None:
    out = work.parent / "ctx"
    done = image(qd, work, "--base", BASE, "--json", out=str(out))
    assert done.code == 0, done.err
    assert json.loads(done.out)["path"] == str(out)
    assert (out / "app" / "server.py").read_text() == "print('hi')\n"
    assert (out / "quarterdeck" / "quarterdeck_ranks.py").is_file()
    assert not (out / "quarterdeck" / "quarterdeck_serve").exists(), "for models alone"
    assert (out / "Containerfile").read_text().startswith(f"FROM {BASE}\n")
    record = json.loads((out / "export.json").read_text())
    assert record["files"].startswith("sha256:") and record["base"] == BASE
    ignored = (out / ".containerignore").read_text().splitlines()
    copied = [
        line.split()[-2].rstrip("/")
        for line in (out / "Containerfile").read_text().splitlines()
        if line.startswith("COPY")
    ]
    assert {f"!{name}" for name in copied} <= set(ignored)
    (out / "app" / "stale").write_text("")
    assert image(qd, work, "--base", BASE, out=str(out)).code == 0
    assert not (out / "app" / "stale").exists(), "an export is replaced whole"


def test_requirements_are_those_of_the_file(qd: Any, work: Path) -> None:
    (work / "app.yaml").write_text(SERVICE + "requirements: requirements.txt\n")
    out = work.parent / "ctx"
    assert image(qd, work, "--base", BASE, out=str(out)).code == 0
    assert (out / "requirements.txt").read_text() == "rich==14.0.0\n"
    (work / "requirements.txt").write_text("rich\n")
    refused = image(qd, work, "--base", BASE, out=str(out))
    assert refused.code == 2 and "not pinned: rich" in refused.err
    assert image(qd, work, "--base", BASE, "--unpinned", out=str(out)).code == 0
    assert image(qd, work, "--base", BASE, "--bare", out=str(out)).code == 0
    assert not (out / "requirements.txt").exists()


def test_an_interpreter_is_frozen(qd: Any, work: Path) -> None:
    (work / "app.yaml").write_text(SERVICE + f"python: {sys.executable}\n")
    out = work.parent / "ctx"
    assert image(qd, work, "--base", BASE, out=str(out)).code == 0
    names = {line.split("==")[0] for line in (out / "requirements.txt").read_text().splitlines()}
    assert "pytest" in names and not names & {"pip", "quarterdeck"}


def test_what_is_refused(qd: Any, work: Path) -> None:
    out = work.parent / "ctx"
    assert "no digest" in image(qd, work, "--base", "python:3.11", out=str(out)).err
    assert "--base: which image" in image(qd, work, out=str(out)).err
    assert "needs --build" in image(qd, work, "--base", BASE, "--oci", "x", out=str(out)).err
    other = work.parent / "other"
    other.mkdir()
    (other / "mine").write_text("")
    refused = image(qd, work, "--base", BASE, out=str(other))
    assert refused.code == 6 and (other / "mine").exists()
    (work / "app.yaml").write_text(SERVICE + "image: localhost/x:1\n")
    assert "--base: the image is" in image(qd, work, "--base", BASE, out=str(out)).err
    assert not out.exists()
    assert qd("export").code == 2


def test_manifests(qd: Any, work: Path) -> None:
    file = str(work / "app.yaml")
    text = qd("export", "kubernetes", file, "--image", "r/app:1").out
    assert [one["kind"] for one in yaml.safe_load_all(text)] == ["Deployment", "Service"]
    assert "&" not in text and "*" not in text, "no anchors"
    both = json.loads(qd("export", "kubernetes", file, "--image", "r/app:1", "--json").out)
    assert both["items"] == list(yaml.safe_load_all(text))
    assert (
        qd("export", "kubernetes", file, "--image", "r/a:1", "-o", str(work / "k.yaml")).out == ""
    )
    assert (work / "k.yaml").read_text().startswith("apiVersion")
    assert "--image" in qd("export", "kubernetes", file).err
    ask = ["export", "kuberay", file, "--image", "r/a:1", "--ray-version", "2.60.0"]
    assert (
        yaml.safe_load(qd(*ask, "--serve", "a:b", "--without", "ready").out)["kind"] == "RayService"
    )
    (work / "app.yaml").write_text(SERVICE + "canary: [5]\n")
    refused = qd("export", "kubernetes", file, "--image", "r/app:1")
    assert refused.code == 2 and "canary: " in refused.err and "--without canary" in refused.err
    assert qd("export", "kubernetes", file, "--image", "r/a:1", "--without", "canary").code == 0


def test_a_model(qd: Any, work: Path, controller: FakeController) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    detail = {
        "id": "digits:3", "name": "digits", "version": 3, "digest": "sha256:" + "c" * 64, "format": "onnx",
        "main": "m.onnx", "lineage": {}, "files": 1, "size": len(CONTENT),
        "contents": [{"path": "m.onnx", "size": len(CONTENT), "sha256": digest}],
    }  # fmt: skip
    for ref in ("digits:3", "digits%3A3"):
        controller.on(f"GET /v1/models/{ref}", detail)
        controller.on(f"GET /v1/models/{ref}/files/m.onnx", Reply(CONTENT))
    out = work.parent / "ctx"
    words = ["--base", BASE, "--requirements", str(work / "requirements.txt")]
    done = qd("export", "image", "digits:3", "--out", str(out), *words)
    assert done.code == 0, done.err
    assert (out / "app" / "m.onnx").read_bytes() == CONTENT
    assert (out / "quarterdeck" / "quarterdeck_serve" / "__main__.py").is_file()
    text = (out / "Containerfile").read_text()
    assert '"quarterdeck_serve", "--name", "digits", "--version", "3", "m.onnx"]' in text
    assert "/v2/health/ready" in text
    found = yaml.safe_load(qd("export", "kserve", "digits:3", "--storage", "s3://m/3").out)
    assert found["spec"]["predictor"]["model"]["storageUri"] == "s3://m/3"
