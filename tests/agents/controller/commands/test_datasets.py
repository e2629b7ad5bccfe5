"""Versions of data sets through the API, and jobs that read them on a real node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from console.cli.upload import send_blobs
from console.datasets.scan import HashMemory, scan
from jobs.base.errors import InvalidInput, NotFound
from tests.agents.controller.conftest import Plane

QUOTES = "Robert'); DROP TABLE data_versions;-- \u2603 \" \\"


async def add(plane: Plane, name: str, path: Path, **fields: Any) -> dict[str, Any]:
    def send() -> dict[str, Any]:
        memory = HashMemory(plane.root / "hashes.db")
        found = scan(path, memory, lambda done, total: None)
        memory.close()
        contents: dict[str, bytes | Path] = {
            **{digest: found.sources[digest] for digest in found.manifest.blobs},
            found.manifest.digest.removeprefix("sha256:"): found.manifest.to_bytes(),
        }
        send_blobs(plane.client, contents, pack=10, told=lambda done, total: None)
        body = {"name": name, "digest": found.manifest.digest, "file": found.file, **fields}
        view: dict[str, Any] = plane.client.post("/v1/data", body)
        return view

    return await asyncio.to_thread(send)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    (root / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("one")
    (root / "deep" / "b.txt").write_text("two")
    return root


@pytest.fixture(params=["sqlite", "postgres"])
def any_plane(request: pytest.FixtureRequest) -> Plane:
    name = "plane" if request.param == "sqlite" else "postgres_plane"
    made: Plane = request.getfixturevalue(name)
    return made


async def test_versions(any_plane: Plane, folder: Path) -> None:
    plane = any_plane
    first = await add(plane, "digits", folder, note=QUOTES, profile={"tables": []})
    assert (first["id"], first["files"], first["bytes"], first["created"]) == (
        "digits@1",
        2,
        6,
        True,
    )
    again = await add(plane, "digits", folder, note="the same")
    assert (again["id"], again["created"], again["note"]) == ("digits@1", False, QUOTES)
    (folder / "a.txt").write_text("three")
    assert (await add(plane, "digits", folder))["id"] == "digits@2"
    assert (await add(plane, "other", folder))["id"] == "other@1"

    listed = await plane.get("/v1/data")
    assert [(view["id"], view["versions"]) for view in listed] == [("digits@2", 2), ("other@1", 1)]
    shown = await plane.get("/v1/data/digits@1")
    assert (shown["note"], shown["profile"]) == (QUOTES, {"tables": []})
    versions = await plane.get("/v1/data/digits/versions")
    assert [view["id"] for view in versions] == ["digits@2", "digits@1"]
    files = await plane.get("/v1/data/digits@1/files")
    assert [file["path"] for file in files] == ["a.txt", "deep/b.txt"]
    data, _ = await asyncio.to_thread(
        plane.client.raw, f"/v1/data/digits@1/blobs/{files[1]['sha256']}", offset=1
    )
    assert data == b"wo"


async def test_a_profile_counts_rows_and_is_checked(plane: Plane, folder: Path) -> None:
    column = {"name": "x", "type": "number", "missing": 0, "distinct": 2, "mean": 0.5}
    tables = [{"file": name, "rows": 3, "columns": [column]} for name in ("a.csv", "b.csv")]
    await add(plane, "rows", folder, profile={"tables": tables})
    (view,) = await plane.get("/v1/data")
    assert view["rows"] == 6
    assert (await plane.get("/v1/data/rows"))["profile"]["tables"] == tables
    for odd in ({}, {"tables": 3}, {"tables": [{"file": "a"}]}):
        with pytest.raises(InvalidInput):
            await add(plane, "odd", folder, profile=odd)


async def test_what_is_refused(plane: Plane, folder: Path) -> None:
    view = await add(plane, "digits", folder)
    with pytest.raises(NotFound, match="there is no data set") as caught:
        await plane.get("/v1/data/digit")
    assert "digits" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        await plane.get("/v1/data/digits@9")
    assert "digits@1" in caught.value.hint
    with pytest.raises(InvalidInput):
        await plane.post("/v1/data", {"name": "a b", "digest": view["digest"]})
    with pytest.raises(InvalidInput, match="is not here"):
        await plane.post("/v1/data", {"name": "x", "digest": "sha256:" + "0" * 64})
    with pytest.raises(InvalidInput, match="one file"):
        await plane.post("/v1/data", {"name": "x", "digest": view["digest"], "file": "a.txt"})
    with pytest.raises(NotFound):  # in the store, but no file of this version
        digest = view["digest"].removeprefix("sha256:")
        await plane.get(f"/v1/data/digits/blobs/{digest}")
    with pytest.raises(NotFound, match="there is no data set nothing"):
        await plane.submit("true", data={"train": "nothing@1"})


async def test_a_job_reads_its_data(plane: Plane, folder: Path) -> None:
    """The version is fixed when the job is submitted, and the node keeps it read-only for all."""
    await add(plane, "digits", folder)
    await add(plane, "table", folder / "a.txt")
    script = (
        'cat "$QD_DATA_TRAIN/deep/b.txt" "$QD_DATA_TEST"; test ! -w "$QD_DATA_TEST" || id -u;'
        " python -c 'import quarterdeck as q; print(q.data[\"train\"].name[:3])'"
    )
    job = await plane.submit(script, data={"train": "digits", "test": "table@latest"})
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED", view
    assert view["spec"]["data"] == {"train": "digits@1", "test": "table@1"}
    lines = await plane.lines(f"/v1/jobs/{job}/logs")
    assert "".join(line["line"] for line in lines).startswith("twoone")
    (folder / "deep/b.txt").write_text("changed")
    await add(plane, "digits", folder)
    again = await plane.post(f"/v1/jobs/{job}/retry")
    view = await plane.wait(again["id"])
    assert view["spec"]["data"]["train"] == "digits@1"


async def test_it_is_there_after_a_restart_and_never_pruned(plane: Plane, folder: Path) -> None:
    await add(plane, "digits", folder)
    await plane.restart()
    plane.now.offset += 30 * 86_400
    pruned = await plane.post("/v1/blobs/prune", {"older_than": 3600})
    assert pruned["blobs"] == 0
    job = await plane.submit('cat "$QD_DATA_TRAIN/a.txt"', data={"train": "digits@1"})
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
