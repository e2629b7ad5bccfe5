"""What a release recorded, all later ones show, and what it left open, they bring to its end.

Each archive is the `state` folder of a head whose every process was killed at one moment. They were written
by the release's own commands, on a machine of one node `vm` with two simulated GPUs:

    j1   `kept`: metrics, an artifact, a checkpoint, a secret, a submission key   SUCCEEDED
    j2   `failed`: exit code 3                                                    FAILED
    j3   `cancelled`                                                              CANCELLED
    s1   `kept-sweep`: four trials, j4 to j7                                      FINISHED
    s2   `unfinished`: twelve trials, of which some are done                      RUNNING
         `running`: holds both GPUs                                               RUNNING
         `behind`: waits for them                                                 QUEUED
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agents.controller.conftest import Plane, until

STATES = sorted((Path(__file__).parent / "states").glob("*.tar.xz"))
STEPS = 10


@pytest.fixture(params=STATES, ids=lambda path: path.name.removesuffix(".tar.xz"))
async def plane(
    request: pytest.FixtureRequest, tmp_path: Path, make_plane: Callable[..., Any]
) -> Plane:
    """Today's control plane over a state of then, with one node, of another name than then."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    made: Plane = await make_plane(cpus=4, gpus=2)
    return made


def test_there_are_states() -> None:
    assert STATES


async def test_what_was_recorded_is_shown(plane: Plane) -> None:
    jobs = {job["name"]: job for job in (await plane.get("/v1/jobs", all=True))["jobs"]}
    assert {name: jobs[name]["state"] for name in ("kept", "failed", "cancelled")} == {
        "kept": "SUCCEEDED",
        "failed": "FAILED",
        "cancelled": "CANCELLED",
    }
    assert "exit code 3" in jobs["failed"]["reason"]
    kept = await plane.get("/v1/jobs/j1")
    assert kept["spec"]["tags"] == {"kept": "ja, größer"}
    assert kept["objective"]["value"] == pytest.approx(1 - 0.9**STEPS)

    points = await plane.lines("/v1/jobs/j1/metrics", name="loss")
    assert [point["step"] for point in points] == list(range(STEPS))
    assert [point["value"] for point in points] == pytest.approx(
        [0.9 ** (n + 1) for n in range(STEPS)]
    )
    texts = [line["line"] for line in await plane.lines("/v1/jobs/j1/logs")]
    assert len(texts) == STEPS + 1
    assert "fin: größer als null" in texts

    assert {artifact["name"] for artifact in kept["artifacts"]} == {"model", "checkpoint"}
    for artifact in kept["artifacts"]:
        path = plane.controller.blobs.local(artifact["digest"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == artifact["digest"].removeprefix(
            "sha256:"
        )
    verified = await plane.get("/v1/audit/verify")
    assert verified["ok"]
    sweep = await plane.get("/v1/sweeps/s1")
    assert (sweep["state"], sweep["counts"]["complete"]) == ("FINISHED", 4)


async def test_a_submission_key_of_then_makes_no_second_job(plane: Plane) -> None:
    answer = await plane.post("/v1/jobs", {"spec": {"command": "true"}, "key": "kept-1"})
    assert (answer["id"], answer["created"]) == ("j1", False)


async def test_what_was_open_comes_to_its_end(plane: Plane) -> None:
    """The sweep trains what is left of its trials, each once; what waited runs when its GPUs are free."""
    before = await plane.get("/v1/sweeps/s2/trials")
    done = {trial["number"]: trial["job"] for trial in before if trial["state"] == "COMPLETE"}
    assert done

    async def finished() -> bool:
        return bool((await plane.get("/v1/sweeps/s2"))["state"] == "FINISHED")

    await until(finished)
    trials = await plane.get("/v1/sweeps/s2/trials")
    assert [(trial["number"], trial["state"]) for trial in trials] == [
        (n, "COMPLETE") for n in range(12)
    ]
    assert {number: trials[number]["job"] for number in done} == done
    assert len({trial["params"]["lr"] for trial in trials}) == 12

    jobs = {job["name"]: job["id"] for job in (await plane.get("/v1/jobs", all=True))["jobs"]}
    await plane.post(f"/v1/jobs/{jobs['running']}/cancel")
    plane.clock.skip(600)  # its node is gone, and with it goes its lease
    await plane.wait(jobs["behind"], "SUCCEEDED")
    assert (await plane.get("/v1/audit/verify"))["ok"]
