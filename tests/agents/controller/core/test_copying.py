"""Checkpoints outlive their node: they are copied while the ranks train, and the next attempt has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.controller.core import copying
from agents.controller.stores import copies
from agents.controller.stores.blobs import Incoming
from agents.node.checkpoints import holding
from jobs.base.errors import StorageFull
from jobs.checkpoints import units
from jobs.snapshots.manifest import Manifest
from tests.agents.controller.conftest import Plane, until

ALWAYS = {"copy": "latest", "every": 0}
"""All nodes of a test are the head's own machine, of which nothing is copied by default."""

TRAIN = """
d=$QD_CHECKPOINT_DIR; n=$(cat $d/last 2>/dev/null || echo 0); echo begins at $n
while [ ! -e {gate} ]; do
  n=$((n+1)); echo $n > $d/.last.tmp; sleep 0.02; mv $d/.last.tmp $d/last; sleep 0.1
done
"""
"""Writes a step to `last`, put into place each time."""


def put(name: str, content: str) -> str:
    """Shell words that put a file into place. It takes a moment, or nobody could see that it was renamed."""
    return f"echo {content} > .x.tmp; sleep 0.02; mv .x.tmp {name}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(copying, "AGAIN", 0.1)
    monkeypatch.setattr(copying, "AGAIN_FULL", 0.2)
    monkeypatch.setattr(copying, "LOOK_IN", 0.02)


@pytest.fixture
async def two(make_plane: Callable[..., Any], quick: None) -> Plane:
    plane: Plane = await make_plane(nodes=2)
    return plane


def content(plane: Plane, job: str) -> dict[str, bytes]:
    """The files of a job's newest copy."""
    store = plane.controller.copies
    found = store.of(int(job[1:]))
    if not found:
        return {}
    manifest = Manifest.from_bytes(store.blobs.read(found[-1].digest))
    return {file.path: store.blobs.read(file.sha256) for file in manifest.files if file.sha256}


def folder(plane: Plane, node: str, job: str) -> Path:
    (found,) = (plane.root / node / "checkpoints").glob(f"*-{job}-*")
    return found


async def told(plane: Plane, job: str) -> dict[str, Any]:
    view = await plane.get(f"/v1/jobs/{job}")
    found: dict[str, Any] = view["checkpoint"]
    return found


