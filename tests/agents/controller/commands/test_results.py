"""What jobs wrote is listed and comes back: stored outputs, work folders and checkpoints on nodes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console.cli.pulling import Puller
from jobs.base.errors import Conflict, InvalidInput, NotFound
from tests.agents.controller.conftest import Plane, until

LARGE = "head -c 6000000 /dev/zero | tr '\\0' x > big.bin"


async def _files(plane: Plane, job: str, **query: Any) -> list[dict[str, Any]]:
    view = await plane.get(f"/v1/jobs/{job}/files", **query)
    assert view["missing"] == []
    found: list[dict[str, Any]] = view["files"]
    return found


async def _pull(plane: Plane, job: str, files: list[Any], target: Path) -> None:
    puller = Puller(plane.client, f"/v1/jobs/{job}", target, quiet=True)
    await asyncio.to_thread(puller.pull, files)


async def _forgotten(plane: Plane, job: str) -> None:
    folders = plane.root / "n1" / "attempts"
    await until(lambda: not list(folders.glob(f"*-{job}-*")))


async def test_all_that_a_job_wrote_is_listed_and_comes_back(plane: Plane, tmp_path: Path) -> None:
    command = (
        f"mkdir out; echo model > out/m; echo log > train.log; {LARGE}; ln -s train.log last;"
        "echo w > $QD_CHECKPOINT_DIR/w"
    )
    job = await plane.submit(command, outputs={"model": "out/m"})
    view = await plane.wait(job)
    assert view["attempts"][0]["left"] == {"files": 2, "bytes": 6_000_004}
    await _forgotten(plane, job)
    files = await _files(plane, job)
    assert sorted((f["place"], f["name"], f["path"], f["size"], f["node"]) for f in files) == [
        ("checkpoint", "", "w", 2, "n1"),
        ("output", "model", "out/m", 6, None),
        ("work", "", "big.bin", 6_000_000, "n1"),
        ("work", "", "last", 0, "n1"),
        ("work", "", "train.log", 4, "n1"),
    ]
    assert [f["path"] for f in await _files(plane, job, pattern="*.log")] == ["train.log"]
    target = tmp_path / "here"
    await _pull(plane, job, files, target)
    assert (target / "out" / "m").read_text() == "model\n"
    assert (target / "big.bin").read_bytes() == b"x" * 6_000_000
    assert (target / "checkpoint" / "w").read_text() == "w\n"
    assert (target / "last").read_text() == "log\n"
    assert not list(target.rglob("*.part"))


async def test_a_copy_that_was_cut_goes_on_and_a_wrong_one_is_replaced(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await plane.submit(f"{LARGE}; echo log > train.log")
    await plane.wait(job)
    files = await _files(plane, job)
    asked: list[int] = []
    agent = plane.nodes["n1"]
    real: Any = agent.read_file

    async def counted(key: str, place: Any, path: str, offset: int, limit: int) -> bytes:
        asked.append(offset)
        data: bytes = await real(key, place, path, offset, limit)
        return data

    monkeypatch.setattr(agent, "read_file", counted)
    (tmp_path / "big.bin.part").write_bytes(b"x" * 5_000_000)
    (tmp_path / "train.log").write_text("old\n")  # as long as the real one
    await _pull(plane, job, files, tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == b"x" * 6_000_000
    assert (tmp_path / "train.log").read_text() == "log\n"
    assert sorted(asked) == [0, 5_000_000]
    asked.clear()
    await _pull(plane, job, files, tmp_path)
    assert asked == [], "what is here already is only compared"
    (tmp_path / "big.bin").write_bytes(b"y" * 6_000_000)
    await _pull(plane, job, files, tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == b"x" * 6_000_000


async def test_a_running_job_and_a_file_that_changes(plane: Plane, tmp_path: Path) -> None:
    job = await plane.submit("echo one > a; while [ ! -e $QD_WORK_DIR/go ]; do sleep 0.05; done")
    await plane.wait(job, "RUNNING")
    files = await until(lambda: _files(plane, job))
    assert [(f["path"], f["node"]) for f in files] == [("a", "n1")]
    (work,) = (plane.root / "n1" / "attempts").glob(f"*-{job}-*.1-*/work")
    with (work / "a").open("a") as file:  # it grows: what was listed is what comes
        file.write("two\n")
    await _pull(plane, job, files, tmp_path)
    assert (tmp_path / "a").read_text() == "one\n"
    (work / "a").write_text("1\n")  # shorter than it was listed
    with pytest.raises(Conflict, match="changed while it was being copied"):
        await _pull(plane, job, files, tmp_path / "other")
    (work / "go").touch()
    await plane.wait(job)


async def test_paths_from_outside_lead_nowhere(plane: Plane, tmp_path: Path) -> None:
    job = await plane.submit("echo a > a; ln -s /etc etc")
    await plane.wait(job)
    for file in ("../plan.json", "etc/hostname", "/etc/hostname"):
        with pytest.raises(InvalidInput):
            await plane.get(f"/v1/jobs/{job}/files/work/digest", node="n1", file=file)
    with pytest.raises(NotFound):
        await plane.get(f"/v1/jobs/{job}/files/work/digest", node="n1", file="none")
    with pytest.raises(NotFound):
        await plane.get(f"/v1/jobs/{job}/files/work/digest", node="n2", file="a")
    with pytest.raises(NotFound):
        await asyncio.to_thread(plane.client.raw, f"/v1/blobs/{hashlib.sha256(b'z').hexdigest()}")
    evil: dict[str, Any] = {
        **(await _files(plane, job))[0], "path": "../evil"
    }  # fmt: skip
    with pytest.raises(InvalidInput):
        await _pull(plane, job, [evil], tmp_path / "here")
    (tmp_path / "outside").mkdir()
    (tmp_path / "here").mkdir(exist_ok=True)
    (tmp_path / "here" / "d").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidInput, match="is a link"):
        await _pull(plane, job, [{**evil, "path": "d/a"}], tmp_path / "here")
    assert list((tmp_path / "outside").iterdir()) == []


async def test_a_node_that_is_away_is_named(make_plane: Callable[..., Any]) -> None:
    plane: Plane = await make_plane(nodes=2)
    job = await plane.submit("echo $RANK > r$RANK; echo b > both", nodes=2)
    await plane.wait(job)
    files = await _files(plane, job)
    assert sorted((f["path"], f["node"]) for f in files)[:2] == [("both", "n1"), ("both", "n2")]
    plane.fabric.node("n2").reachable = False

    async def named() -> bool:
        view = await plane.get(f"/v1/jobs/{job}/files")
        return bool(view["missing"] == ["n2 does not answer: what it has is not listed"])

    await until(named)
    plane.fabric.node("n2").reachable = True
