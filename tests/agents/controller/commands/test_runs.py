"""Runs through the API, on both databases: chosen, sorted, compared, run again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from console.cli.upload import send_snapshot
from console.workdir.scan import scan
from jobs.base.errors import InvalidInput, NotFound
from tests.agents.controller.conftest import Plane

LOG = "import quarterdeck as q; q.log(**{'acc': q.params['x'] / 10, 'val/loss': 1.0})"
EVIL = "x'; DROP TABLE jobs;--"


@pytest.fixture(params=["sqlite", "postgres"])
def any_plane(request: pytest.FixtureRequest) -> Plane:
    name = "plane" if request.param == "sqlite" else "postgres_plane"
    made: Plane = request.getfixturevalue(name)
    return made


async def ids(plane: Plane, text: str | None, **query: Any) -> list[str]:
    page = await plane.get("/v1/runs", filter=text, **query)
    return [run["job"] for run in page["runs"]]


async def test_runs_are_chosen_by_what_they_are(any_plane: Plane) -> None:
    plane = any_plane
    command = ["python", "-c", LOG]
    for number, extra in enumerate(({}, {"opt": "adam", "flag": True}, {"opt": "sgd", "x": 30})):
        params = {"x": number + 1, **extra}
        tags = {"team": EVIL if number == 0 else "vision"}
        await plane.submit(command, params=params, tags=tags, name=f"run-{number}", seed=number)  # type: ignore[arg-type]
    for number in (1, 2, 3):
        assert (await plane.wait(f"j{number}"))["state"] == "SUCCEEDED"

    assert await ids(plane, None) == ["j3", "j2", "j1"]
    for text, wanted in {
        "acc >= 0.2": ["j3", "j2"],
        "metric.val/loss = 1": ["j3", "j2", "j1"],
        "acc > 0.1 and acc < 1": ["j2"],
        "not acc > 0.15": ["j1"],
        "param.x < 5": ["j2", "j1"],
        "param.opt < 5": [],
        "param.opt = adam": ["j2"],
        "not param.opt = adam": ["j3", "j1"],
        "param.opt != adam": ["j3"],
        "param.flag = true": ["j2"],
        f'tag.team = "{EVIL}"': ["j1"],
        "tag.team ~ VIS": ["j3", "j2"],
        "name = run-1 or seed = 2": ["j3", "j2"],
        "state = succeeded": ["j3", "j2", "j1"],
        "id = j2": ["j2"],
        "duration > 3600 or restarts > 0": [],
        "ranks = 1 and commit = abc": [],
        "sweep = s1": [],
    }.items():
        assert await ids(plane, text) == wanted, text
    assert await ids(plane, None, sort="-acc") == ["j3", "j2", "j1"]
    assert await ids(plane, None, sort="param.x") == ["j1", "j2", "j3"]
    page = await plane.get("/v1/runs", limit=2)
    assert (page["next"], page["total"]) == ("j2", 3)
    assert await ids(plane, None, before=page["next"]) == ["j1"]
    run = page["runs"][0]
    assert (run["id"], run["params"]["x"], run["metrics"]) == (
        "j3.1",
        30,
        {"acc": 3.0, "val/loss": 1.0},
    )
    with pytest.raises(InvalidInput):
        await plane.get("/v1/runs", filter="acc >")


async def test_the_code_of_a_run(plane: Plane, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    snapshot = await asyncio.to_thread(send_snapshot, plane.client, scan(folder))
    spec = {"command": "true", "name": "with-code"}
    job = (await plane.post("/v1/jobs", {"spec": spec, "snapshot": snapshot}))["id"]
    (file,) = await plane.get(f"/v1/jobs/{job}/code")
    assert file["path"] == "train.py"
    data, _ = await asyncio.to_thread(plane.client.raw, f"/v1/jobs/{job}/code/{file['sha256']}")
    assert data == b"print(1)\n"
    with pytest.raises(NotFound):
        await plane.get(f"/v1/jobs/{job}/code/{snapshot.removeprefix('sha256:')}")
    bare = await plane.submit("true")
    assert json.loads(json.dumps(await plane.get(f"/v1/jobs/{bare}/code"))) == []


FACTS = """
import json, os
lines = [{"f": "param", "k": "lr", "x": "0.01"}, {"f": "param", "k": "x", "x": "9"},
         {"f": "param", "k": "optimizer/name", "x": os.environ["EVIL"]},
         {"f": "tag", "k": "team", "x": "vision"},
         {"n": "acc", "s": 0, "v": 1.0, "t": 1.0}, {"f": "tag", "k": "old", "x": "1"},
         {"f": "tag", "k": "old", "x": None}, {"f": "rows", "k": "a", "x": "1"},
         {"f": "param", "k": 7, "x": "1"},
         {"f": "param", "k": "half", "x": "a\\ud800\\0"}]
with open(os.environ["QD_METRICS_FILE"], "a") as file:
    file.write("".join(json.dumps(line, separators=(",", ":")) + "\\n" for line in lines))
"""


async def test_what_a_program_logs_is_found_beside_what_it_was_given(any_plane: Plane) -> None:
    plane = any_plane
    command = ["python", "-c", FACTS]
    await plane.submit(command, params={"x": 1}, env={"EVIL": EVIL}, name="facts")  # type: ignore[arg-type]
    assert (await plane.wait("j1"))["state"] == "SUCCEEDED"
    (run,) = (await plane.get("/v1/runs"))["runs"]
    assert run["params"] == {"half": "a?\ufffd", "lr": 0.01, "optimizer/name": EVIL, "x": 1}
    assert (run["tags"], run["metrics"]) == ({"team": "vision"}, {"acc": 1.0})
    for text, found in {
        "param.lr < 0.1": True,
        "param.lr > 0.1": False,
        "param.x = 1 and tag.team = vision": True,
        "param.x = 9": False,
        f'param.optimizer/name = "{EVIL}"': True,
        "tag.old = 1": False,
    }.items():
        assert await ids(plane, text) == (["j1"] if found else []), text
    assert await ids(plane, None, sort="-param.lr") == ["j1"]


async def test_runs_bring_the_course_of_their_objective_where_it_is_asked_for(
    any_plane: Plane,
) -> None:
    plane = any_plane
    log = "import quarterdeck as q; [q.log(loss=900 - i, other=i, step=i) for i in range(900)]"
    objective = {"metric": "loss", "goal": "minimize"}
    await plane.submit(["python", "-c", log], objective=objective)  # type: ignore[arg-type]
    await plane.submit(["python", "-c", log])  # type: ignore[arg-type]  # has none
    for number in (1, 2):
        assert (await plane.wait(f"j{number}"))["state"] == "SUCCEEDED"
    page = await plane.get("/v1/runs", points=12, filter="id=j1 or id=j2 or id=j99")
    without, with_one = page["runs"]
    assert without["curve"] == []
    curve = with_one["curve"]
    assert curve[0] == 900.0 and curve[-1] == 1.0 and len(curve) <= 16
    assert curve == sorted(curve, reverse=True)
    assert "curve" not in (await plane.get("/v1/runs"))["runs"][0]
