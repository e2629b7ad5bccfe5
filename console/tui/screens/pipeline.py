"""One run of a pipeline: its graph as a tree, and facts and logs of the step under the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from textual import on
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core.base.world import World
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.flows import commands, detail, tree
from console.tui.core.flows.tree import Node
from console.tui.core.jobs import job
from console.tui.logdesk import LogDesk
from console.tui.messages import LogsCame
from console.tui.screens.base import Frame
from console.tui.widgets.logview import LogView
from console.tui.widgets.panel import Panel
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.base.states import TERMINAL
from jobs.wire.flowviews import PipelineView, TaskView
from jobs.wire.views import JobDetail

REFRESH = 2.0
"""Seconds between two looks at the job of the step under the cursor, while it runs."""

LOG_REFRESH = 0.5
"""Seconds between two looks at its log."""


class Steps(Rows):
    """The tree: left and right fold a step that has several runs."""

    PANE = "steps"
    BINDINGS = bindings("steps")

    class Folded(Message):
        """A step is to be folded, or unfolded."""

        def __init__(self, key: str, folded: bool) -> None:
            super().__init__()
            self.key, self.folded = key, folded

    def do_move_left(self) -> None:
        self._fold(True)

    def do_move_right(self) -> None:
        self._fold(False)

    def _fold(self, folded: bool) -> None:
        if self.cursor_key is not None:
            self.post_message(self.Folded(self.cursor_key, folded))


class PipelineScreen(Frame):
    NAME = "Pipelines"
    SCOPE = "pipeline"
    PANES = ("steps", "step", "logs")
    TABS = ("logs", "step")
    BINDINGS = bindings("pipeline")
    AUTO_FOCUS = "#steps"

    def __init__(self, pipeline_id: str) -> None:
        super().__init__()
        self.pipeline_id = pipeline_id
        self._shown: dict[str, Node] = {}
        self._seen: Mapping[str, Any] | None = None  # what `_shown` is made from
        self._tasks: Sequence[TaskView] = ()
        self._width = self._room = 0  # cells of a line, and for tree and name in it
        self._states: dict[str, list[TaskView]] = {}
        self._turned: set[str] = set()  # steps folded or unfolded by hand
        self._desk: LogDesk | None = None
        self._job = ""  # whose log is shown, or asked for
        self._held: JobDetail | None = None
        self._asked = float("-inf")

    @property
    def place(self) -> str:
        return self.pipeline_id

    @property
    def topics(self) -> tuple[str, ...]:
        return (f"pipeline:{self.pipeline_id}",)

    @property
    def run(self) -> PipelineView | None:
        held = self.deck.world.pipeline.get(self.pipeline_id, {}).get(self.pipeline_id)
        return cast("PipelineView | None", held)

    def crumbs(self) -> tuple[str, ...]:
        name = self.run["name"] if self.run else ""
        return (self.NAME, f"{self.pipeline_id} {name}".rstrip())

    def body(self) -> Iterable[Widget]:
        yield Panel(self._summary, id="summary", focusable=False)
        right = Vertical(
            Panel(self._step_lines, id="step"), LogView(id="logs"), id="right", classes="column"
        )
        left = Vertical(Steps(self._row, id="steps"), id="left", classes="column")
        yield Horizontal(left, right, id="body")

    def on_mount(self) -> None:
        self.set_interval(LOG_REFRESH, self.poll_logs)

    def on_screen_suspend(self) -> None:
        if self.deck.top is not self:
            self._pause()

    def on_unmount(self) -> None:
        self._pause()

    def _pause(self) -> None:
        if self._desk is not None:
            self._desk.logs.pause()

    # Snapshots in.

    def show(self, world: World) -> None:
        held = world.pipeline.get(self.pipeline_id, {})
        known = bool(held) or not self._tasks  # on the way back from a job it is read again
        if known and held is not self._seen:  # a run may have ten thousand steps
            self._seen = held
            self._tasks = tree.in_order({k: v for k, v in held.items() if k != self.pipeline_id})
            self._states = {}
            for task in self._tasks:
                self._states.setdefault(task["step"], []).append(task)
            self._unfold()
        steps = self.query_one(Steps)
        if steps.room.width != self._width:
            self._width = steps.room.width
            self._room = tree.room_for(list(self._shown.values()), self._width, self.deck.glyphs)
        steps.set_keys(list(self._shown), self._nothing(world))
        self.set_title("steps", f"Steps {len(self._states)}" if self._tasks else "Steps")
        self._attend()
        for name in ("summary", "step"):
            self.query_one(f"#{name}", Panel).redraw()
        self.set_title("step", "Step")
        self._title_logs()

    def _unfold(self) -> None:
        """Lay the lines out anew: steps came, or one was folded."""
        self._shown = {node.key: node for node in tree.nodes(self._tasks, self._turned)}
        self._width = 0

    def _nothing(self, world: World) -> list[Line]:
        if self.topics[0] in world.refused:
            return [line((f" {world.refused[self.topics[0]]}", "error"))]
        return [line((f" {world.link.error or 'reading'}", "dim"))]

    @property
    def node(self) -> Node | None:
        """What the cursor is on."""
        return self._shown.get(self.query_one(Steps).cursor_key or "")

    @on(Rows.Moved)
    def _moved(self) -> None:
        self._attend()
        self.query_one("#step", Panel).redraw()

    # The job of the step under the cursor, and its log.

    def _attend(self) -> None:
        """Show the log of the step under the cursor."""
        node = self.node
        wanted = node.task["job"] or "" if node is not None and node.task is not None else ""
        if wanted == self._job:
            if self._desk is None:
                self.query_one(LogView).set_empty(self._no_log())
            return
        self._pause()
        self._job, self._desk, self._held = wanted, None, None
        self.query_one(LogView).show_log(None, self._no_log())
        self._title_logs()
        if wanted:
            self._ask()

    def _ask(self) -> None:
        self._asked = self.deck.clock.mono()
        source, wanted = self.deck.source, self._job
        self.deck.fetch("job", lambda: source.job(wanted))

    def tick(self) -> None:
        held = self._held
        ended = held is not None and held["state"] in TERMINAL
        if self._job and not ended and self.deck.clock.mono() - self._asked >= REFRESH:
            self._ask()

    def poll_logs(self) -> None:
        held, desk = self._held, self._desk
        if desk is not None and held is not None and self.alive and self.deck.top is self:
            desk.poll(live=held["state"] not in TERMINAL)

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        name, _, what = key.partition(" ")
        if name == self._job and what.startswith("logs "):
            if self._desk is not None:
                now = self.deck.clock.wall()
                self._desk.fetched(what.removeprefix("logs "), value, error, now)
                self._title_logs()
        elif key == "job" and error is None and value["id"] == self._job:
            self._held = value
            self._read(value)

    def _read(self, held: JobDetail) -> None:
        attempt = job.current(held)
        if attempt is None or not attempt["ranks"]:
            self.query_one(LogView).set_empty(self._no_log())
            return
        if self._desk is None:
            deck, name = self.deck, self._job
            self._desk = LogDesk(
                deck.source,
                name,
                "logs",
                self.query_one(LogView),
                lambda key, call: deck.fetch(f"{name} {key}", call),
                lambda: self.post_message(LogsCame()),
                deck.tell,
            )
        if self._desk.logs.attend(attempt["number"]):
            self._desk.select(job.opening_rank(attempt))
            self.poll_logs()
        self._title_logs()

    @on(LogsCame)
    def _logs_came(self) -> None:
        if self.alive and self._desk is not None:
            self._desk.came()

    @on(LogView.Followed)
    def _followed(self) -> None:
        if self.alive:
            self._title_logs()

    @on(LogView.NeedsEarlier)
    def _needs_earlier(self) -> None:
        if self._desk is not None:
            self._desk.logs.earlier()

    @on(LogView.NeedsEnd)
    def _needs_end(self) -> None:
        if self._desk is not None:
            self._desk.to_end()

    def _title_logs(self) -> None:
        dot = self.deck.glyphs.dot
        if self._desk is None:
            self.set_title("logs", "Logs")
        else:
            self.set_title("logs", f"{self._job} {self._desk.title(dot)}")

    def _no_log(self) -> list[Line]:
        node = self.node
        if node is None:
            return []
        if node.task is None:
            return [
                line((" Choose one of its runs: ", "dim"), ("l", "key"), (" shows them.", "dim"))
            ]
        if self._job:
            held = self._held
            return [line((" Its job has not started yet." if held else " reading", "dim"))]
        if node.task["sweep"]:
            return [line((" enter", "key"), (f" opens {node.task['sweep']}.", "dim"))]
        started = node.task["state"] not in ("WAITING", "SKIPPED")
        return [
            line((" A step of this kind writes no log." if started else " Not started.", "dim"))
        ]

    # Lines out.

    def _summary(self, width: int, height: int) -> list[Line]:
        if (run := self.run) is None:
            link = self.deck.world.link
            refused = self.deck.world.refused.get(self.topics[0])
            told, tone = (refused, "error") if refused else (link.error or "reading", "dim")
            return [line((f" {told}", tone))]
        return detail.head_lines(run, self.deck.clock.wall(), width, self.deck.glyphs)

    def _row(self, key: str, width: int) -> Line:
        node, deck = self._shown.get(key), self.deck
        if node is None:
            return BLANK
        now, jobs = deck.clock.wall(), deck.world.jobs
        return tree.tree_line(node, self._states, jobs, now, width, self._room, deck.glyphs)

    def _step_lines(self, width: int, height: int) -> list[Line]:
        if (node := self.node) is None:
            return []
        world, now = self.deck.world, self.deck.clock.wall()
        return detail.step_lines(node, self._states, world.jobs, now, width, self.deck.glyphs)

    # What a person does.

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        node = self._shown[message.key]
        if (task := node.task) is None:
            self._fold(node.key, not node.folded)
        elif task["job"]:
            self.deck.open_job(task["job"])
        elif task["sweep"]:
            self.deck.open_sweep(task["sweep"])
        else:
            self.focus_pane("step")

    @on(Steps.Folded)
    def _folded(self, message: Steps.Folded) -> None:
        self._fold(message.key.partition("/")[0], message.folded)

    def _fold(self, step: str, folded: bool) -> None:
        node = self._shown.get(step)
        if node is None or node.folded is None or node.folded == folded:
            return
        self._turned ^= {step}
        self._unfold()
        self.query_one(Steps).select(step)
        self.show(self.deck.world)

    def _runs(self) -> Sequence[PipelineView]:
        return [self.run] if self.run is not None else []

    def do_flow_cancel(self) -> None:
        self.propose(commands.cancel(self._runs()))

    def do_flow_retry(self) -> None:
        self.propose(commands.retry(self._runs()))

    def do_id_copy(self) -> None:
        node = self.node
        here = tree.place(node.task) if node is not None and node.task is not None else ""
        self.deck.copy(here or self.pipeline_id)
