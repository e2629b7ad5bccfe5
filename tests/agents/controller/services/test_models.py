"""Versions of models: only what is approved reaches production, and our model server serves it."""

from __future__ import annotations

import io
import json
import os
import pwd
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sqlmodel import Session, select

from jobs.base.errors import Conflict, InvalidInput, NotAllowed, NotFound
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store.tables import AuditRow
from tests.agents.controller.conftest import Plane, until


def times(factor: float) -> bytes:
    """A model that multiplies two numbers."""
    weights = onnx.numpy_helper.from_array(np.array([factor], np.float32), "factor")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


async def take_in(plane: Plane, files: dict[str, bytes], name: str = "times") -> str:
    entries = []
    for path, data in files.items():
        with plane.controller.blobs.incoming() as incoming:
            incoming.write(data)
            entries.append(FileEntry(path, 0o644, len(data), incoming.commit()))
    manifest = Manifest.of(entries)
    plane.controller.blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
    view = await plane.post("/v1/models", {"name": name, "manifest": manifest.digest})
    version: str = view["id"]
    return version


async def approve(plane: Plane, ref: str) -> None:
    view = await plane.get(f"/v1/models/{ref}")
    body = {"digest": view["digest"], "evidence": view["standing"]["evidence"], "comment": "ok"}
    await plane.post(f"/v1/models/{ref}/approve", body)


async def deploy(plane: Plane, model: str, **more: Any) -> Any:
    spec = {"resources": {"cpu": 0.5}, **more.pop("spec", {})}
    return await plane.post("/v1/deployments", {"model": model, "spec": spec, **more})


