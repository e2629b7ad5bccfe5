"""The Cluster and Events screens as a person works on them: marks, orders, and a moment of the history."""

from __future__ import annotations

from pathlib import Path

from console.tui.core.base import commands
from console.tui.core.base.commands import Command
from console.tui.core.base.order import Order
from console.tui.core.base.world import World
from console.tui.core.cluster import cluster
from console.tui.core.draw.glyphs import UNICODE
from console.tui.core.draw.lines import Line
from console.tui.memory import Memory
from console.tui.screens.cluster import ClusterScreen
from tests.console.tui import fake_flows
from tests.console.tui.fake_views import history, node
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title


async def test_marked_nodes_are_drained_together_and_taken_back() -> None:
    source = FakeSource()
    async with running(source) as (pilot, app):
        await press(pilot, "space", "j", "space")
        assert "2 marked" in title(app, "heat")
        assert screen_text(app).splitlines()[3].startswith("•n01")
        await press(pilot, "D")
        assert "Drain 2 nodes?" in text(app, "question")
        assert "runs on to its end: j412" in text(app, "question")
        await press(pilot, "y")
        assert source.acts == [("drain", "n01"), ("drain", "n03")]
        await press(pilot, "escape")
        assert "marked" not in title(app, "heat")
        assert isinstance(app.screen, ClusterScreen)


def test_of_marked_nodes_those_in_service_are_drained_first() -> None:
    nodes = [node(1), node(2, state="DRAINED"), node(3, state="QUARANTINED")]
    first = commands.drain_all(nodes)
    assert isinstance(first, Command)
    assert (first.verb, first.targets) == ("drain", ("n01",))
    assert "2 others of the marked stay as they are." in first.effects
    back = commands.drain_all(nodes[1:])
    assert isinstance(back, Command)
    assert (back.verb, back.targets) == ("undrain", ("n02", "n03"))
    assert any("quarantined" in effect for effect in back.effects)


def test_nodes_are_sorted_by_job_load_and_state_those_without_last() -> None:
    nodes = [node(1, job="j9"), node(2), node(3, job="j10"), node(4, state="LOST")]
    world = World(nodes={one["name"]: one for one in nodes})

    def order(column: str, *, down: bool = False) -> list[str]:
        return [n["name"] for n in cluster.nodes_in_order(world, Order(column, down))]

    assert order("") == ["n01", "n02", "n03", "n04"]
    assert order("job") == ["n01", "n03", "n02", "n04"]
    assert order("state") == ["n04", "n01", "n02", "n03"]
    assert order("load", down=True)[:2] == ["n01", "n03"]


async def test_orders_of_map_and_queue_are_kept_apart_and_remembered(tmp_path: Path) -> None:
    file = tmp_path / "console.json"
    async with running(memory=Memory(file)) as (pilot, app):
        await press(pilot, "s", "s", "S")
        assert "by load down" in title(app, "heat")
        assert "by" not in title(app, "queue")
        await press(pilot, "tab", "tab", "tab", "s")
        assert "by user" in title(app, "queue")
        first = [line.split()[2] for line in text(app, "queue").splitlines()[1:5]]
        assert first == sorted(first)
    async with running(memory=Memory(file)) as (_, app):
        assert "by load down" in title(app, "heat")
        assert "by user" in title(app, "queue")


async def test_marked_jobs_of_the_queue_are_cancelled_together() -> None:
    source = FakeSource()
    async with running(source) as (pilot, app):
        await press(pilot, "tab", "tab", "tab", "space", "space", "c")
        assert "Cancel 2 jobs?" in text(app, "question")
        await press(pilot, "y")
        assert [target for _, target in source.acts] == ["j431", "j430"]


async def test_the_crosshair_tells_the_load_of_a_moment_and_its_event() -> None:
    async with running() as (pilot, app):
        await press(pilot, "tab", "tab", "enter")
        assert "h and l put the crosshair" in screen_text(app)
        await press(pilot, *"hhh")
        assert "%" in title(app, "util")
        assert "┊" in text(app, "util")
        assert "│▸14:08" in screen_text(app)
        await press(pilot, "enter")
        assert app.focused is app.screen.query_one("#events")
        await press(pilot, "escape")
        assert "┊" not in text(app, "util")


async def test_events_are_sorted_and_marked_ones_copied_as_lines() -> None:
    async with running(start="events") as (pilot, app):
        await press(pilot, "s", "S")
        assert "by level down" in title(app, "happenings")
        assert "✗" in text(app, "happenings").splitlines()[0]
        await press(pilot, "space", "space")
        assert "2 marked" in title(app, "happenings")
        await press(pilot, "y")
        assert app.clipboard.count("\n") == 1
        await press(pilot, "escape")
        assert "marked" not in title(app, "happenings")


def test_a_chart_moves_on_by_whole_dots_and_is_drawn_once_for_each() -> None:
    points = history(3600, 100)
    step = 3600 / (2 * 70)  # seconds of a column of dots

    def drawn(now: float) -> list[Line]:
        return cluster.util_chart(points, 70, 6, 3600, now, UNICODE)

    begin = 70_000_000 * step
    assert drawn(begin + 0.1 * step) is drawn(begin + 0.9 * step)
    assert drawn(begin + 0.9 * step) is not drawn(begin + 1.1 * step)


async def test_the_header_counts_what_is_wrong_on_every_screen() -> None:
    source = FakeSource()
    async with running(source) as (pilot, app):
        assert "Alerts(3)" in text(app, "header")
        await press(pilot, "2")
        source.calls.clear()
        source.wrong.append(fake_flows.alert("node_lost", "node n01", "n01 does not answer"))
        await settle(pilot)
        assert "Alerts(3)" in text(app, "header")
        app.clock.advance(11)  # type: ignore[attr-defined]
        await settle(pilot)
        assert "Alerts(4)" in text(app, "header")
        assert source.calls.count("open alerts") == 1 and "nodes" not in source.calls
