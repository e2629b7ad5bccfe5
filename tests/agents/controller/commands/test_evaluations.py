"""Evaluations on a control plane of its own: real jobs, evidence that stays what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sqlmodel import Session, select

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.models.digests import digest_of
from jobs.store.evaluationtables import EvaluationRow, EvaluationSampleRow
from jobs.store.tables import AuditRow
from tests.agents.controller.commands.test_datasets import add
from tests.agents.controller.commands.test_models import take_in
from tests.agents.controller.conftest import Plane, until
from tests.models import classifier

WIDTH, ROWS = 4, 150


def holdout(file: Path, seed: int = 0) -> Path:
    """Rows of which the model with that seed predicts nine of ten."""
    generator = np.random.default_rng(5)
    features = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
    (label,) = onnxruntime.InferenceSession(classifier(WIDTH, seed=seed)).run(
        ["label"], {"x": features}
    )
    truth = np.where(generator.random(ROWS) < 0.9, label, (label + 1) % 3)
    lines = ["f0,f1,f2,f3,label,sex"]
    for row, answer in zip(features, truth, strict=True):
        lines.append(",".join([*map(str, row), str(answer), "f" if row[0] > 0 else "m"]))
    file.write_text("\n".join(lines) + "\n")
    return file


async def evaluate(plane: Plane, ref: str, data: str, **asked: Any) -> Any:
    return await plane.post(f"/v1/models/{ref}/evaluate", {"asked": {"data": data, **asked}})


async def over(plane: Plane, number: str) -> dict[str, Any]:
    async def done() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get(f"/v1/evaluations/{number}")
        return view if view["state"] != "RUNNING" else None

    found: dict[str, Any] = await until(done)
    return found


async def prepared(plane: Plane, tmp_path: Path) -> None:
    """`m:1`, which the data suit, `m:2`, which they do not, and `test@1`."""
    await take_in(plane, {"m.onnx": classifier(WIDTH)}, "m")
    await take_in(plane, {"m.onnx": classifier(WIDTH, seed=1)}, "m")
    await add(plane, "test", holdout(tmp_path / "rows.csv"))


@pytest.fixture(params=["plane", "postgres_plane"])
def registry(request: pytest.FixtureRequest) -> Plane:
    made: Plane = request.getfixturevalue(request.param)
    return made


async def test_a_version_is_measured_and_the_evidence_stays(
    registry: Plane, tmp_path: Path
) -> None:
    plane = registry
    await prepared(plane, tmp_path)
    made = await evaluate(plane, "m:1", "test", slices=["sex"])
    assert (made["id"], made["model"], made["data"], made["state"]) == (
        "e1",
        "m:1",
        "test@1",
        "RUNNING",
    )
    view = await over(plane, "e1")
    assert view["state"] == "DONE", view["reason"]
    document = view["document"]
    assert view["evidence"] == digest_of(document) and view["sound"]
    detail = await plane.get("/v1/models/m:1")
    assert (document["digest"], document["job"]) == (detail["digest"], made["job"])
    assert document["asked"] == {"data": "test", "slices": ["sex"]}
    assert 0.8 < view["metrics"]["accuracy"]["value"] < 1
    assert [one["id"] for one in detail["evaluations"]] == ["e1"]
    job = await plane.get(f"/v1/jobs/{made['job']}")
    assert job["spec"]["data"] == {"holdout": "test@1"}
    for query in ({"model": "m"}, {"model": "m:1"}, {"data": "test"}, {"data": "test@1"}):
        assert [one["id"] for one in await plane.get("/v1/evaluations", **query)] == ["e1"]
    assert await plane.get("/v1/evaluations", model="m:2") == []
    assert await plane.get("/v1/evaluations", data="tes") == []

    def tamper(session: Session) -> tuple[int, list[str]]:
        row = session.get_one(EvaluationRow, 1)
        assert row.document is not None
        report = {**row.document["report"], "rows": 7}
        row.document = {**row.document, "report": report}
        session.add(row)
        samples = session.exec(select(EvaluationSampleRow)).all()
        audited = session.exec(select(AuditRow.action).where(AuditRow.target == "m:1")).all()
        return len(samples), list(audited)

    samples, audited = await plane.controller.db.write(tamper)
    assert samples == 5 + 2 * 4  # metrics; those of two slices have no ROC AUC
    assert audited[-2:] == ["model.evaluate", "model.evaluated"]
    assert not (await plane.get("/v1/evaluations/e1"))["sound"]


async def test_a_mistake_fails_the_job_and_says_why(plane: Plane, tmp_path: Path) -> None:
    await prepared(plane, tmp_path)
    view = await over(plane, (await evaluate(plane, "m:1", "test", target="nose"))["id"])
    assert view["state"] == "FAILED" and view["document"] is None
    assert view["reason"].startswith("there is no column 'nose' for --target; there are f0, f1")
    assert (await plane.get(f"/v1/jobs/{view['job']}"))["state"] == "FAILED"
    await take_in(plane, {"a.txt": b"x"}, "files")
    with pytest.raises(InvalidInput, match="files:1 is files, which cannot be evaluated"):
        await evaluate(plane, "files", "test")
    with pytest.raises(NotFound, match="no data set other"):
        await evaluate(plane, "m:1", "other")
    with pytest.raises(InvalidInput, match="nose"):
        await evaluate(plane, "m:1", "test", nose=1)
    with pytest.raises(NotFound, match="no evaluation e99"):
        await plane.get("/v1/evaluations/e99")
    with pytest.raises(InvalidInput, match="'x' is not an evaluation"):
        await plane.get("/v1/evaluations/x")
    await plane.post("/v1/models/m:1/archive", {})
    with pytest.raises(Conflict, match="m:1 is archived"):
        await evaluate(plane, "m:1", "test")


async def test_the_same_key_asks_once_and_a_controller_that_was_away_ends_it(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepared(plane, tmp_path)

    async def nothing() -> None:
        return None

    monkeypatch.setattr(plane.controller.evaluations, "look", nothing)
    body = {"asked": {"data": "test", "slices": ["sex"]}, "key": "k"}
    first = await plane.post("/v1/models/m:1/evaluate", body)
    again = await plane.post("/v1/models/m:1/evaluate", body)
    assert (first["id"], first["job"]) == (again["id"], again["job"])
    assert (await plane.wait(first["job"]))["state"] == "SUCCEEDED"
    assert (await plane.get("/v1/evaluations/e1"))["state"] == "RUNNING"
    await plane.restart()
    view = await over(plane, "e1")
    assert view["state"] == "DONE" and view["sound"]
    assert len(await plane.get("/v1/evaluations")) == 1
    cancelled = await evaluate(plane, "m:2", "test")
    await plane.post(f"/v1/jobs/{cancelled['job']}/cancel")
    view = await over(plane, cancelled["id"])
    assert view["state"] == "FAILED" and "cancelled" in view["reason"]


async def test_a_gate_compares_versions_on_the_same_rows(plane: Plane, tmp_path: Path) -> None:
    await prepared(plane, tmp_path)
    gate = {
        "name": "g",
        "data": "test",
        "conditions": [
            "accuracy >= production - 0.005",
            "accuracy >= 0.7 in every sex",
            "fairness.accuracy_difference <= 0.5 by sex",
        ],
    }
    result = await plane.post("/v1/models/m:1/gate", gate)
    why = [one["why"] for one in result["document"]["conditions"]]
    assert why[0] == "there is no production version yet"
    assert why[1] == "m:1 was not evaluated on test: `qd evaluate m:1 --data test`"
    for number in (1, 2):
        made = await evaluate(plane, f"m:{number}", "test", groups=["sex"])
        await over(plane, made["id"])
    result = await plane.post("/v1/models/m:1/gate", gate)
    assert result["passed"], result["document"]["conditions"]
    seen = {"digest": result["document"]["digest"], "evidence": result["evidence"]}
    await plane.post("/v1/models/m:1/approve", seen)
    await plane.post("/v1/models/m:1/alias", {"alias": "production"})
    worse = await plane.post("/v1/models/m:2/gate", gate)
    first = worse["document"]["conditions"][0]
    assert not worse["passed"] and not first["passed"]
    assert first["against"]["version"] == "m:1" and first["against"]["evaluation"] == "e1"
    assert first["on"]["evaluation"] == "e2" and first["interval"][1] < -0.005
    same = await plane.post("/v1/models/m:1/gate", gate)
    assert same["document"]["conditions"][0]["interval"] == [pytest.approx(0.005)] * 2

    def tamper(session: Session) -> None:
        row = session.get_one(EvaluationSampleRow, (1, "accuracy"))
        row.samples = [0.0 for _ in row.samples]
        session.add(row)

    await plane.controller.db.write(tamper)
    after = await plane.post("/v1/models/m:2/gate", gate)
    assert "has no interval" in after["document"]["conditions"][0]["why"]
