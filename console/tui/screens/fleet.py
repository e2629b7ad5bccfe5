"""What a person does with the nodes, jobs and history of the Cluster screen."""

from __future__ import annotations

from bisect import bisect_right

from textual import on

from console.tui.actions import bindings
from console.tui.core.base import commands
from console.tui.core.base.commands import Refusal
from console.tui.core.base.order import Order
from console.tui.core.cluster import cluster, queue
from console.tui.core.draw.format import clock, moment
from console.tui.core.draw.look import STEPS
from console.tui.screens.base import Frame
from console.tui.widgets.chart import ChartPanel
from console.tui.widgets.grid import Grid
from console.tui.widgets.marks import Marked
from console.tui.widgets.rows import Rows
from jobs.wire.views import EventView, HistoryPoint, JobView, NodeView

SPANS = ((600, "10 min"), (3600, "1 h"), (6 * 3600, "6 h"), (24 * 3600, "24 h"))
"""What the chart of utilisation reaches back, in seconds and in words."""


class Heat(Grid):
    PANE = "heat"
    BINDINGS = bindings("heat")


class Util(ChartPanel):
    PANE = "util"
    BINDINGS = bindings("util")


class Queue(Rows):
    PANE = "queue"
    BINDINGS = bindings("queue")


class Events(Rows):
    PANE = "events"
    BINDINGS = bindings("events")