async def log(plane: Plane, job: str) -> str:
    return "\n".join(line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs"))


def lose(plane: Plane, node: str) -> None:
    """As after a power cut: nobody will ever hear of it again."""
    lost = plane.fabric.node(node)
    lost.reachable = lost.member = False
    plane.clock.skip(300)


async def test_a_job_goes_on_on_another_node_from_its_last_copy(two: Plane) -> None:
    gate = two.root / "gate"
    job = await two.submit(TRAIN.format(gate=gate), checkpoint=ALWAYS, resources={"cpu": 2})
    view = await two.wait(job, "RUNNING")
    (node,) = view["placed_on"]
    await until(
        lambda: len(two.controller.copies.of(1)) == 3, lambda: str(two.controller.problems())
    )
    step = int(content(two, job)["last"])
    lose(two, node)

    async def again() -> bool:
        view = await two.get(f"/v1/jobs/{job}")
        return len(view["attempts"]) == 2 and view["state"] == "RUNNING"

    await until(again)
    gate.touch()
    view = await two.wait(job)
    begun = int((await log(two, f"{job}.2")).split("begins at ")[1].split()[0])
    assert begun >= step
    assert view["attempts"][1]["ranks"][0]["node"] != node
    found = await told(two, job)
    assert "copied a checkpoint (last), " in found["text"]
    assert [copy["size"] for copy in found["copies"]]
    assert "checkpoint" in await two.get(f"/v1/jobs/{job}/explain")


async def test_what_the_same_node_has_is_newer(make_plane: Callable[..., Any], quick: None) -> None:
    plane: Plane = await make_plane()
    command = (
        "d=$QD_CHECKPOINT_DIR; cat $d/step-*; [ -e $d/step-2.pt ] && exit 0; "
        "echo old > $d/x; sleep 0.02; mv $d/x $d/step-1.pt; while [ ! -e $d/../go ]; do sleep 0.05; done;"
        "echo new > $d/x; sleep 0.02; mv $d/x $d/step-2.pt; exit 3"
    )
    job = await plane.submit(command, checkpoint={**ALWAYS, "every": 3600}, max_restarts=1)
    await until(lambda: content(plane, job))
    found = await told(plane, job)
    assert found["copies"][0]["step"] == 1
    (plane.root / "n1" / "checkpoints" / "go").touch()
    await plane.wait(job, "SUCCEEDED")
    assert (await log(plane, f"{job}.2")).split() == ["old", "new"]
    assert list(content(plane, job)) == ["step-1.pt"], (
        "copies come no more often than they are asked for"
    )


async def test_a_checkpoint_that_is_partly_written_is_never_copied(
    two: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = two.root / "gate"
    command = (
        "cd $QD_CHECKPOINT_DIR; mkdir step-1 step-2; printf '__0_0.distcp' > step-1/.metadata;"
        "echo shard > step-1/__0_0.distcp; touch -d '-1 min' step-1/__0_0.distcp;"
        "echo shard > step-2/__0_0.distcp; printf 'PK\\003\\004 cut' > last.pt;"
        f"while [ ! -e {gate} ]; do sleep 0.05; done"
    )
    monkeypatch.setattr(units, "SETTLED", 0.2)
    job = await two.submit(command, checkpoint={**ALWAYS, "copy": "all"})
    await until(lambda: content(two, job))
    assert sorted(content(two, job)) == ["step-1/.metadata", "step-1/__0_0.distcp"]
    gate.touch()
    await two.wait(job)


async def test_unchanged_files_are_not_sent_again_and_old_copies_go(
    make_plane: Callable[..., Any], quick: None
) -> None:
    plane: Plane = await make_plane()
    gate = plane.root / "gate"
    command = (
        "cd $QD_CHECKPOINT_DIR; head -c 3000000 /dev/urandom > x; sleep 0.02; mv x same.bin; n=0;"
        f"while [ ! -e {gate} ]; do n=$((n+1)); echo $n > x; sleep 0.02; mv x step-$n.pt; sleep 0.3; done"
    )
    job = await plane.submit(command, checkpoint={**ALWAYS, "keep": 2})
    store = plane.controller.copies
    await until(lambda: store.of(1) and (store.of(1)[-1].step or 0) >= 4)
    mine = store.of(1)
    assert len(mine) == 2
    assert mine[0].size > 3_000_000 and mine[1].sent < 100
    gate.touch()
    await plane.wait(job)
    await until(
        lambda: len(store.blobs.items()) <= 5
    )  # of two copies: list, step, and what is the same
    await plane.controller.pruning.prune()
    assert len(store.of(1)) == 2, "the newest stay for a week"
    plane.now.offset = 8 * 86_400
    await plane.controller.pruning.prune()
    assert (store.of(1), store.blobs.items()) == ([], [])


async def test_a_file_that_is_written_over_meanwhile_is_not_recorded(
    two: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = two.root / "gate"
    command = (
        f"cd $QD_CHECKPOINT_DIR; {put('a', 'one')}; while [ ! -e {gate} ]; do sleep 0.05; done"
    )
    changed = 0

    async def fetch(self: Any, agents: Any, key: str, file: Any) -> None:
        nonlocal changed
        if not changed:
            changed += 1
            with (folder(two, file.node, "j1") / "a").open("r+") as written:
                written.write("two")  # the same length, in place, as torch.save does
        await real(self, agents, key, file)

    real = copying.Copier._fetch
    monkeypatch.setattr(copying.Copier, "_fetch", fetch)
    seen: list[str] = []
    say = copying.Copier._say

    def heard(self: Any, live: Any, job: Any, problem: str) -> None:
        seen.append(problem)
        say(self, live, job, problem)

    monkeypatch.setattr(copying.Copier, "_say", heard)
    monkeypatch.setattr(units, "SETTLED", 0.2)
    job = await two.submit(command, checkpoint=ALWAYS)
    await until(lambda: content(two, job))
    assert content(two, job) == {"a": b"two\n"}
    assert any("was overwritten while it was copied" in problem for problem in seen)
    gate.touch()
    await two.wait(job)


async def test_a_full_disk_on_the_head_is_told_and_training_goes_on(
    two: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = two.root / "gate"
    real = Incoming.write

    def full(self: Any, chunk: bytes) -> None:
        raise StorageFull("a blob cannot be stored: No space left on device")

    monkeypatch.setattr(Incoming, "write", full)
    job = await two.submit(TRAIN.format(gate=gate), checkpoint=ALWAYS)

    async def said() -> bool:
        return "No space left" in (await told(two, job))["problem"]

    await until(said)
    found = await told(two, job)
    assert found["text"].endswith("No space left on device; training goes on")
    assert any("No space left" in problem["what"] for problem in two.controller.problems())
    view = await two.get(f"/v1/jobs/{job}")
    assert view["state"] == "RUNNING" and len(view["attempts"]) == 1
    monkeypatch.setattr(Incoming, "write", real)
    await until(lambda: content(two, job))
    await until(lambda: not two.controller.problems())
    gate.touch()
    await two.wait(job)


async def test_the_bound_of_space_is_kept(make_plane: Callable[..., Any], quick: None) -> None:
    plane: Plane = await make_plane()
    plane.controller.copies.bounds = copies.Bounds(space=40_000)
    gate = plane.root / "gate"
    command = (
        "cd $QD_CHECKPOINT_DIR; for n in 1 2 3; do"
        " head -c 9000 /dev/urandom > x; sleep 0.02; mv x a-$n.pt; sleep 0.5; done;"
        f"head -c 90000 /dev/urandom > x; sleep 0.02; mv x a-9.pt; while [ ! -e {gate} ]; do sleep 0.05; done"
    )
    job = await plane.submit(command, checkpoint={**ALWAYS, "keep": 5})

    async def said() -> bool:
        return "QD_CHECKPOINT_SPACE" in (await told(plane, job))["problem"]

    await until(said)
    mine = plane.controller.copies.of(1)
    assert len(mine) < 3 and mine[-1].step == 3, "the newest stays when an older one must go"
    gate.touch()
    await plane.wait(job)


async def test_a_controller_that_is_killed_in_mid_copy_begins_again(
    two: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = two.root / "gate"
    real = copying.Copier._fetch

    reached = asyncio.Event()

    async def stuck(self: Any, agents: Any, key: str, file: Any) -> None:
        if file.path == "b":
            reached.set()
            await asyncio.Event().wait()
        await real(self, agents, key, file)

    monkeypatch.setattr(copying.Copier, "_fetch", stuck)
    command = (
        f"cd $QD_CHECKPOINT_DIR; {put('a', 'one')}; {put('b', 'two')};"
        f"while [ ! -e {gate} ]; do sleep 0.05; done"
    )
    job = await two.submit(command, checkpoint=ALWAYS)
    await until(reached.is_set)
    assert "b" not in content(two, job)
    monkeypatch.setattr(copying.Copier, "_fetch", real)
    await two.restart()
    await until(lambda: content(two, job) == {"a": b"one\n", "b": b"two\n"})
    gate.touch()
    await two.wait(job)


async def test_a_lost_copy_falls_back_to_the_one_before(
    make_plane: Callable[..., Any], quick: None
) -> None:
    plane: Plane = await make_plane()
    command = f"cd $QD_CHECKPOINT_DIR; for n in 1 2; do {put('step-$n.pt', '$n')}; sleep 1; done"
    job = await plane.submit(command, checkpoint=ALWAYS)
    await plane.wait(job)
    store = plane.controller.copies
    first, second = store.of(1)
    assert await store.newest(1) == second
    manifest = Manifest.from_bytes(store.blobs.read(second.digest))
    (entry,) = manifest.files
    store.blobs.path(entry.sha256).unlink()
    assert await store.newest(1) == first


async def test_a_job_that_leaves_a_well_node_takes_what_it_wrote_last(two: Plane) -> None:
    gate = two.root / "gate"
    command = (
        f"cd $QD_CHECKPOINT_DIR; cat a && exit 0; {put('a', 'one')};"
        f"while [ ! -e {gate} ]; do sleep 0.05; done; {put('a', 'last')}; exit 3"
    )
    every = {**ALWAYS, "every": 3600}
    job = await two.submit(command, checkpoint=every, resources={"cpu": 2}, max_restarts=1)
    view = await two.wait(job, "RUNNING")
    (node,) = view["placed_on"]
    await until(lambda: content(two, job))
    await two.post(f"/v1/nodes/{node}/drain", {})
    gate.touch()
    view = await two.wait(job)
    assert view["attempts"][1]["ranks"][0]["node"] != node
    assert (await log(two, f"{job}.2")).split() == ["last"]


async def test_what_is_on_the_heads_own_machine_is_copied_when_asked(two: Plane) -> None:
    job = await two.submit(f"cd $QD_CHECKPOINT_DIR; {put('a', 'one')}; sleep 600")
    await two.wait(job, "RUNNING")
    asked = await two.submit(
        f"cd $QD_CHECKPOINT_DIR; {put('a', 'one')}; sleep 600", checkpoint=ALWAYS
    )
    await until(lambda: content(two, asked))
    assert content(two, job) == {}
    assert await told(two, job) is None
    two.controller.copier._here = lambda node: False
    await until(lambda: content(two, job))
    for one in (job, asked):
        await two.post(f"/v1/jobs/{one}/cancel", {"grace": 0})
        await two.wait(one)
