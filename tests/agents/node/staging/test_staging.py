"""Staging: blobs, code, GPUs, interpreters, environments, room on disk."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import sys
import zipfile
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.node.staging import room
from agents.node.staging.envcache import EnvCache
from agents.node.staging.environment import base_environment
from jobs.base.errors import InvalidInput
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.snapshots.pack import write_pack
from tests.agents.node.conftest import Node, end_all, eventually, plan_of


def pack_of(*contents: bytes) -> bytes:
    buffer = io.BytesIO()
    write_pack(buffer, [(hashlib.sha256(data).hexdigest(), data) for data in contents])
    return buffer.getvalue()


def file(path: str, data: bytes, mode: int = 0o644) -> FileEntry:
    return FileEntry(path, mode, len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture
async def gpu_node(root: Path) -> AsyncIterator[Node]:
    node = Node(root, gpus=4)
    await node.agent.start()
    try:
        yield node
    finally:
        await end_all(node)


async def test_code_comes_by_blobs_and_keeps_its_modes(node: Node) -> None:
    program, data = b"#!/bin/sh\ncat data/x\n", b"\x00\xffcontent"
    manifest = Manifest.of(
        [
            file("run.sh", program, 0o755),
            file("data/x", data),
            FileEntry("link", 0o644, 0, "", "data/x"),
        ]
    )
    plan = plan_of("c-j1.1", 1, "./run.sh", snapshot=manifest.digest)
    reply = await node.stage(plan)
    assert (reply["state"], reply["missing"]) == ("working", [manifest.digest.partition(":")[2]])
    assert await node.agent.put_blobs(pack_of(manifest.to_bytes())) == 1
    reply = await node.stage(plan)
    assert set(reply["missing"]) == manifest.blobs
    assert await node.agent.put_blobs(pack_of(program, data)) == 2
    assert (await node.stage(plan))["state"] == "ready"
    await node.agent.launch(node.request())
    assert (await node.end())["outcome"] == "done"
    assert (node.folder() / "rank-0.log").read_bytes() == data
    assert (node.folder() / "work" / "link").read_bytes() == data
    other = plan_of("c-j2.1", 1, "true", snapshot=manifest.digest)
    assert (await node.stage(other))["state"] == "ready", "blobs are cached"


async def test_a_blob_under_a_false_name_is_refused(node: Node) -> None:
    pack = pack_of(b"true content").replace(b"true content", b"evil content")
    with pytest.raises(InvalidInput):
        await node.agent.put_blobs(pack)
    name = hashlib.sha256(b"true content").hexdigest()
    assert not (node.root / "blobs" / name[:2] / name).exists()
    assert list((node.root / "blobs" / name[:2]).iterdir()) == []


async def test_gpus_are_allotted_kept_and_given_back(gpu_node: Node) -> None:
    node = gpu_node
    first = await node.stage(plan_of("c-j1.1", 1, "true", gpus=2))
    half = await node.stage(plan_of("c-j2.1", 2, "true", gpus=0.5))
    other = await node.stage(plan_of("c-j3.1", 3, "true", gpus=0.5))
    assert first["gpus"] == ["SIM-0", "SIM-1"]
    assert half["gpus"] == other["gpus"] == ["SIM-2"]
    await node.restart()
    taken = await node.agent.stage(plan_of("c-j4.1", 4, "true", gpus=2))
    assert (taken["state"], taken["detail"]) == ("working", "asks for 2 GPUs; 1 of 4 here are free")
    never = await node.stage(plan_of("c-j5.1", 5, "true", gpus=8))
    assert (never["state"], never["detail"]) == ("failed", "asks for 8 GPUs; 1 of 4 here are free")
    await node.agent.launch(node.request())
    await node.end()
    reply = await node.stage(plan_of("c-j4.1", 4, "true", gpus=2))
    assert reply["gpus"] == ["SIM-0", "SIM-1"]


async def test_ranks_see_their_gpus_and_checkpoints(gpu_node: Node) -> None:
    script = 'echo "$CUDA_VISIBLE_DEVICES|$QD_SIMULATED_GPUS|$QD_CHECKPOINT_DIR"; : > $QD_CHECKPOINT_DIR/x'
    report = await gpu_node.run("sh", "-c", script, gpus=2)
    assert report["gpus"] == ["SIM-0", "SIM-1"]
    await gpu_node.end()
    folder = gpu_node.root / "checkpoints" / "c-j1"
    log = (gpu_node.folder() / "rank-0.log").read_text()
    assert log == f"|SIM-0,SIM-1|{folder}\n"
    assert (folder / "x").exists()


async def test_only_the_first_node_gives_a_port(node: Node) -> None:
    first = await node.stage(plan_of("c-j1.1", 1, procs=4))
    again = await node.stage(plan_of("c-j1.1", 1, procs=4))
    second = await node.stage(plan_of("c-j2.1", 2, node_rank=1, nnodes=2, world_size=2))
    assert first["port"] == again["port"]
    assert first["port"] is not None
    assert 20_000 <= first["port"] < 32_768
    assert second["port"] is None


async def test_an_interpreter_leads_the_path(node: Node, tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    python.write_text('#!/bin/sh\necho "mine $VIRTUAL_ENV"\n')
    python.chmod(0o755)
    await node.run("python", "train.py", python=str(python))
    await node.end()
    assert (node.folder() / "rank-0.log").read_text() == f"mine {tmp_path / 'env'}\n"


async def test_an_interpreter_of_another_name_is_python_all_the_same(
    node: Node, tmp_path: Path
) -> None:
    """Beside `/usr/bin/python3.12` there may be a `python` that is another one."""
    for name, words in (("python", "another"), ("python3.12", "mine")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {words}\n")
        (tmp_path / name).chmod(0o755)
    await node.run("python", "train.py", python=str(tmp_path / "python3.12"))
    await node.end()
    assert (node.folder() / "rank-0.log").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("/no/such/python", "there is no interpreter /no/such/python on this machine"),
        ("bin/python", "there is no interpreter bin/python"),
        ("3.2", "there is no Python 3.2 on this machine"),
        ("/etc/passwd", "is not a program"),
        ("/etc", "a folder without bin/python"),
    ],
)
async def test_an_interpreter_that_cannot_run(node: Node, python: str, words: str) -> None:
    reply = await node.stage(plan_of(python=python))
    assert reply["state"] == "failed"
    assert words in reply["detail"]


async def test_a_full_disk_is_told_before_it_is_full(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 99, room.RESERVE - 1))
    reply = await node.stage(plan_of())
    assert reply["state"] == "failed"
    assert "in reserve" in reply["detail"]


async def test_a_stop_ends_a_staging_that_takes_long(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nexec sleep 86431\n")
    slow.chmod(0o755)
    plan = plan_of(python=str(slow), requirements="x")
    reply = await node.agent.stage(plan)
    assert (reply["state"], reply["detail"]) == ("working", "making a Python environment")
    await eventually((tmp_path / "begun").exists)
    assert (await node.stop())["outcome"] == "refused"
    reply = await node.agent.stage(plan)
    assert reply["state"] == "failed"


def wheel(folder: Path, name: str) -> Path:
    """A minimal wheel with one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "VALUE = 42\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


