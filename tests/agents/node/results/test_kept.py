"""What attempts leave is kept within bounds: for so long, and so many bytes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.node.results.kept import Kept
from agents.node.staging.caches import Bounds

DAY = 86_400.0


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    (tmp_path / "trash").mkdir()
    return Kept(tmp_path, tmp_path / "trash", Bounds(size=100, age=7 * DAY))


def _leave(kept: Kept, tmp_path: Path, key: str, size: int, at: float) -> None:
    work = tmp_path / f"{key}-work"
    work.mkdir()
    (work / "f").write_bytes(bytes(size))
    kept.take(key, work, {"files": 1, "bytes": size}, None, at)


def test_the_old_goes_when_its_time_is_over(kept: Kept, tmp_path: Path) -> None:
    _leave(kept, tmp_path, "c-j1.1", 10, 0.0)
    _leave(kept, tmp_path, "c-j2.1", 10, DAY)
    assert kept.until("c-j1.1") == 7 * DAY
    assert kept.tidy(7 * DAY - 1) == 0
    assert kept.tidy(7 * DAY + 1) == 10
    assert (kept.work("c-j1.1"), kept.work("c-j2.1") is not None) == (None, True)
    assert list((tmp_path / "trash").iterdir()) == []


def test_the_oldest_makes_room(kept: Kept, tmp_path: Path) -> None:
    for number, size in enumerate((60, 30, 20)):
        _leave(kept, tmp_path, f"c-j{number}.1", size, float(number))
    assert kept.tidy(10.0) == 60
    assert [kept.work(f"c-j{number}.1") is not None for number in range(3)] == [False, True, True]


def test_nothing_is_kept_of_who_wrote_nothing(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    kept.take("c-j1.1", tmp_path / "w", {"files": 0, "bytes": 0}, None, 0.0)
    assert kept.work("c-j1.1") is None
