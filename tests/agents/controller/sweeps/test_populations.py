"""Population-based training on a real control plane: checkpoints go from trial to trial."""

from __future__ import annotations

import os
from typing import Any

import pytest

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.snapshots.manifest import Manifest
from tests.agents.controller.conftest import Plane
from tests.agents.controller.sweeps.test_sweeps import ended, logs, restart_at, study, sweep, trials

# Each turn adds a line with its rate to the checkpoint, up to the line that it is told to reach. The
# score is the sum of all rates that the weights have seen: copied weights bring theirs along.
TRAIN = f"""
cd "$QD_CHECKPOINT_DIR"; mkdir -p deep; touch deep/weights .half.1.tmp
while test $(wc -l < deep/weights) -lt {{epochs}}; do echo {{rate}} >> deep/weights; done
score=$(awk '{{{{ s += $1 }}}} END {{{{ print s }}}}' deep/weights)
{logs("score", "{epochs}", "$score")}
""".strip().replace("{{{{", "{").replace("}}}}", "}")  # fmt: skip
SPACE = {"rate": {"low": 1, "high": 1000}, "shape": {"choices": ["a", "b", "c"]}}
PBT: dict[str, Any] = {
    "population": 4,
    "generations": 3,
    "until": "epochs",
    "interval": 2,
    "explore": ["rate"],
    "resample": 0.0,
}


async def population(plane: Plane, command: str = TRAIN, **options: Any) -> str:
    return await sweep(
        plane,
        command,
        job={"resources": {"cpu": 0.25}, "params": {"epochs": 0}},
        space=SPACE,
        sampler={"pbt": PBT | options},
        objective={"metric": "score", "goal": "maximize"},
        trials=None,
        parallel=4,
        enqueue=[{"rate": 500, "shape": "a"}, {"rate": 1, "shape": "b"}],
    )


def weights(plane: Plane, row: dict[str, Any], kept: dict[int, str]) -> list[int]:
    """What a trial left, as the controller keeps it."""
    blobs = plane.controller.blobs
    [entry] = Manifest.from_bytes(blobs.read(kept[row["number"]])).files
    assert entry.path == "deep/weights"
    return [int(line) for line in blobs.read(entry.sha256).split()]


async def checkpoints(plane: Plane, rows: list[dict[str, Any]]) -> dict[int, str]:
    from jobs.store.sweeptables import SweepTrialRow

    def read(session: Any) -> dict[int, str]:
        return {
            row["number"]: session.get(SweepTrialRow, (1, row["number"])).checkpoint for row in rows
        }

    return await plane.controller.db.read(read)


def follows(rows: list[dict[str, Any]], left: dict[int, list[int]]) -> None:
    """Every trial's weights begin with those that its parent left."""
    for row in rows:
        generation, parent = row["generation"], row["parent"]
        before = left[parent] if parent is not None else []
        assert left[row["number"]] == before + [row["params"]["rate"]] * 2
        assert len(left[row["number"]]) == 2 * (generation + 1)


async def test_members_go_on_from_checkpoints_and_the_worst_copy_the_best(plane: Plane) -> None:
    name = await population(plane)
    view = await ended(plane, name)
    assert (view["state"], view["trials"]) == ("FINISHED", 12)
    rows = await trials(plane, name)
    by_number = {row["number"]: row for row in rows}
    assert view["counts"]["complete"] == 12
    assert sorted((row["member"], row["generation"]) for row in rows) == [
        (member, generation) for member in range(4) for generation in range(3)
    ]
    kept = await checkpoints(plane, rows)
    follows(rows, {row["number"]: weights(plane, row, kept) for row in rows})
    for row in rows:
        parent = by_number.get(row["parent"])
        if row["generation"] == 0:
            assert parent is None
            assert row["origin"] == ("enqueued" if row["member"] < 2 else "drawn")
            continue
        assert parent is not None
        assert parent["generation"] == row["generation"] - 1
        if row["origin"] == "continued":
            assert (parent["member"], parent["params"]) == (row["member"], row["params"])
        else:
            assert row["origin"] == "copied"
            assert parent["member"] != row["member"]
            assert row["params"]["shape"] == parent["params"]["shape"]
            assert row["params"]["rate"] in (
                round(parent["params"]["rate"] * 0.8),
                min(round(parent["params"]["rate"] * 1.25), 1000),
            )
    copied = [row for row in rows if row["origin"] == "copied"]
    assert any(
        row["member"] == 1 and row["generation"] == 1 for row in copied
    )  # rate 1 is hopeless
    seen = study(plane, view["study"])
    assert [(t["number"], t["state"], t["params"]) for t in seen] == [
        (row["number"], "COMPLETE", row["params"]) for row in rows
    ]
    job = await plane.get(f"/v1/jobs/{rows[-1]['job']}")
    assert job["spec"]["params"]["epochs"] == 6
    with pytest.raises(InvalidInput, match="allowed: more than it has"):
        await plane.post(f"/v1/sweeps/{name}/extend", {"generations": 2})
    await plane.post(f"/v1/sweeps/{name}/extend", {"generations": 4})
    assert (await ended(plane, name))["counts"]["complete"] == 16
    best = max(await trials(plane, name), key=lambda row: row["generation"])
    assert weights(plane, best, await checkpoints(plane, [best]))[-1] == best["params"]["rate"]
    folders = os.listdir(plane.root / "n1" / "checkpoints")  # noqa: PTH208  # blocking, but short
    assert len([name for name in folders if name.startswith(".")]) == 0
    assert len(folders) == 16


