"""Blobs that nothing refers to go, and only those, whatever happens meanwhile."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

from agents.controller.stores.blobs import BlobStore, FolderBlobs
from agents.controller.stores.pruning import GRACE, SHORTEST, marked
from agents.daemon import prune_after
from jobs.base.errors import InvalidInput, NotFound, StorageFull
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store import blobrefs
from jobs.store.tables import AuditRow
from tests.agents.controller.conftest import Plane, until

DAY = 86_400.0


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: BlobStore, data: bytes) -> str:
    store.put(digest(data), io.BytesIO(data))
    return digest(data)


def snapshot(store: BlobStore, *contents: bytes) -> str:
    """Store a folder with these files; the name of its snapshot."""
    entries = [
        FileEntry(f"f{number}", 0o644, len(data), put(store, data))
        for number, data in enumerate(contents)
    ]
    manifest = Manifest.of(entries)
    put(store, manifest.to_bytes())
    return manifest.digest


async def submit(plane: Plane, command: str, snapshot: str, **fields: Any) -> str:
    from jobs.spec.job import JobSpec

    spec = JobSpec.from_json({"command": command, **fields}).to_json()
    answer = await plane.post("/v1/jobs", {"spec": spec, "key": None, "snapshot": snapshot})
    job: str = answer["id"]
    return job


async def prune(plane: Plane, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = await plane.post("/v1/blobs/prune", body)
    return found


# -- the store ----------------------------------------------------------------------------------------


class Clock:
    at = 1e9

    def __call__(self) -> float:
        return self.at


def test_who_is_told_that_a_blob_is_here_can_count_on_it(tmp_path: Path) -> None:
    clock = Clock()
    store = FolderBlobs(tmp_path, clock)
    asked, stored, left = (put(store, data) for data in (b"asked", b"stored", b"left"))
    assert {item.held_at for item in store.items()} == {1e9}
    clock.at += DAY
    assert store.missing([asked]) == []
    put(store, b"stored")
    removed = [name for name in (asked, stored, left) if store.remove(name, clock.at - 1)]
    assert removed == [left]
    assert sorted(item.digest for item in store.items()) == sorted([asked, stored])
    assert not store.remove(left, clock.at), "it is gone already"
    assert store.missing([asked, left]) == [left]


def test_nothing_goes_that_was_just_said_to_be_here(tmp_path: Path) -> None:
    """Who asks and who removes race for the same old blobs: each is either gone, or said to be missing,
    or stays."""
    clock = Clock()
    store = FolderBlobs(tmp_path, clock)
    names = [put(store, b"%d" % number) for number in range(400)]
    clock.at += DAY
    told: list[str] = []
    asking = threading.Thread(target=lambda: told.extend(store.missing(reversed(names))))
    asking.start()
    gone = {name for name in names if store.remove(name, clock.at)}
    asking.join()
    assert gone == set(told)


def test_what_is_no_blob_is_left_alone(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path)
    name = put(store, b"a blob")
    (store.path(name).parent / ".nfs0001").write_text("of the file system")
    (tmp_path / "sha256" / "lost+found").mkdir()
    assert [item.digest for item in store.items()] == [name]


# -- what is kept -------------------------------------------------------------------------------------


async def test_what_a_job_refers_to_stays_and_the_rest_goes(plane: Plane) -> None:
    store = plane.controller.blobs
    code = snapshot(store, b"print(1)", b"shared")
    other = snapshot(store, b"never submitted", b"shared")
    done = await submit(plane, "echo made > out", code, outputs={"model": "out"})
    assert (await plane.wait(done))["state"] == "SUCCEEDED"
    waits = snapshot(store, b"print(2)")
    queued = await submit(plane, "true", waits, resources={"cpu": 2})
    plane.now.offset += DAY + 60
    fresh = put(store, b"of an upload that is under way")

    told = await prune(plane, dry_run=True)
    assert (told["blobs"], told["dry_run"]) == (2, True)
    assert len(store.items()) == told["kept"] + 2, "nothing was touched"
    found = await prune(plane)
    assert found == {**told, "dry_run": False}
    assert store.missing([other, digest(b"never submitted")]) == [
        other,
        digest(b"never submitted"),
    ]
    kept = [code, digest(b"print(1)"), digest(b"shared"), digest(b"made\n"), waits, fresh]
    assert store.missing(kept) == []
    assert (await prune(plane))["blobs"] == 0
    assert (await plane.get("/v1/status"))["storage"]["blobs"] == found["kept"]
    [check] = [item for item in await plane.get("/v1/doctor") if item["name"] == "blobs"]
    assert check["ok"]
    events = [event["message"] for event in await plane.lines("/v1/events")]
    assert any(text.startswith("pruned 2 blobs") for text in events)
    assert (await plane.wait(queued))["state"] == "SUCCEEDED"


async def test_a_blob_that_only_a_queued_job_refers_to_stays(plane: Plane) -> None:
    """The job waits behind another for longer than the grace; its code is there when it starts."""
    gate = plane.root / "gate"
    first = await plane.submit(
        f"while ! test -e {gate}; do sleep 0.05; done", resources={"cpu": 2}, lease=600
    )
    await plane.wait(first, "RUNNING")
    code = snapshot(plane.controller.blobs, b"echo here")
    second = await submit(plane, "sh f0", code, resources={"cpu": 2})
    plane.now.offset += 3 * DAY
    assert (await prune(plane, older_than=SHORTEST))["blobs"] == 0
    gate.touch()
    assert (await plane.wait(second))["state"] == "SUCCEEDED"


async def test_submissions_go_on_beside_a_prune(plane: Plane, monkeypatch: Any) -> None:
    """Code that was left alone for long is submitted after what is referred to was read."""
    code = snapshot(plane.controller.blobs, b"echo here")
    plane.now.offset += 2 * DAY
    jobs: list[str] = []
    pruning = plane.controller.pruning
    remove = pruning._remove

    async def late(doomed: Any, before: float) -> Any:
        assert len(doomed) == 2
        jobs.append(await submit(plane, "sh f0", code))
        return await remove(doomed, before)

    monkeypatch.setattr(pruning, "_remove", late)
    assert (await prune(plane))["blobs"] == 0
    assert (await plane.wait(jobs[0]))["state"] == "SUCCEEDED"


async def test_less_time_than_a_submission_takes_is_refused(plane: Plane) -> None:
    with pytest.raises(InvalidInput, match="allowed: 1h or more"):
        await prune(plane, older_than=60)


async def test_what_a_prune_that_was_cut_off_has_left_goes_next_time(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = plane.controller.blobs
    for number in range(5):
        put(store, b"%d" % number)
    plane.now.offset += 2 * DAY
    remove = store.remove
    removed: list[str] = []

    def dies(name: str, before: float) -> bool:
        if len(removed) == 2:
            raise OSError(errno.EIO, "Input/output error")
        removed.append(name)
        return remove(name, before)

    with monkeypatch.context() as patch:
        patch.setattr(store, "remove", dies)
        with pytest.raises(StorageFull, match="cannot be looked through"):
            await prune(plane)
    await plane.restart()
    assert len(plane.controller.blobs.items()) == 3
    assert (await prune(plane))["blobs"] == 3


async def test_a_manifest_that_cannot_be_read_keeps_everything(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = plane.controller.blobs
    code = snapshot(store, b"print(1)")
    await plane.wait(await submit(plane, "true", code))
    put(store, b"nobody's")
    plane.now.offset += 2 * DAY

    def broken(self: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        with pytest.raises(StorageFull):
            await prune(plane)
    assert len(store.items()) == 3
    assert (await prune(plane))["blobs"] == 1


async def test_on_a_full_disk_what_needs_no_record_goes_all_the_same(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(plane.controller.blobs, b"nobody's")
    plane.now.offset += 2 * DAY

    def full(session: Session, before: float) -> int:
        raise StorageFull("the registry cannot be written: database or disk is full")

    monkeypatch.setattr(blobrefs, "forget_spent", full)
    assert (await prune(plane))["blobs"] == 1


async def test_the_controller_prunes_by_itself_and_tells_nobody_of_nothing(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, pruning = plane.controller.blobs, plane.controller.pruning
    await until(lambda: pruning.storage() is not None)
    before = len(await plane.lines("/v1/events"))
    await pruning.prune()
    assert len(await plane.lines("/v1/events")) == before
    put(store, b"nobody's")
    plane.now.offset += 2 * DAY
    assert (await pruning.prune())["blobs"] == 1
    assert (await plane.lines("/v1/events"))[-1]["user"] is None


async def test_a_job_cannot_begin_with_a_checkpoint_that_is_not_here(plane: Plane) -> None:
    start = "sha256:" + digest(b"of nobody")
    with pytest.raises(NotFound, match="is not stored, or no longer"):
        await plane.submit("true", checkpoint={"start": start})


async def test_what_a_run_has_kept_and_another_begins_with_stays(plane: Plane) -> None:
    first = await plane.submit('echo w > "$QD_CHECKPOINT_DIR/weights"', checkpoint={"keep": True})
    await plane.wait(first)
    [artifact] = (await plane.get(f"/v1/jobs/{first}"))["artifacts"]
    second = await plane.submit(
        'grep w "$QD_CHECKPOINT_DIR/weights"', checkpoint={"start": artifact["digest"]}
    )
    assert (await plane.wait(second))["state"] == "SUCCEEDED"
    plane.now.offset += 2 * DAY
    assert (await prune(plane))["blobs"] == 0
    await plane.post(f"/v1/jobs/{second}/retry")


def test_a_manifest_of_any_form_keeps_what_it_names(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path)
    kept = put(store, b"kept")
    odd = put(store, b'{"version": 9, "parts": ["%s"]}' % kept.encode())
    roots = blobrefs.Roots(manifests={f"sha256:{odd}", "sha256:" + "0" * 64})
    assert marked(store, roots) == {kept, odd, "0" * 64}


@pytest.mark.parametrize(
    ("text", "seconds", "complaint"),
    [
        (None, GRACE, ""),
        ("", GRACE, ""),
        ("7d", 7 * DAY, ""),
        ("soon", GRACE, "QD_PRUNE_AFTER: found 'soon'"),
    ],
)
def test_the_grace_comes_from_the_environment(
    text: str | None, seconds: float, complaint: str
) -> None:
    found, told = prune_after({} if text is None else {"QD_PRUNE_AFTER": text})
    assert found == seconds
    assert told.startswith(complaint)
    assert bool(told) == bool(complaint)


async def test_who_prunes_is_in_the_audit_also_when_nothing_went(plane: Plane) -> None:
    events = len(await plane.lines("/v1/events"))
    await prune(plane)

    def acts(session: Session) -> list[str]:
        return [row.action for row in session.exec(select(AuditRow)).all()]

    assert await plane.controller.db.read(acts) == ["store.prune"]
    assert len(await plane.lines("/v1/events")) == events


# -- what jobs leave on nodes -------------------------------------------------------------------------


def folders(plane: Plane) -> dict[str, list[str]]:
    """The checkpoint folders of node n1, and what is in them."""
    there = (plane.root / "n1" / "checkpoints").glob("*")
    return {path.name: sorted(file.name for file in path.iterdir()) for path in there}


async def test_an_empty_checkpoint_folder_goes_with_its_job(plane: Plane) -> None:
    empty = await plane.submit("true", resources={"cpu": 0.25})
    full = await plane.submit("touch $QD_CHECKPOINT_DIR/a", resources={"cpu": 0.25})
    await plane.wait(empty)
    await plane.wait(full)
    await until(lambda: len(folders(plane)) == 1)
    (name,) = folders(plane)
    assert f"-{full}-" in name


async def test_checkpoints_of_a_registry_that_is_gone_go_when_a_person_says_so(
    plane: Plane,
) -> None:
    job = await plane.submit("touch $QD_CHECKPOINT_DIR/ours", resources={"cpu": 0.25})
    await plane.wait(job)
    await until(lambda: list(folders(plane).values()) == [["ours"]])
    root = plane.root / "n1" / "checkpoints"
    (ours,) = folders(plane)
    cluster = ours.partition("-")[0]
    others = ["abcdef-j1-0badcafe", f"{cluster}-{job}-00000000", f"{cluster}-j77-00000000"]
    for name in (*others, "abcdef-j2-0badcafe", "something else"):
        (root / name / "step-1").mkdir(parents=True)
        (root / name / "step-1" / "w.pt").write_bytes(bytes(8192))
    old = plane.controller.now() - 2 * DAY
    for name in (*others, "something else"):
        os.utime(root / name / "step-1" / "w.pt", (old, old))
    await plane.controller.pruning.prune()
    assert len(folders(plane)) == 6, "the daily round leaves them alone"

    found = await prune(plane, dry_run=True)
    (left,) = found["left"]
    assert (left["node"], left["folders"], found["unanswered"]) == ("n1", 3, [])
    assert left["bytes"] >= 3 * 8192
    assert len(folders(plane)) == 6
    assert (await prune(plane))["left"] == found["left"]
    assert sorted(folders(plane)) == sorted([ours, "abcdef-j2-0badcafe", "something else"])
    events = [event["message"] for event in await plane.lines("/v1/events")]
    assert any("pruned 3 checkpoint folders of jobs that the registry" in what for what in events)
    assert (await prune(plane))["left"] == []
    plane.fabric.node("n1").reachable = False
    await until(lambda: not plane.controller.links.links["n1"].online)
    assert (await prune(plane))["unanswered"] == ["n1"]
    plane.fabric.node("n1").reachable = True


async def test_what_a_killed_rank_was_writing_is_gone_when_the_job_starts_again(
    plane: Plane,
) -> None:
    script = "ls -A $QD_CHECKPOINT_DIR; touch $QD_CHECKPOINT_DIR/.w.pt.7.tmp $QD_CHECKPOINT_DIR/w; exit 1"
    job = await plane.submit(script, max_restarts=1, resources={"cpu": 0.25})
    await plane.wait(job)
    lines = await plane.lines(f"/v1/jobs/{job}.2/logs")
    assert [line["line"] for line in lines] == ["w"]
