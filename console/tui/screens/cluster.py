"""Cluster: totals, node by GPU heat map, one node, utilisation, queue with reasons, events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core.base.order import Order
from console.tui.core.base.world import World
from console.tui.core.cluster import cluster, queue
from console.tui.core.draw.lines import Line, line
from console.tui.screens.fleet import SPANS, Events, FleetActions, Heat, Queue, Util
from console.tui.widgets.marks import Marked
from console.tui.widgets.panel import Panel
from jobs.base.errors import QuarterdeckError
from jobs.wire.views import HistoryPoint

TEN_MINUTES = 600
CHART_POINTS = 240
LEAST_CHART = 6
"""Lines of the utilisation chart with its title, where panes stand beside each other."""

REFRESH = 5.0
"""Seconds between two looks at a history; its buckets are longer than that."""


class ClusterScreen(FleetActions):
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
        self.metric = "util"
        self.span = 1
        self.nodes_order = Order()
        self.queue_order = Order()
        self.cross = None
        self.jobs = {}
        self.events = {}
        self.history = []
        self._cells = cluster.HeatCells(3, 3, 1, True)
        self._node_history: tuple[str, list[HistoryPoint]] = ("", [])
        self._asked: dict[str, float] = {}

    def on_mount(self) -> None:
        session = self.deck.memory.session
        if session.heat in cluster.METRICS:
            self.metric = session.heat
        self.nodes_order = Order.parse(session.nodes, cluster.NODE_SORTS)
        self.queue_order = Order.parse(session.queue, queue.SORTABLE)

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
        nodes = cluster.nodes_in_order(world, self.nodes_order, self.metric)
        self._cells = cluster.heat_cells(nodes, heat.room.width)
        empty = self._nothing(
            world, "nodes", "No node has joined.", "qd up", "starts a cluster on this machine"
        )
        heat.set_cells([node["name"] for node in nodes], self._cells.width, empty)
        self._share_height(heat)
        dot = f" {glyphs.dot} "
        metric = " ".join(f"({m})" if m == self.metric else m for m in cluster.METRICS)
        self.set_title(
            "heat",
            dot.join(["Heat", "node by GPU", metric, *self.nodes_order.words, *_marks(heat)]),
        )
        self.jobs = {job["id"]: job for job in queue.queue(world, self.queue_order)}
        running = sum(job["state"] in ("RUNNING", "STOPPING") for job in self.jobs.values())
        parts = [f"Queue {len(self.jobs) - running}", f"running {running}", *self.queue_order.words]
        self.set_title("queue", dot.join([*parts, *_marks(self.query_one(Queue))]))
        none = self._nothing(
            world, "jobs", "No job waits or runs.", "qd submit -- echo hi", "starts one"
        )
        self.query_one(Queue).set_keys(list(self.jobs), none)
        self.events = {str(event["id"]): event for event in reversed(world.events)}
        quiet = self._nothing(world, "events", "Nothing happened yet.", "", "")
        self.query_one(Events).set_keys(list(self.events), quiet)
        self.set_title("events", "Events")
        self.set_title("util", dot.join(["GPU util", SPANS[self.span][1], *self.cross_words()]))
        node = self.node_view
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
            if link.error:
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
        return cluster.heat_cell(node, self._cells, self.metric, selected, self.deck.glyphs)

    def _util(self, width: int, height: int) -> list[Line]:
        if not self.history:
            return [line((" no history yet", "dim"))]
        return cluster.util_chart(
            self.history,
            width,
            height,
            SPANS[self.span][0],
            self.deck.clock.wall(),
            self.deck.glyphs,
            self.cross,
        )

    def _node(self, width: int, height: int) -> list[Line]:
        node = self.node_view
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
        return queue.queue_line(self.jobs[key], self.deck.clock.wall(), width, self.deck.glyphs)

    def _event_row(self, key: str, width: int) -> Line:
        return cluster.event_line(self.events[key], width, self.deck.glyphs)

    # Fetches.

    def tick(self) -> None:
        node = self.node_view
        if self._due("history"):
            seconds = SPANS[self.span][0]
            self.deck.fetch(
                "history", lambda: self.deck.source.cluster_history(seconds, CHART_POINTS)
            )
        if node is not None and node["gpus"] and self._due(f"node {node['name']}"):
            name = node["name"]
            self.deck.fetch(
                "node",
                lambda: (name, self.deck.source.node_history(name, TEN_MINUTES, CHART_POINTS)),
            )

    def asked_again(self) -> None:
        self._asked.pop("history", None)

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
            self.history = cast("list[HistoryPoint]", value)
            self.query_one("#util", Panel).redraw()
        elif key == "node":
            self._node_history = value
            self.query_one("#node", Panel).redraw()


def _marks(view: Marked) -> list[str]:
    """How much is marked, for a title."""
    return [f"{len(view.marked)} marked"] if view.marked else []
