"""Cluster: totals, node by GPU heat map, one node, utilisation, queue with reasons, events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from textual import on
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core import cluster, commands
from console.tui.core.commands import Refusal
from console.tui.core.lines import Line, line
from console.tui.core.world import World
from console.tui.screens.base import Frame
from console.tui.widgets.grid import Grid
from console.tui.widgets.panel import Panel
from console.tui.widgets.rows import Rows
from jobs.errors import QuarterdeckError
from jobs.views import EventView, HistoryPoint, JobView, NodeView

SPANS = ((600, "10 min"), (3600, "1 h"), (6 * 3600, "6 h"), (24 * 3600, "24 h"))
"""What the chart of utilisation reaches back, in seconds and in words."""

TEN_MINUTES = 600
CHART_POINTS = 240
LEAST_CHART = 6
"""Lines of the utilisation chart with its title, where panes stand beside each other."""

REFRESH = 5.0
"""Seconds between two looks at a history; its buckets are longer than that."""


class Heat(Grid):
    PANE = "heat"
    BINDINGS = bindings("heat")


class Util(Panel):
    PANE = "util"
    BINDINGS = bindings("util")


class Queue(Rows):
    PANE = "queue"
    BINDINGS = bindings("queue")


class Events(Rows):
    PANE = "events"
    BINDINGS = bindings("events")


class ClusterScreen(Frame):
    """The whole fleet at a glance."""

    NAME = "Cluster"
    SCOPE = "cluster"
    TOPICS = ("nodes",)
    PANES = ("heat", "node", "util", "queue", "events")
    TABS = ("node", "util", "queue", "events")
    BINDINGS = bindings("cluster")
    AUTO_FOCUS = "#heat"

    def __init__(self) -> None:
        super().__init__()
        self._metric = "util"
        self._span = 1
        self._cells = cluster.HeatCells(3, 3, 1, True)
        self._jobs: dict[str, JobView] = {}
        self._events: dict[str, EventView] = {}
        self._history: list[HistoryPoint] = []
        self._node_history: tuple[str, list[HistoryPoint]] = ("", [])
        self._asked: dict[str, float] = {}

    def on_mount(self) -> None:
        if (liked := self.deck.memory.session.heat) in cluster.METRICS:
            self._metric = liked

    def body(self) -> Iterable[Widget]:
        yield Panel(self._totals, id="totals", focusable=False)
        with_left = Vertical(
            Heat(self._heat_cell, by_column=True, id="heat"),
            Util(self._util, id="util"),
            Queue(self._queue_row, id="queue"),
            id="left",
            classes="column",
        )
        with_right = Vertical(
            Panel(self._node, id="node"),
            Events(self._event_row, id="events"),
            id="right",
            classes="column",
        )
        yield Horizontal(with_left, with_right, id="body")

    # Snapshots in.

    def show(self, world: World) -> None:
        glyphs = self.deck.glyphs
        heat = self.query_one(Heat)
        nodes = cluster.nodes_in_order(world)
        self._cells = cluster.heat_cells(nodes, heat.room.width)
        empty = self._nothing(
            world, "nodes", "No node has joined.", "qd up", "starts a cluster on this machine"
        )
        heat.set_cells([node["name"] for node in nodes], self._cells.width, empty)
        self._share_height(heat)
        metric = " ".join(f"({m})" if m == self._metric else m for m in cluster.METRICS)
        self.set_title("heat", f"Heat {glyphs.dot} node by GPU {glyphs.dot} {metric}")
        self._jobs = {job["id"]: job for job in cluster.queue(world)}
        running = sum(job["state"] in ("RUNNING", "STOPPING") for job in self._jobs.values())
        self.set_title("queue", f"Queue {len(self._jobs) - running} {glyphs.dot} running {running}")
        none = self._nothing(
            world, "jobs", "No job waits or runs.", "qd submit -- echo hi", "starts one"
        )
        self.query_one(Queue).set_keys(list(self._jobs), none)
        self._events = {str(event["id"]): event for event in reversed(world.events)}
        quiet = self._nothing(world, "events", "Nothing happened yet.", "", "")
        self.query_one(Events).set_keys(list(self._events), quiet)
        self.set_title("events", "Events")
        self.set_title("util", f"GPU util {glyphs.dot} {SPANS[self._span][1]}")
        node = self._selected_node()
        self.set_title("node", cluster.node_title(node, glyphs) if node else "Node")
        for name in ("totals", "node", "util"):
            self.query_one(f"#{name}", Panel).redraw()
        if "nodes" in world.ready:
            self.tick()

    def _share_height(self, heat: Heat) -> None:
        """The map takes what it needs, the chart below it the rest, down to its least height."""
        if self.compact:
            heat.styles.height = "1fr"
            return
        column = self.query_one("#left").size.height - self.query_one(Queue).outer_size.height
        needed = max(heat.rows_needed(heat.room.width), heat.count(), 1) + 1
        heat.styles.height = max(2, min(needed, column - LEAST_CHART))

    def _nothing(self, world: World, topic: str, what: str, how: str, does: str) -> list[Line]:
        """What stands in an empty pane: not known yet, unreachable, or what belongs here."""
        if topic not in world.ready:
            link = world.link
            if link.tries:
                return [line((f" {link.error}", "error")), line((f" {link.hint}", "dim"))]
            return [line((" connecting", "dim"))]
        out = [line((f" {what}", "dim"))]
        if how:
            out.append(line(" ", (how, "key"), (f" {does}", "dim")))
        return out

    # Lines out.

    def _totals(self, width: int, height: int) -> list[Line]:
        return [cluster.totals_line(self.deck.world, self.deck.glyphs, width)]

    def _heat_cell(self, name: str, selected: bool) -> Line:
        node = self.deck.world.nodes[name]
        return cluster.heat_cell(node, self._cells, self._metric, selected, self.deck.glyphs)

    def _util(self, width: int, height: int) -> list[Line]:
        if not self._history:
            return [line((" no history yet", "dim"))]
        return cluster.util_chart(
            self._history,
            width,
            height,
            SPANS[self._span][0],
            self.deck.clock.wall(),
            self.deck.glyphs,
        )

    def _node(self, width: int, height: int) -> list[Line]:
        node = self._selected_node()
        if node is None:
            return []
        name, history = self._node_history
        return cluster.node_lines(
            node,
            history if name == node["name"] else [],
            self.deck.clock.wall(),
            width,
            height,
            self.deck.glyphs,
        )

    def _queue_row(self, key: str, width: int) -> Line:
        return cluster.queue_line(self._jobs[key], self.deck.clock.wall(), width, self.deck.glyphs)

    def _event_row(self, key: str, width: int) -> Line:
        return cluster.event_line(self._events[key], width, self.deck.glyphs)

    # Fetches.

    def tick(self) -> None:
        node = self._selected_node()
        if self._due("history"):
            seconds = SPANS[self._span][0]
            self.deck.fetch(
                "history", lambda: self.deck.source.cluster_history(seconds, CHART_POINTS)
            )
        if node is not None and node["gpus"] and self._due(f"node {node['name']}"):
            name = node["name"]
            self.deck.fetch(
                "node",
                lambda: (name, self.deck.source.node_history(name, TEN_MINUTES, CHART_POINTS)),
            )

    def _due(self, what: str) -> bool:
        now = self.deck.clock.mono()
        if now - self._asked.get(what, -REFRESH) < REFRESH:
            return False
        self._asked[what] = now
        return True

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        if error is not None:
            return  # the badge tells; the last chart stays
        if key == "history":
            self._history = cast("list[HistoryPoint]", value)
            self.query_one("#util", Panel).redraw()
        elif key == "node":
            self._node_history = value
            self.query_one("#node", Panel).redraw()

    # What a person does.

    def _selected_node(self) -> NodeView | None:
        name = self.query_one(Heat).cursor_key
        return self.deck.world.nodes.get(name) if name is not None else None

    def _selected_job(self) -> JobView | None:
        key = self.query_one(Queue).cursor_key
        return self.deck.world.jobs.get(key) if key is not None else None

    def select_node(self, name: str) -> None:
        self.query_one(Heat).select(name)
        self.focus_pane("heat")

    @on(Grid.Moved)
    def _node_chosen(self) -> None:
        self.show(self.deck.world)
        self.tick()

    @on(Grid.Opened)
    def _node_opened(self) -> None:
        self.focus_pane("node")

    @on(Rows.Opened, "#queue")
    def _job_opened(self, message: Rows.Opened) -> None:
        self.deck.open_job(message.key)

    @on(Rows.Opened, "#events")
    def _event_opened(self, message: Rows.Opened) -> None:
        event = self._events[message.key]
        if event["job"]:
            self.deck.open_job(event["job"])
        elif event["node"]:
            self.select_node(event["node"])

    def do_heat_metric(self) -> None:
        at = cluster.METRICS.index(self._metric)
        self._metric = cluster.METRICS[(at + 1) % len(cluster.METRICS)]
        self.deck.memory.note(heat=self._metric)
        self.show(self.deck.world)

    def do_chart_zoom_in(self) -> None:
        self._zoom(-1)

    def do_chart_zoom_out(self) -> None:
        self._zoom(1)

    def _zoom(self, by: int) -> None:
        self._span = max(0, min(len(SPANS) - 1, self._span + by))
        self._asked.pop("history", None)
        self.show(self.deck.world)

    def do_node_drain(self) -> None:
        node = self._selected_node()
        self.propose(commands.drain(node) if node else Refusal("There is no node here."))

    def do_job_cancel(self) -> None:
        job = self._selected_job()
        self.propose(commands.cancel(job) if job else None)

    def do_job_retry(self) -> None:
        job = self._selected_job()
        self.propose(commands.retry(job) if job else None)

    def do_job_explain(self) -> None:
        job = self._selected_job()
        if job is not None:
            self.deck.explain(job["id"])

    def do_id_copy(self) -> None:
        focused = self.focused
        if isinstance(focused, Heat | Queue) and focused.cursor_key:
            self.deck.copy(focused.cursor_key)
        elif isinstance(focused, Events) and focused.cursor_key:
            event = self._events[focused.cursor_key]
            self.deck.copy(event["job"] or event["node"] or event["message"])
