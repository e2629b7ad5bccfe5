"""What an earlier attempt wrote, laid over what was submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.node.results.kept import CARRIED, written_from
from agents.node.staging import carried
from tests.agents.node.conftest import Node, plan_of


def test_what_was_written_replaces_whatever_is_there(tmp_path: Path) -> None:
    old, new, outside = (tmp_path / name for name in ("old", "new", "outside"))
    for folder in (old / "out", new / "was-folder", outside):
        folder.mkdir(parents=True)
    (old / "out" / "model.pt").write_text("model")
    (old / "was-folder").write_text("a file now")
    (old / "link").symlink_to("/mnt/data")
    (old / "tool.sh").write_text("#!")
    (old / "tool.sh").chmod(0o700)
    (new / "out").symlink_to(outside)
    (new / "kept.py").write_text("code")
    assert carried.lay_over(old, None, new) == 4
    assert (new / "out" / "model.pt").read_text() == "model"
    assert not (new / "out").is_symlink()
    assert list(outside.iterdir()) == [], "nothing is written through a link"
    assert (new / "was-folder").read_text() == "a file now"
    assert (new / "link").readlink() == Path("/mnt/data")
    assert (new / "kept.py").read_text() == "code"
    assert (new / "tool.sh").stat().st_mode & 0o777 == 0o755
    assert (new / "out" / "model.pt").stat().st_mtime == (old / "out" / "model.pt").stat().st_mtime


def test_what_is_written_after_the_mark_is_later(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("")
    carried.mark(tmp_path)
    (tmp_path / "carried-file").write_text("")
    then = (tmp_path / CARRIED).stat().st_ctime_ns
    assert (tmp_path / "code").stat().st_ctime_ns <= then
    assert (tmp_path / "carried-file").stat().st_ctime_ns > then


async def test_a_third_attempt_has_what_the_first_wrote(node: Node) -> None:
    """From a node that holds the attempt, and one that has forgotten it and removed what came with it."""
    await node.run("sh", "-c", "echo one > first; exit 1")
    await node.end()
    for number in (2, 3):
        key, before = f"c-j1.{number}", f"c-j1.{number - 1}"
        await node.sync(forget=[before])
        over = {"key": before, "digest": "", "size": 4}
        script = f"cat first; echo {number} > second; exit 1"
        plan = plan_of(key, number, "sh", "-c", script, attempt=number, carried=over)
        assert (await node.stage(plan))["state"] == "ready"
        await node.agent.launch(node.request(key, number))
        await node.end(key)
        assert (node.folder(key) / "rank-0.log").read_text() == "one\n"
        left = (await node.report(key))["left"]
        assert left is not None
        assert left["files"] == 2, "what was carried is the attempt's as well"
    assert written_from(node.folder("c-j1.3")) is not None


async def test_a_folder_that_is_gone_is_told(node: Node) -> None:
    over = {"key": "c-j1.1", "digest": "", "size": 4}
    reply = await node.stage(plan_of("c-j1.2", 2, "true", attempt=2, carried=over))
    assert reply["state"] == "failed"
    assert "the work folder of c-j1.1" in reply["detail"]


@pytest.mark.parametrize("name", ["snapshot", "workdir"])
def test_the_spec_says_which(name: str) -> None:
    from jobs.spec.job import from_options

    assert from_options(["true"], resume=name).resume == name
