"""Versions of features through the API, and data sets that jobs make with them on a real node."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.controller.commands import batching, services
from console.cli.upload import send_blobs
from jobs.base.errors import InvalidInput, NotFound
from jobs.models import lineage
from jobs.models.names import ModelRef
from jobs.snapshots.manifest import FileEntry, Manifest
from tests import features
from tests.agents.controller.commands.test_datasets import add as add_data
from tests.agents.controller.conftest import Plane, until
from tests.agents.node.worker.features.test_raw import echo
from tests.features import RIDES

ROUTE = "/v1/features/rides/builds"


@pytest.fixture(params=["sqlite", "postgres"])
def any_plane(request: pytest.FixtureRequest) -> Plane:
    name = "plane" if request.param == "sqlite" else "postgres_plane"
    made: Plane = request.getfixturevalue(name)
    return made


async def given(plane: Plane, root: Path) -> dict[str, str]:
    """Rides, fuel and features; what a build of them asks."""
    rides, fuel = features.tables(root / "data")
    await add_data(plane, "rides", rides)
    await add_data(plane, "fuel", fuel)
    await features.add(plane.client, "rides", features.write(root / "features"))
    return {"data": "rides", "into": "rides-x"}


async def test_versions(any_plane: Plane, tmp_path: Path) -> None:
    plane = any_plane
    folder = features.write(tmp_path / "f")
    first = await features.add(plane.client, "rides", folder)
    assert (first["id"], first["inputs"], first["outputs"], first["created"]) == (
        "rides@1",
        5,
        2,
        True,
    )
    again = await features.add(plane.client, "rides", folder)
    assert (again["id"], again["created"]) == ("rides@1", False)
    features.write(tmp_path / "f", features.HARD + "\n# changed\n")
    assert (await features.add(plane.client, "rides", folder))["id"] == "rides@2"
    listed = await plane.get("/v1/features")
    assert [(view["id"], view["versions"]) for view in listed] == [("rides@2", 2)]
    assert (await plane.get("/v1/features/rides@1"))["declaration"]["joins"][0]["by"] == ["city"]
    code = await plane.get("/v1/features/rides@2/code")
    assert code["features.py"].endswith("# changed\n")
    versions = await plane.get("/v1/features/rides/versions")
    assert [view["id"] for view in versions] == ["rides@2", "rides@1"]
    rows = await plane.lines("/v1/audit", action="features.add")
    assert {row["target"] for row in rows} == {"rides@1", "rides@2"}


async def test_what_is_no_version(plane: Plane, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not here"):
        await plane.post("/v1/features", {"name": "x", "digest": "sha256:" + "0" * 64})
    folder = features.write(tmp_path / "f")
    (folder / "more.py").write_text("x = 1")
    with pytest.raises(InvalidInput, match=r"not those that it declares: more\.py"):
        await features.add(plane.client, "x", folder)
    (folder / "more.py").unlink()
    (folder / "features.json").write_text('{"inputs": {}}')
    with pytest.raises(InvalidInput, match=r"features\.inputs"):
        await features.add(plane.client, "x", folder)
    with pytest.raises(NotFound, match="there are no features nothing"):
        await plane.get("/v1/features/nothing")
    with pytest.raises(NotFound, match="there are no features nothing"):
        await plane.submit("true", features="nothing@1")


async def built(plane: Plane, asked: dict[str, Any]) -> dict[str, Any]:
    made = await plane.post(ROUTE, asked)
    view = await plane.wait(made["id"])
    detail: dict[str, Any] = await plane.get(f"/v1/jobs/{view['id']}")
    return detail


async def test_a_build_becomes_a_version_that_knows_what_it_is_made_of(
    plane: Plane, tmp_path: Path
) -> None:
    asked = await given(plane, tmp_path)
    job = await built(plane, asked | {"tables": {"fuel": "fuel@1"}})
    assert job["state"] == "SUCCEEDED", job
    assert [one["data"] for one in job["artifacts"]] == ["rides-x@1"]
    view = await plane.get("/v1/data/rides-x@1")
    assert (view["file"], view["files"]) == ("rides.csv", 1)
    origin, made_with = view["lineage"], await plane.get("/v1/features/rides@1")
    assert origin["run"] == f"{job['id']}.1"
    assert origin["data"] == {"rows": "rides@1", "fuel": "fuel@1"}
    assert origin["features"] == {"version": "rides@1", "digest": made_with["digest"]}
    # The same again is the same version, and a job may name it at once.
    again = await built(plane, asked | {"tables": {"fuel": "fuel"}})
    assert [one["data"] for one in again["artifacts"]] == ["rides-x@1"]
    reader = await plane.submit(
        'head -2 "$QD_DATA_TRAIN"; ls "$QD_DATA_FEATURES"',
        data={"train": "rides-x"},
        features="rides",
    )
    view = await plane.wait(reader)
    assert view["spec"]["features"] == "rides@1"
    lines = "".join(line["line"] for line in await plane.lines(f"/v1/jobs/{reader}/logs"))
    assert lines.startswith("ride,x_0,x_1")
    assert "features.jsonfeatures.py" in lines.replace("\n", "")


async def test_a_build_that_cannot_be(plane: Plane, tmp_path: Path) -> None:
    asked = await given(plane, tmp_path)
    with pytest.raises(InvalidInput, match="joins a table fuel by city") as caught:
        await plane.post(ROUTE, asked)
    assert caught.value.hint == "--data fuel=NAME@V"
    with pytest.raises(InvalidInput, match="joins no table fule"):
        await plane.post(ROUTE, asked | {"tables": {"fuel": "fuel", "fule": "fuel"}})
    with pytest.raises(NotFound, match="there is no data set nothing"):
        await plane.post(ROUTE, asked | {"tables": {"fuel": "nothing"}})
    with pytest.raises(InvalidInput, match="cannot be the name"):
        await plane.post(ROUTE, asked | {"into": "a b", "tables": {"fuel": "fuel"}})


async def test_a_build_that_fails_leaves_no_version(plane: Plane, tmp_path: Path) -> None:
    asked = await given(plane, tmp_path)
    await add_data(plane, "other", tmp_path / "data" / "fuel.csv")
    job = await built(plane, asked | {"data": "other", "tables": {"fuel": "fuel"}})
    assert job["state"] == "FAILED"
    tail = job["attempts"][0]["first_failure"]["tail"]
    assert any("fuel.csv has no column 'at'; it has known, city, price" in line for line in tail)
    assert [view["name"] for view in await plane.get("/v1/data")] == ["fuel", "other", "rides"]


async def test_any_job_makes_versions_of_data_sets(plane: Plane) -> None:
    """A folder by its paths below the output; a job that fails makes none."""
    outputs = {"set": {"path": "out", "data": "made"}, "one": {"path": "one.txt", "data": "single"}}
    script = "mkdir -p out/deep; echo a > out/deep/a.txt; echo b > out/b.txt; echo c > one.txt"
    job = await plane.submit(script, outputs=outputs)
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    files = await plane.get("/v1/data/made@1/files")
    assert [file["path"] for file in files] == ["b.txt", "deep/a.txt"]
    assert (await plane.get("/v1/data/single@1"))["file"] == "one.txt"
    need = {"set": {"path": "out", "data": "made"}, "two": {"path": "two", "required": True}}
    job = await plane.submit(f"{script}; echo d > out/d.txt", outputs=need)
    assert (await plane.wait(job))["state"] == "FAILED"
    assert [view["id"] for view in await plane.get("/v1/data")] == ["made@1", "single@1"]
    with pytest.raises(InvalidInput, match="the name of a data set"):
        await plane.submit("true", outputs={"x": {"path": "x", "data": "made@1"}})


async def test_it_is_there_after_a_restart_and_never_pruned(plane: Plane, tmp_path: Path) -> None:
    await features.add(plane.client, "rides", features.write(tmp_path / "f", given=RIDES))
    await plane.restart()
    plane.now.offset += 30 * 86_400
    assert (await plane.post("/v1/blobs/prune", {"older_than": 3600}))["blobs"] == 0
    job = await plane.submit('cat "$QD_DATA_FEATURES/features.py"', features="rides@1")
    assert (await plane.wait(job))["state"] == "SUCCEEDED"


async def test_features_are_built_and_used_by_name(plane: Plane, tmp_path: Path) -> None:
    """A step that leaves a data set passes it on by its version."""
    asked = await given(plane, tmp_path)
    build = {
        "command": [sys.executable, "-m", "quarterdeck_serve.features", "--out", "built"],
        "features": "rides",
        "outputs": {"built": {"path": "built", "required": True, "data": asked["into"]}},
    }
    steps = {
        "build": {"job": build, "data": {"rows": "rides@1", "fuel": "fuel"}},
        "train": {
            "job": {"command": 'head -1 "$QD_DATA_SET/rides.csv"'},
            "data": {"set": "${steps.build.data}"},
        },
    }
    request = {"spec": {"name": "p", "steps": steps}}
    made = await plane.post("/v1/pipelines", request)

    async def over() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/pipelines/{made['id']}")
        return view if view["state"] in ("SUCCEEDED", "FAILED") else None

    view = await until(over)
    assert view["state"] == "SUCCEEDED", view
    job = await plane.get(f"/v1/jobs/{view['tasks'][1]['job']}")
    assert job["spec"]["data"] == {"set": "rides-x@1"}
    first = await plane.get(f"/v1/jobs/{view['tasks'][0]['job']}")
    assert first["spec"]["features"] == "rides@1"
    again = await plane.post("/v1/pipelines", request)
    made = again
    cached = await until(over)
    assert {task["state"] for task in cached["tasks"]} == {"CACHED"}
    missing = {"a": {"job": {"command": "true", "features": "nothing"}}}
    with pytest.raises(NotFound, match=r"steps.a: there are no features nothing"):
        await plane.post("/v1/pipelines", {"spec": {"name": "p", "steps": missing}})
    bare = {
        "a": {"job": {"command": "true"}},
        "b": {"job": {"command": "true"}, "data": {"x": "${steps.a.data}"}},
    }
    with pytest.raises(InvalidInput, match="a is a job, which leaves no data"):
        await plane.post("/v1/pipelines", {"spec": {"name": "p", "steps": bare}})


def imported(plane: Plane, path: Path) -> str:
    """The digest of a manifest of this one file, in the store."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    manifest = Manifest.of([FileEntry("model.onnx", 0o644, len(data), digest)])
    blobs: dict[str, bytes | Path] = {
        digest: data,
        manifest.digest.removeprefix("sha256:"): manifest.to_bytes(),
    }
    send_blobs(plane.client, blobs, told=lambda done, total: None)
    return manifest.digest


