"""Ray's folder below /tmp: whose it is, who may clean it, and what is noticed."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from agents.supervisor import rayfolder, teardown
from agents.supervisor.__main__ import start
from agents.supervisor.policy import Asked
from agents.supervisor.rayfolder import EVERY, PATIENCE, RayFolder
from jobs.base.errors import NotAllowed
from jobs.base.places import Places


def session(where: Places, stack: ExitStack) -> Path:
    """A session as Ray makes it."""
    made = where.ray_temp / "r" / "session_2026-01-01_a"
    (made / "logs").mkdir(parents=True)
    (made / "sockets").mkdir()
    for name in ("plasma_store", "raylet"):
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(made / "sockets" / name))
    return made


@pytest.mark.parametrize("part", ["logs", "sockets", "sockets/raylet", "."])
def test_what_is_gone_is_noticed(where: Places, part: str) -> None:
    folder = RayFolder(where.ray_temp, where.ray_temp / "r")
    folder.started(0.0)
    with ExitStack() as stack:
        assert not folder.gone(EVERY), "it is not there yet"
        made = session(where, stack)
        assert not folder.gone(2 * EVERY)
        assert not folder.gone(1000 * EVERY)
        path = made / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert not folder.gone(1000 * EVERY + 1), "it is not looked at all the time"
        assert folder.gone(1001 * EVERY)
        folder.started(2000.0)
        assert not folder.gone(2000.0 + EVERY), "Ray has time to make it anew"
        if part == ".":
            assert folder.gone(2000.0 + PATIENCE + EVERY)


def test_who_cleans_tmp_finds_it_locked(where: Places) -> None:
    where.ray_temp.mkdir()
    folder = RayFolder(where.ray_temp, where.ray_temp / "r")
    folder.started(0.0)
    descriptor = os.open(where.ray_temp, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):  # what systemd-tmpfiles tries first
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_a_folder_of_somebody_else_is_told_and_left_alone(
    where: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where.ray_temp.mkdir()
    monkeypatch.setattr(rayfolder, "owner", lambda _: 12345)
    with pytest.raises(NotAllowed, match="belongs to the user 12345"):
        start(where, Asked(simulate_gpus=1), "no.such.module", os.environ)
    assert teardown.tidy(where) == [f"left {where.ray_temp} alone, which is not ours"]
    assert where.ray_temp.is_dir()


def test_a_link_is_no_folder(where: Places, tmp_path: Path) -> None:
    where.ray_temp.symlink_to(tmp_path)
    try:
        with pytest.raises(NotAllowed, match="is no folder"):
            rayfolder.check(where.ray_temp)
        teardown.tidy(where)
        assert tmp_path.is_dir()
        assert where.ray_temp.is_symlink()
    finally:
        where.ray_temp.unlink()