async def over(plane: Plane, target: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get("/v1/deployments/times", target=target)
        phase = view["rollout"]["phase"]
        return view if view["settled"] and phase not in ("starting", "stepping") else None

    view: dict[str, Any] = await until(look, lambda: str(plane.controller.problems()))
    return view


async def predict(plane: Plane, values: list[float], target: str) -> Any:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": values}
    body = {"body": json.dumps({"inputs": [tensor]})}
    answer = await plane.post(f"/v1/deployments/times/predict?target={target}", body)
    assert answer["status"] == 200, answer
    return json.loads(answer["body"])["outputs"][0]["data"]


async def test_an_approved_version_is_served_and_another_only_at_staging(plane: Plane) -> None:
    first = await take_in(plane, {"model/times.onnx": times(2), "labels.txt": b"a b"})
    with pytest.raises(NotAllowed, match="may not be deployed to production"):
        await deploy(plane, first)
    assert await plane.get("/v1/deployments") == []
    await deploy(plane, first, target="staging")
    assert (await over(plane, "staging"))["live"] == "1"
    assert await predict(plane, [1, 2.5], "staging") == [2, 5]

    await approve(plane, first)
    await deploy(plane, "times:last")
    view = await over(plane, "production")
    assert (view["live"], view["versions"][0]["healthy"]) == ("1", 1)
    assert await predict(plane, [3, 4], "production") == [6, 8]

    def read(session: Session) -> list[tuple[str, str, str]]:
        rows = session.exec(select(AuditRow)).all()
        return [(row.action, row.target, row.user) for row in rows]

    me = pwd.getpwuid(os.getuid()).pw_name
    told = await plane.controller.db.read(read)
    assert ("service.deploy.refused", "times:1@production", me) in told
    assert ("rollout.started", "times@production", me) in told


async def test_what_is_no_longer_approved_is_refused(plane: Plane) -> None:
    version = await take_in(plane, {"times.onnx": times(2)})
    await approve(plane, version)
    await plane.post(f"/v1/models/{version}/revoke", {"reason": "it leaks"})
    with pytest.raises(NotAllowed, match="may not be deployed"):
        await deploy(plane, version)
    await plane.post(f"/v1/models/{version}/archive", {"reason": "old"})
    with pytest.raises(Conflict, match="is archived"):
        await deploy(plane, version, target="staging")


async def test_what_cannot_be_served_says_what_to_do(plane: Plane) -> None:
    version = await take_in(plane, {"weights.safetensors": b"\x08" + bytes(7) + b"{}      "})
    with pytest.raises(InvalidInput, match="is not an ONNX model but safetensors"):
        await deploy(plane, version, target="staging")
    with pytest.raises(NotFound, match="no model 'nothing'"):
        await deploy(plane, "nothing:1")
    onnx_version = await take_in(plane, {"times.onnx": times(2)})
    with pytest.raises(InvalidInput, match="its own command"):
        await deploy(plane, onnx_version, target="staging", spec={"command": "x"})


async def test_files_are_predicted_by_a_job_which_a_kill_does_not_confuse(
    plane: Plane, tmp_path: Path
) -> None:
    version = await take_in(plane, {"times.onnx": times(3)})
    file, out = tmp_path / "in.csv", tmp_path / "out"
    file.write_text("id,a,b\n" + "".join(f"{n},{n},1\n" for n in range(5000)))
    body = {"model": version, "files": [str(file)], "out": str(out), "ranks": 2,
            "features": ["a", "b"], "cpus": 0.5, "key": "k"}  # fmt: skip
    made = await plane.post("/v1/predictions", body)
    assert (await plane.post("/v1/predictions", body))["id"] == made["id"]
    await plane.restart()
    job = await plane.wait(made["id"])
    assert job["state"] == "SUCCEEDED", job
    assert job["tags"] == {"predict": version, "out": str(out)}

    async def told() -> bool:
        metrics = (await plane.get(f"/v1/jobs/{made['id']}"))["metrics"]
        return bool(metrics["batch_rows"]["value"] == 5000)

    await until(told)
    lines = (out / "part-000000.csv").read_text().splitlines()
    assert (lines[0], lines[3], len(lines)) == ("id,y_0,y_1", "2,6.0,3.0", 5001)

    with pytest.raises(InvalidInput, match="absolute paths"):
        await plane.post("/v1/predictions", body | {"out": "here", "key": "l"})
    await plane.post(f"/v1/models/{version}/archive", {"reason": "old"})
    with pytest.raises(Conflict, match="is archived"):
        await plane.post("/v1/predictions", body | {"key": "m"})


async def test_a_program_serves_a_version_that_is_held_to_the_same_rules(plane: Plane) -> None:
    version = await take_in(plane, {"weights.txt": b"forty-two\n", "sub/more.txt": b"x"}, "llm")
    command = f"exec {sys.executable} -m http.server --bind $HOST --directory $QD_MODEL $PORT"
    spec = {
        "name": "chat", "model": "llm", "command": ["bash", "-c", command], "ready": "/weights.txt",
        "resources": {"cpu": 0.25},
    }  # fmt: skip

    async def serve(**more: Any) -> Any:
        return await plane.post("/v1/deployments", {"spec": spec, **more})

    with pytest.raises(NotAllowed, match=r"llm:1 may not be deployed to production"):
        await serve(target="production")
    with pytest.raises(NotFound, match="no model 'nothing'"):
        await plane.post(
            "/v1/deployments", {"spec": {**spec, "model": "nothing"}, "target": "staging"}
        )
    await approve(plane, version)
    await serve(target="production")

    async def live() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get("/v1/deployments/chat")
        return view if view["settled"] and view["live"] is not None else None

    view = await until(live, lambda: str(plane.controller.problems()))
    assert view["live"] == "1", "the version's number"
    path = "/v1/deployments/chat/predict?target=production"
    answer = await plane.post(path, {"path": "/weights.txt"})
    assert (answer["status"], answer["body"]) == (200, "forty-two\n")
    jobs = (await plane.get("/v1/jobs"))["jobs"]
    (job,) = [one for one in jobs if one["name"].startswith("chat")]
    assert (await plane.get(f"/v1/jobs/{job['id']}"))["spec"]["models"] == {"model": "llm:1"}
    await plane.post(f"/v1/models/{version}/archive", {})
    with pytest.raises(Conflict, match="llm:1 is archived"):
        await plane.post(
            "/v1/deployments", {"spec": {**spec, "model": "llm:1"}, "target": "staging"}
        )


async def test_a_job_names_versions_of_models(plane: Plane) -> None:
    await take_in(plane, {"w.txt": b"one"}, "base")
    await take_in(plane, {"w.txt": b"two"}, "base")
    await take_in(plane, {"w.txt": b"judge"}, "other")
    script = 'cat $QD_MODEL_OLD/w.txt $QD_MODEL_JUDGE/w.txt; echo " ${QD_MODEL:-none}"'
    spec = {"command": ["bash", "-c", script], "models": {"old": "base:1", "judge": "other"}}
    made = await plane.post("/v1/jobs", {"spec": spec, "key": "k1"})

    async def ended() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/jobs/{made['id']}")
        return view if view["state"] in ("SUCCEEDED", "FAILED") else None

    view = await until(ended)
    assert view["spec"]["models"] == {"old": "base:1", "judge": "other:1"}
    lines = [line["line"] for line in await plane.lines(f"/v1/jobs/{made['id']}/logs")]
    assert lines[0] == "onejudge none"
    with pytest.raises(NotFound, match="no model 'nobody'"):
        await plane.post("/v1/jobs", {"spec": {**spec, "models": {"x": "nobody"}}, "key": "k2"})