async def test_a_model_of_a_run_with_features_has_them_among_its_files(
    plane: Plane, tmp_path: Path
) -> None:
    asked = await given(plane, tmp_path)
    await built(plane, asked | {"tables": {"fuel": "fuel"}})
    job = await plane.submit(
        "echo weights > m.bin",
        outputs={"m": "m.bin"},
        data={"train": "rides-x"},
        features="rides",
    )
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    made = await plane.post("/v1/models", {"name": "fares", "run": job})
    detail = await plane.get(f"/v1/models/{made['id']}")
    paths = [one["path"] for one in detail["contents"]]
    assert paths == ["features/features.json", "features/features.py", "m.bin"]
    version = await plane.get("/v1/features/rides@1")
    carried = {"version": "rides@1", "digest": version["digest"]}
    assert detail["lineage"]["features"] == carried
    made_of = detail["lineage"]["made"]["rides-x@1"]
    assert (made_of["features"], made_of["data"]["rows"]) == (carried, "rides@1")
    drawn = "\n".join(lineage.drawn(lineage.tree(detail)))
    for text in (
        "data train = rides-x@1, made by j1.1",
        "data rows = rides@1",
        "features rides@1 ",
    ):
        assert text in drawn
    names = [one["name"] for one in lineage.openlineage(detail, "c")["inputs"]]
    assert "features/rides" in names
    # Other features are other bytes, so an approval of one is none of the other.
    features.write(tmp_path / "features", features.HARD + "\n# changed\n")
    await features.add(plane.client, "rides", tmp_path / "features")
    other = await plane.post("/v1/models", {"name": "fares", "run": job, "features": "rides@2"})
    assert (other["id"], other["digest"] == made["digest"]) == ("fares:2", False)