class FleetActions(Frame):
    """A screen with a heat map of nodes, a queue, events and a chart of utilisation."""

    metric: str  # what the map shows
    span: int  # index into `SPANS`
    nodes_order: Order
    queue_order: Order
    cross: float | None  # the moment that is looked at, seconds since the epoch
    jobs: dict[str, JobView]  # of the queue
    events: dict[str, EventView]  # newest first
    history: list[HistoryPoint]

    def asked_again(self) -> None:
        """The chart shows something else: ask for it at once."""
        raise NotImplementedError

    def _again(self) -> None:
        self.show(self.deck.world)

    # Nodes.

    @property
    def node_view(self) -> NodeView | None:
        """The node under the cursor."""
        name = self.query_one(Heat).cursor_key
        return self.deck.world.nodes.get(name) if name is not None else None

    def select_node(self, name: str) -> None:
        self.query_one(Heat).select(name)
        self.focus_pane("heat")

    @on(Grid.Moved, "#heat")
    def _node_chosen(self) -> None:
        self._again()
        self.tick()

    @on(Grid.Opened, "#heat")
    def _node_opened(self) -> None:
        self.focus_pane("node")

    def do_heat_metric(self) -> None:
        at = cluster.METRICS.index(self.metric)
        self.metric = cluster.METRICS[(at + 1) % len(cluster.METRICS)]
        self.deck.memory.note(heat=self.metric)
        self._again()

    def do_node_drain(self) -> None:
        known = self.deck.world.nodes
        nodes = [known[name] for name in self.query_one(Heat).chosen if name in known]
        self.propose(
            commands.drain_all(nodes) if nodes else Refusal("There is no node here."),
        )

    # The queue.

    def _chosen_jobs(self) -> list[JobView]:
        return [self.jobs[key] for key in self.query_one(Queue).chosen if key in self.jobs]

    @on(Rows.Opened, "#queue")
    def _job_opened(self, message: Rows.Opened) -> None:
        self.deck.open_job(message.key)

    def do_job_cancel(self) -> None:
        jobs = self._chosen_jobs()
        if len(jobs) > 1:
            self.propose(commands.cancel_all(jobs))
        elif jobs:
            self.propose(commands.cancel(jobs[0]))

    def do_job_retry(self) -> None:
        jobs = self._chosen_jobs()
        if len(jobs) > 1:
            self.propose(commands.retry_all(jobs))
        elif jobs:
            self.propose(commands.retry(jobs[0]))

    def do_job_explain(self) -> None:
        key = self.query_one(Queue).cursor_key
        if key is not None:
            self.deck.explain(key)

    def do_row_describe(self) -> None:
        key = self.query_one(Queue).cursor_key
        if key is not None:
            self.deck.describe(key)

    def do_job_origin(self) -> None:
        job = self.deck.world.jobs.get(self.query_one(Queue).cursor_key or "")
        if job is not None:
            self.deck.open_origin(job)

    # Marks and order, of the map or of the queue.

    def do_table_sort(self) -> None:
        if isinstance(self.focused, Queue):
            self._set_queue_order(self.queue_order.next(queue.SORTABLE))
        else:
            self._set_nodes_order(self.nodes_order.next(cluster.NODE_SORTS))

    def do_table_turn(self) -> None:
        if isinstance(self.focused, Queue):
            self._set_queue_order(self.queue_order.turned())
        else:
            self._set_nodes_order(self.nodes_order.turned())

    def _set_queue_order(self, order: Order) -> None:
        self.queue_order = order
        self.deck.memory.note(queue=order.text)
        self._again()

    def _set_nodes_order(self, order: Order) -> None:
        self.nodes_order = order
        self.deck.memory.note(nodes=order.text)
        self._again()

    @on(Marked.Marks)
    def _marks_changed(self) -> None:
        self._again()

    def do_app_back(self) -> None:
        focused = self.focused
        if isinstance(focused, Marked) and focused.marked:
            focused.clear_marks()
        elif self.cross is not None:
            self.do_chart_clear()
        else:
            self.deck.do_app_back()

    # The chart, and its moment.

    def do_chart_zoom_in(self) -> None:
        self._zoom(-1)

    def do_chart_zoom_out(self) -> None:
        self._zoom(1)

    def _zoom(self, by: int) -> None:
        self.span = max(0, min(len(SPANS) - 1, self.span + by))
        self.asked_again()
        self._again()

    @on(ChartPanel.Moved)
    def _cross_moved(self, message: ChartPanel.Moved) -> None:
        now, seconds = self.deck.clock.wall(), SPANS[self.span][0]
        at = now if self.cross is None else self.cross + message.by * seconds / STEPS
        self.cross = min(now, max(now - seconds, at))
        known = [key for key, event in self.events.items() if _before(event, self.cross)]
        if known:
            self.query_one(Events).select(known[0])
        self._again()

    @on(ChartPanel.Opened)
    def _cross_opened(self) -> None:
        if self.cross is None:
            self.deck.tell("h and l put the crosshair on a moment; enter shows its events.")
        else:
            self.focus_pane("events")

    def do_chart_clear(self) -> None:
        self.cross = None
        self._again()

    def cross_words(self) -> list[str]:
        """The moment that the crosshair is on, and the utilisation then."""
        if self.cross is None:
            return []
        at = bisect_right(self.history, self.cross, key=lambda point: point["at"])
        around = self.history[max(0, at - 1) : at + 1]
        words = [clock(self.cross, seconds=True)]
        if around:
            cross = self.cross
            point = min(around, key=lambda one: abs(one["at"] - cross))
            words.append(f"{point['low']:.0f}-{point['high']:.0f}%")
        return words

    # Events.

    @on(Rows.Opened, "#events")
    def _event_opened(self, message: Rows.Opened) -> None:
        event = self.events[message.key]
        if event["job"]:
            self.deck.open_job(event["job"])
        elif event["node"]:
            self.select_node(event["node"])

    def do_id_copy(self) -> None:
        focused = self.focused
        if isinstance(focused, Events):
            if focused.cursor_key:
                event = self.events[focused.cursor_key]
                self.deck.copy(event["job"] or event["node"] or event["message"])
        elif isinstance(focused, Marked) and focused.chosen:
            self.deck.copy(" ".join(focused.chosen))


def _before(event: EventView, when: float) -> bool:
    at = moment(event["at"])
    return at is not None and at <= when