async def test_requirements_make_an_environment_once(node: Node, tmp_path: Path) -> None:
    """A real venv with a real pip, from a wheel on disk; the second job finds it made."""
    text = f"--no-index\n{wheel(tmp_path, 'qdwheel')}\n"
    script = ("python", "-c", "import qdwheel; print(qdwheel.VALUE)")
    reply = await node.stage(plan_of("c-j1.1", 1, *script, requirements=text))
    assert reply["state"] == "ready", reply
    await node.agent.launch(node.request())
    assert (await node.end())["outcome"] == "done"
    assert (node.folder() / "rank-0.log").read_text() == "42\n"
    again = await node.agent.stage(plan_of("c-j2.1", 2, *script, requirements=text))
    assert again["state"] == "ready"


async def test_requirements_that_cannot_be_met_are_told_in_a_sentence(
    tmp_path: Path,
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no matching distribution' >&2\nexit 3\n")
    python.chmod(0o755)
    cache = EnvCache(tmp_path / "envs")
    for _ in range(2):  # a failed build leaves nothing that looks like an environment
        with pytest.raises(
            InvalidInput,
            match=r"could not be installed: no matching distribution \(pip.s output: .*\.log\)",
        ):
            await cache.ensure("x", str(python), base_environment({}), lambda detail: None)


async def test_the_same_environment_is_built_once_at_a_time(tmp_path: Path) -> None:
    """Two caches stand for two agents; the second waits for the first one's build."""
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\necho run >> {tmp_path}/runs\n"
        "test $2 = venv || exit 0\nmkdir -p $3/bin\ncp $0 $3/bin/python\n"
    )
    python.chmod(0o755)
    told: list[str] = []
    await asyncio.gather(
        *(
            EnvCache(tmp_path / "envs").ensure("x", str(python), base_environment({}), told.append)
            for _ in range(2)
        )
    )
    assert (tmp_path / "runs").read_text() == "run\nrun\n", "venv and pip, once each"
    assert told.count("making a Python environment") == 1


def test_environments_differ_by_requirements_and_interpreter(tmp_path: Path) -> None:
    cache = EnvCache(tmp_path)
    folders = {
        cache.folder("a", sys.executable),
        cache.folder("b", sys.executable),
        cache.folder("a", "/other"),
    }
    assert len(folders) == 3
