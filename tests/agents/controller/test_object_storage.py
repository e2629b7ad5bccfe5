"""A whole control plane whose blobs are in object storage, which fails now and then."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import archive
from agents.controller.stores import objects
from agents.controller.stores.blobplace import open_blobs
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.objectblobs import ObjectBlobs
from agents.node.staging import fetching
from jobs.base.errors import Unreachable
from jobs.base.places import places
from tests.agents.controller.commands.test_datasets import add
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.flows.test_flows import folder as snapshot
from tests.agents.controller.test_backups import make
from tests.objects import BUCKET, Storage, credentials, own_server

pytest.importorskip("obstore")

SHORT: Any = {"resources": {"cpu": 0.25}}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setattr(objects, "_AGAIN", ())
    monkeypatch.setattr(objects, "_RETRIES", 1)
    monkeypatch.setattr(objects, "_DOWN", 0.2)
    with own_server() as found:
        yield found


@pytest.fixture
async def plane(make_plane: Callable[..., Any], storage: Storage, tmp_path: Path) -> Plane:
    credentials(tmp_path)
    environ = {"QD_BLOBS_URL": f"s3://{BUCKET}/qd?endpoint={storage.url}"}

    def blobs() -> BlobStore:
        return open_blobs(tmp_path / "state", tmp_path, environ)

    made: Plane = await make_plane(blobs=blobs)
    return made


def forget(plane: Plane) -> None:
    """What the head's cache and the nodes' have."""
    found = [*plane.root.glob("state/blobs/cache/??/*"), *plane.root.glob("n1/blobs/sha256/??/*")]
    for file in found:
        file.unlink()


async def test_a_cluster_lives_on_object_storage(
    plane: Plane, storage: Storage, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "rows.csv").write_text("a,b\n1,2\n")
    await add(plane, "rows", tmp_path / "set")
    code = await asyncio.to_thread(snapshot, plane, base="text of the work folder")
    await asyncio.to_thread(forget, plane)
    command = "cat base $QD_DATA_ROWS/rows.csv; printf weights > model.safetensors; "
    command += "echo 1 > $QD_CHECKPOINT_DIR/c"
    sent = {
        "spec": {
            "command": command,
            "outputs": {"model": "model.safetensors"},
            "data": {"rows": "rows@1"},
            "checkpoint": {"artifact": True},
            **SHORT,
        },
        "snapshot": code,
    }
    job = (await plane.post("/v1/jobs", sent))["id"]
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED", view["reason"]
    lines = [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")]
    assert lines == ["text of the work foldera,b", "1,2"]
    assert not (plane.root / "state" / "blobs" / "sha256").exists()
    assert b"weights" in storage.objects.values()
    assert b"1\n" in storage.objects.values(), "the checkpoint"

    assert (await plane.post("/v1/models", {"name": "digits", "run": job}))["created"]
    await asyncio.to_thread(forget, plane)
    pulled = bytearray()

    shown = await plane.get("/v1/models/digits:1")
    (digest,) = [one["sha256"] for one in shown["contents"]]
    await asyncio.to_thread(plane.client.copy, f"/v1/blobs/{digest}", pulled.extend)
    assert bytes(pulled) == b"weights"
    assert (await plane.post("/v1/models/digits:1/verify"))["ok"]
    key = next(key for key, body in storage.objects.items() if body == b"weights")
    storage.objects[key] = b"WEIGHTS"
    verdict = await plane.post("/v1/models/digits:1/verify")
    assert "was changed" in verdict["problems"][0]["problem"]
    storage.objects[key] = b"weights"

    count = len(storage.objects)
    nobody = await asyncio.to_thread(snapshot, plane, other="nobody refers to it")
    assert len(storage.objects) == count + 2
    plane.now.offset += 2 * 86_400
    pruned = await plane.post("/v1/blobs/prune", {"dry_run": False})
    assert (pruned["blobs"], len(storage.objects)) == (2, count)
    assert not plane.controller.blobs.has(nobody)
    assert b"weights" in storage.objects.values()

    made = await asyncio.to_thread(make, plane, tmp_path / "made")
    assert made["files"] < 20
    assert not (tmp_path / "made" / "blobs").exists()
    await plane.stop()
    where = places({"QD_HOME": str(tmp_path)})
    archive.put_back(where, tmp_path / "made", verify=False)
    await plane.start()
    pulled.clear()
    await asyncio.to_thread(plane.client.copy, f"/v1/blobs/{digest}", pulled.extend)
    assert bytes(pulled) == b"weights", "the index was made again"


async def test_a_node_reads_large_files_from_the_storage_itself(
    plane: Plane, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "x" * 3_000_000
    code = await asyncio.to_thread(snapshot, plane, base=text, small="y")
    await asyncio.to_thread(forget, plane)
    sent = {"spec": {"command": "wc -c < base; env", **SHORT}, "snapshot": code}
    job = (await plane.post("/v1/jobs", sent))["id"]
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    lines = [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")]
    assert lines[0] == "3000000"
    assert not any("test-secret" in line or "X-Amz" in line for line in lines)
    sizes = [path.stat().st_size for path in plane.root.glob("state/blobs/cache/??/*")]
    assert 3_000_000 not in sizes, "it did not come by way of the head"
    assert any(size == 1 for size in sizes), "a small one did"

    await asyncio.to_thread(forget, plane)
    shutil.rmtree(plane.root / "n1" / "snapshots", ignore_errors=True)
    monkeypatch.setattr(fetching, "_PATIENCE", 0.001)  # no node gets anything
    fetched = await plane.post("/v1/jobs", {**sent, "key": "again"})
    assert (await plane.wait(fetched["id"]))["state"] == "SUCCEEDED"


async def test_a_storage_that_is_away_ends_no_job_and_loses_nothing(
    plane: Plane, storage: Storage
) -> None:
    gate = plane.root / "gate"
    command = f"while ! test -e {gate}; do sleep 0.05; done; printf weights > out.bin"
    job = await plane.submit(command, outputs={"model": "out.bin"}, **SHORT)
    await plane.wait(job, "RUNNING")
    code = await asyncio.to_thread(snapshot, plane, base="from before")
    await asyncio.to_thread(forget, plane)
    await asyncio.to_thread(plane.controller.blobs.read, code)
    storage.away = True
    sent = {"spec": {"command": "cat base", **SHORT}, "snapshot": code}
    waiting = (await plane.post("/v1/jobs", sent))["id"]
    with pytest.raises(Unreachable, match=r"object storage .* does not answer"):
        await asyncio.to_thread(snapshot, plane, base="a new work folder")
    gate.touch()
    blobs = plane.controller.blobs
    assert isinstance(blobs, ObjectBlobs)
    await until(lambda: len([one for one in storage.requests if one[0] == "PUT"]) > 4)
    assert (await plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING", "its output is on its node"
    await plane.restart()

    async def joined() -> bool:
        return bool((await plane.get("/v1/status"))["cluster"]["nodes"] == 1)

    await until(joined)
    storage.away = False
    view = await plane.wait(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)
    assert b"weights" in storage.objects.values()
    assert (await plane.wait(waiting))["state"] == "SUCCEEDED"
    assert [x["line"] for x in await plane.lines(f"/v1/jobs/{waiting}/logs")] == ["from before"]