async def test_a_population_survives_its_controller_and_goes_from_node_to_node(
    make_plane: Any,
) -> None:
    plane: Plane = await make_plane(nodes=2, cpus=0.5)
    name = await population(plane, f"sleep 0.1; {TRAIN}")
    await restart_at(plane, name, 1, 5, 9)
    view = await ended(plane, name)
    rows = await trials(plane, name)
    by_number = {row["number"]: row for row in rows}
    assert view["counts"]["complete"] == len(rows) == 12
    assert len({(row["member"], row["generation"]) for row in rows}) == 12
    kept = await checkpoints(plane, rows)
    follows(rows, {row["number"]: weights(plane, row, kept) for row in rows})
    parents = [(row, by_number[row["parent"]]) for row in rows if row["parent"] is not None]
    assert any(row["nodes"] != parent["nodes"] for row, parent in parents)


async def test_a_member_that_fails_takes_anothers_checkpoint(plane: Plane) -> None:
    command = f"if test {{rate}} = 1; then exit 1; fi; {TRAIN}"
    name = await population(plane, command, population=2, generations=2)
    view = await ended(plane, name)
    assert view["state"] == "FINISHED"
    rows = {(row["member"], row["generation"]): row for row in await trials(plane, name)}
    assert rows[1, 0]["state"] == "FAILED"
    assert (rows[1, 1]["origin"], rows[1, 1]["parent"]) == ("copied", rows[0, 0]["number"])
    assert rows[1, 1]["params"]["shape"] == "a"


async def test_a_population_whose_scripts_leave_no_checkpoint_ends_in_words(plane: Plane) -> None:
    name = await population(plane, logs("score", 0, "{rate}"))
    view = await ended(plane, name)
    assert view["state"] == "FAILED"
    assert view["reason"] == "no checkpoint to go on with: 4 members failed, or left none"
    reasons = {row["reason"] for row in await trials(plane, name)}
    assert reasons == {"left no checkpoint in quarterdeck.checkpoint_dir"}


async def test_a_turn_runs_again_from_where_it_began(plane: Plane) -> None:
    """It failed for a reason of its own; its member goes on from what it comes to."""
    mended = plane.root / "mended"
    command = f"if test {{rate}} = 1 && ! test -e {mended}; then exit 1; fi; {TRAIN}"
    name = await population(plane, command, population=2, generations=1, quantile=0.5)
    assert (await ended(plane, name))["counts"]["failed"] == 1
    rows = await trials(plane, name)
    [failed] = [row for row in rows if row["state"] == "FAILED"]
    mended.touch()
    view = await plane.post(f"/v1/sweeps/{name}/trials/{failed['number']}/rerun")
    assert (view["state"], view["trials"]) == ("RUNNING", 3)
    assert (await ended(plane, name))["state"] == "FINISHED"
    again = (await trials(plane, name))[2]
    assert {key: again[key] for key in ("state", "origin", "parent", "member", "generation")} == {
        "state": "COMPLETE",
        "origin": "rerun",
        "parent": failed["number"],
        "member": failed["member"],
        "generation": 0,
    }
    assert again["params"] == failed["params"]
    await plane.post(f"/v1/sweeps/{name}/extend", {"generations": 2})
    assert (await ended(plane, name))["counts"]["total"] == 5
    rows = await trials(plane, name)
    [one] = [row for row in rows if row["origin"] == "continued"]
    later = rows[3]
    await plane.post(f"/v1/sweeps/{name}/trials/{later['number']}/rerun")
    await plane.restart()
    assert (await ended(plane, name))["counts"]["total"] == 6
    rows = await trials(plane, name)
    kept = await checkpoints(plane, rows)
    left = {row["number"]: weights(plane, row, kept) for row in rows if row["state"] == "COMPLETE"}
    assert left[5] == left[later["number"]], "the same point, begun with the same checkpoint"
    assert left[one["number"]][:2] == left[one["parent"]]


async def test_checkpoints_go_that_no_turn_can_begin_with_any_more(plane: Plane) -> None:
    name = await population(plane)
    await ended(plane, name)
    before = await checkpoints(plane, await trials(plane, name))
    assert (await plane.post("/v1/blobs/prune", {}))["checkpoints"] == 0, "they are of today"
    plane.now.offset += 2 * 86_400
    found = await plane.post("/v1/blobs/prune", {})
    rows = await trials(plane, name)
    best = max(rows, key=lambda row: row["values"][0])["number"]
    after = await checkpoints(plane, rows)
    last = {row["number"] for row in rows if row["generation"] == 2}
    assert {number for number, digest in after.items() if digest} == last | {best}
    assert found["checkpoints"] == 12 - len(last | {best})
    assert found["blobs"] == 2 * found["checkpoints"]  # its manifest, and its one file
    assert all(after[number] == before[number] for number in last | {best})
    for row in rows:
        if after[row["number"]]:
            weights(plane, row, after)
        artifacts = (await plane.get(f"/v1/jobs/{row['job']}"))["artifacts"]
        assert len(artifacts) == (1 if after[row["number"]] else 0)
    # What follows from what was kept is possible, and what does not is refused in words.
    first, second = (next(row for row in rows if row["generation"] == g) for g in (0, 1))
    with pytest.raises(Conflict, match="is no longer stored"):
        await plane.post(f"/v1/sweeps/{name}/trials/{second['number']}/rerun")
    with pytest.raises(NotFound, match="is not stored, or no longer"):
        await plane.post(f"/v1/jobs/{second['job']}/retry")
    await plane.post(f"/v1/sweeps/{name}/trials/{first['number']}/rerun")
    await plane.post(f"/v1/sweeps/{name}/extend", {"generations": 4})
    assert (await ended(plane, name))["counts"]["complete"] == 17