async def test_a_model_with_features_is_served_behind_them(plane: Plane, tmp_path: Path) -> None:
    await features.add(plane.client, "rides", features.write(tmp_path / "f"))
    whole = features.write(tmp_path / "g", given={**RIDES, "rowwise": False})
    await features.add(plane.client, "whole", whole)
    manifest = await asyncio.to_thread(imported, plane, echo(tmp_path / "model.onnx"))
    for name, transform in (("fares", "rides@1"), ("odd", "whole"), ("plain", None)):
        body = {"name": name, "manifest": manifest, "features": transform}
        await plane.post("/v1/models", body)
    controller = plane.controller

    async def version(name: str) -> services.Version:
        ref = ModelRef(name)
        signers = await controller.signers()
        return await controller.db.read(
            lambda s: services.servable(s, ref, "staging", controller.now(), signers)
        )

    served = await version("fares")
    command = services.model_service(served, {"python": "python"})["command"]
    assert command[-3:] == ["--transform", "features", "model.onnx"]
    spec = batching.job(served, batching.Batch(("/in.csv",), "/out", python="python"))
    assert spec.argv()[-5:] == ["--transform", "features", "--", "model.onnx", "/in.csv"]
    command = services.model_service(await version("plain"), {"python": "python"})["command"]
    assert "--transform" not in command
    with pytest.raises(InvalidInput, match=r"whole@1, which look at other rows"):
        await version("odd")
    with pytest.raises(NotFound, match="there are no features nothing"):
        await plane.post("/v1/models", body | {"name": "x", "features": "nothing"})
    wide = {**RIDES, "outputs": {"x": {"type": "float64", "width": 5}, "hour": "float64"}}
    await features.add(plane.client, "wide", features.write(tmp_path / "h", given=wide))
    with pytest.raises(InvalidInput, match=r"wide@1 does not fit: the model's input x of"):
        await plane.post("/v1/models", body | {"name": "x", "features": "wide"})
