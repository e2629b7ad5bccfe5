"""Releases of a running stream become versions of a model, each once."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.controller.commands.releasing import Releases, _bring, _known
from agents.controller.controller import Controller
from agents.controller.core import copying
from agents.controller.stores.blobs import FolderBlobs
from agents.node.checkpoints import holding
from jobs.snapshots.manifest import FileEntry, Manifest
from tests.agents.controller.conftest import Plane, until

LEARN = """
import pathlib, quarterdeck_stream
seen = [0]
def save(folder):
    (folder / "model.json").write_text(str(seen[0]))
stream = quarterdeck_stream.open(save)
if stream.checkpoint:
    seen[0] = int((stream.checkpoint / "model.json").read_text())
for record in stream:
    stream.score(True, record["ok"])
    seen[0] += 1
"""


@pytest.fixture
async def quick(make_plane: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Plane:
    monkeypatch.setattr(holding, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(copying, "AGAIN", 0.1)
    monkeypatch.setattr(copying, "LOOK_IN", 0.02)
    plane: Plane = await make_plane()
    return plane


def put(plane: Plane, name: str, count: int) -> None:
    folder = plane.root / "in"
    folder.mkdir(exist_ok=True)
    (folder / ".new").write_text('{"ok": true}\n' * count)
    (folder / ".new").rename(folder / f"{name}.jsonl")


async def submit(plane: Plane, **more: Any) -> str:
    stream = {
        "source": {"folder": str(plane.root / "in")},
        "release": {"records": 10, "model": "learner"},
        "commit": {"every": 1},
        **more,
    }
    return await plane.submit(["python", "-c", LEARN], stream=stream, checkpoint={"every": 0})  # type: ignore[arg-type]


async def versions(plane: Plane) -> list[dict[str, Any]]:
    found = await plane.get("/v1/models", name="learner")
    return sorted(found, key=lambda view: int(view["version"]))


async def test_releases_of_a_running_stream_are_versions(quick: Plane) -> None:
    plane = quick
    put(plane, "a", 10)
    job = await submit(plane)
    (first,) = await until(lambda: versions(plane))
    assert (first["id"], first["run"]) == ("learner:1", f"{job}.1")
    assert first["metrics"]["accuracy"] == 1.0
    assert first["state"] == "PENDING"
    detail = await plane.get("/v1/models/learner:1")
    assert detail["tags"] == {"stream": job, "release": "1"}
    release = detail["lineage"]["release"]
    assert (release["number"], release["trained"], release["why"]) == (1, 10, "records")
    paths = {file["path"] for file in detail["manifest"]["files"]} if "manifest" in detail else None
    assert paths in (None, {"model.json", "release.json"})

    await plane.restart()  # it looks at the copies again, and makes nothing twice
    put(plane, "b", 10)

    async def two() -> bool:
        return len(await versions(plane)) == 2

    await until(two)
    await plane.post(f"/v1/jobs/{job}/cancel", {"grace": 5})
    await plane.wait(job, "CANCELLED")
    assert [view["id"] for view in await versions(plane)] == ["learner:1", "learner:2"]


async def test_what_is_released_as_it_ends_is_a_version_too(quick: Plane) -> None:
    plane = quick
    put(plane, "a", 25)
    job = await submit(plane, end=True)
    assert (await plane.wait(job))["state"] == "SUCCEEDED"

    async def all_there() -> bool:
        return len(await versions(plane)) == 2

    await until(all_there)


async def test_a_release_that_a_rule_refuses_is_refused_once(quick: Plane) -> None:
    """The folder has a pickle, and the policy takes none."""
    plane = quick
    command = LEARN.replace(
        "write_text(str(seen[0]))",
        "write_text(str(seen[0])); (folder / 'm.pkl').write_bytes(PICKLE)",
    )
    command = f"import pickle; PICKLE = pickle.dumps([1])\n{command}"
    put(plane, "a", 10)
    stream = {
        "source": {"folder": str(plane.root / "in")},
        "release": {"records": 10, "model": "learner"},
        "commit": {"every": 1},
    }
    job = await plane.submit(["python", "-c", command], stream=stream, checkpoint={"every": 0})  # type: ignore[arg-type]

    async def refused() -> list[str]:
        events = await plane.lines("/v1/events", limit=200)
        return [event["message"] for event in events if event["kind"] == "model.register.refused"]

    await until(refused)
    put(plane, "b", 3)
    await until(lambda: len(plane.controller.copies.of(int(job[1:]))) >= 2)
    assert len(await refused()) == 1
    assert await versions(plane) == []
    await plane.post(f"/v1/jobs/{job}/cancel", {"grace": 0})
    await plane.wait(job, "CANCELLED")


def test_only_what_a_release_may_say_is_taken(tmp_path: Path) -> None:
    told = {
        "number": 1,
        "why": "x" * 500,
        "scores": {"accuracy": 0.5, "mae": "no", "x": 1},
        "y": {},
    }
    found = _known(json.loads(json.dumps(told)))
    assert found == {"number": 1, "why": "x" * 100, "scores": {"accuracy": 0.5}}
    assert _known([1]) == {}


@pytest.mark.parametrize(
    "told", [b"no JSON", b"\xff", b"[" * 60_000, b"[1]"], ids=["words", "bytes", "deep", "list"]
)
def test_what_a_release_cannot_say_is_left_out(tmp_path: Path, told: bytes) -> None:
    copies, blobs = FolderBlobs(tmp_path / "copies"), FolderBlobs(tmp_path / "blobs")
    digest = hashlib.sha256(told).hexdigest()
    copies.put(digest, io.BytesIO(told))
    manifest = Manifest.of([FileEntry("release.json", 0o644, len(told), digest)])
    assert not any(_bring(copies, blobs, manifest).values())
    assert blobs.read(digest) == told


async def test_only_releases_that_copies_have_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream without end releases without end."""
    blobs = FolderBlobs(tmp_path)
    empty = Manifest()
    blobs.put(empty.digest, io.BytesIO(empty.to_bytes()))
    made = Releases(cast("Controller", SimpleNamespace(copies=SimpleNamespace(blobs=blobs))))
    published: list[str] = []

    async def one(live: object, copy: object, model: str, name: str, whole: object) -> None:
        published.append(name)

    monkeypatch.setattr(made, "_one", one)
    stream = SimpleNamespace(release=SimpleNamespace(model="learner"))
    live: Any = SimpleNamespace(job=SimpleNamespace(id=1), spec=SimpleNamespace(stream=stream))
    for newest in (2, 2, 3, 4):
        names = [f"release-{newest - 1}", f"release-{newest}"]
        copy: Any = SimpleNamespace(names=names, digest=empty.digest)
        await made.publish(live, copy)
    assert published == ["release-1", "release-2", "release-3", "release-4"]
    assert made._seen == {1: {"release-3", "release-4"}}
