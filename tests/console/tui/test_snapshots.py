"""Pictures of the screens. When one differs on purpose: `pytest tests/console/tui --snapshot-update`,
and look at the new picture before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from console.tui.app import QuarterdeckApp
from console.tui.memory import Memory
from tests.console.tui import fake_sweeps
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import settle

SMALL, USUAL, WIDE = (80, 24), (120, 36), (200, 50)
Compare = Callable[..., bool]


def picture(
    snap_compare: Compare, source: FakeSource, size: tuple[int, int], *keys: str, **options: Any
) -> bool:
    async def ready(pilot: Any) -> None:
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)

    app = QuarterdeckApp(source, clock=FakeClock(), **options)
    return snap_compare(app, terminal_size=size, run_before=ready)


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
@pytest.mark.parametrize("start", ["cluster", "jobs", "j412"])
def test_busy(snap_compare: Compare, start: str, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, start=start)


@pytest.mark.parametrize("start", ["cluster", "jobs"])
def test_empty(snap_compare: Compare, start: str) -> None:
    assert picture(snap_compare, FakeSource(empty=True), USUAL, start=start)


def test_unreachable(snap_compare: Compare) -> None:
    source = FakeSource()
    source.cut()
    assert picture(snap_compare, source, SMALL)


def test_a_question(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(), USUAL, "D")


CHOSEN = (
    "user",
    "time",
    "trend",
    "objective",
    "param.lr",
    "param.optimizer",
    "metric.loss",
    "gpu h",
)


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
def test_chosen_columns(snap_compare: Compare, size: tuple[int, int]) -> None:
    memory = Memory()
    memory.note(columns="\n".join((*CHOSEN, "tag.team")))
    assert picture(snap_compare, FakeSource(), size, start="jobs", memory=memory)


def test_columns_are_chosen(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(), USUAL, "f", "down", "down", start="jobs")


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
def test_trials_below_their_sweep(snap_compare: Compare, size: tuple[int, int]) -> None:
    source = FakeSource()
    sweep = source.tables["sweeps"]["s4"]
    source.tables["jobs"] |= fake_sweeps.jobs(sweep, fake_sweeps.trials())
    sweep = source.tables["sweeps"]["s3"]
    source.tables["jobs"] |= fake_sweeps.jobs(sweep, [fake_sweeps.trial(-20, "COMPLETE", 0, 99.0)])
    assert picture(snap_compare, source, size, "l", "j", start="jobs")


def test_ascii_and_simulated(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(sim=True), USUAL, ascii_only=True)


@pytest.mark.parametrize("size", [SMALL, USUAL, WIDE], ids=["80x24", "120x36", "200x50"])
def test_sweep(snap_compare: Compare, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, "j", "j", "j", start="s4")


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
def test_sweeps(snap_compare: Compare, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, start="sweeps")


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
@pytest.mark.parametrize("start", ["models", "deployments"])
def test_models_and_deployments(snap_compare: Compare, start: str, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, start=start)


@pytest.mark.parametrize("start", ["models", "deployments"])
def test_one_in_detail(snap_compare: Compare, start: str) -> None:
    assert picture(snap_compare, FakeSource(), USUAL, "enter", start=start)


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
@pytest.mark.parametrize("start", ["pipelines", "p9", "alerts"])
def test_pipelines_and_alerts(snap_compare: Compare, start: str, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, *("j" * 3), start=start)


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
def test_files_of_a_job(snap_compare: Compare, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, "F", "j", "l", start="j412")


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
@pytest.mark.parametrize(
    "keys", [("j", "l"), ("j", "enter"), ("j", "C")], ids=["list", "one", "diff"]
)
def test_data_sets(snap_compare: Compare, keys: tuple[str, ...], size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, *keys, start="data")


LOG = """\
2026-09-21 13:01:07 INFO loading 4 shards
2026-09-21 13:01:09 WARNING shard 3 is slow, it may be that the file system of this node is busy \
with what the others read, which takes most of what it gives
{"ts": "13:01:11", "level": "error", "msg": "shard 3 gave up", "tries": 3, "path": "/data/shards/0003.tar"}
Traceback (most recent call last):
  File "/work/train.py", line 91, in <module>
    main()
  File "/work/train.py", line 77, in main
    for batch in loader:
  File "/work/loader.py", line 12, in __iter__
    raise RuntimeError(f"shard {shard} gave up")
RuntimeError: shard 3 gave up
"""


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["80x24", "120x36"])
def test_a_log_that_is_read(snap_compare: Compare, size: tuple[int, int]) -> None:
    source = FakeSource()
    source.logs = {rank: LOG.encode() for rank in range(16)}
    memory = Memory()
    memory.note(logs="wrapped")
    keys = (">", "v", "k", "k", "k")
    assert picture(snap_compare, source, size, *keys, start="j412", memory=memory)


def test_no_sweeps(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(empty=True), USUAL, start="sweeps")


def test_sweep_of_two_objectives_that_is_over(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(), USUAL, start="s3")


def test_sweep_in_ascii(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(sim=True), WIDE, start="s4", ascii_only=True)


def test_sweep_without_colour(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert picture(snap_compare, FakeSource(), USUAL, start="s4")


def test_brushed_parallel_coordinates(snap_compare: Compare) -> None:
    keys = (*["tab"] * 3, "b", "z")
    assert picture(snap_compare, FakeSource(), USUAL, *keys, start="s4")


def test_rank_plot(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(), USUAL, *["shift+tab"] * 4, start="s4")


@pytest.mark.parametrize("size", [SMALL, USUAL, WIDE], ids=["80x24", "120x36", "200x50"])
@pytest.mark.parametrize("back", [1, 2], ids=["edf", "contour"])
def test_spread_and_surface(snap_compare: Compare, back: int, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeSource(), size, *["shift+tab"] * (back + 1), start="s4")


def test_a_point_is_typed(snap_compare: Compare) -> None:
    assert picture(snap_compare, FakeSource(), USUAL, "a", start="s4")
