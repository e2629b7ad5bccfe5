"""The console's app: feeds in, frames out. Screens are in `screens/`, what they show in `core/`."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.console import RenderableType
from rich.style import Style
from textual import events, on
from textual.filter import LineFilter
from textual.screen import Screen
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.timer import Timer
from textual.widgets import Input

from console.tui import actions
from console.tui.contrast import SYSTEMS, Readable
from console.tui.core.base.commands import Command
from console.tui.core.base.link import worst
from console.tui.core.base.world import Table, World, events_in_order
from console.tui.core.draw.glyphs import ASCII, UNICODE, Glyphs
from console.tui.dispatch import perform
from console.tui.feed import Clock, Feed, Fetches
from console.tui.frugal import Frugal
from console.tui.keymap import Config, read
from console.tui.memory import Memory
from console.tui.messages import Fetched, Moved
from console.tui.navigation import Navigation
from console.tui.palette import ActionCommands
from console.tui.screens.cluster import ClusterScreen
from console.tui.source import Source
from console.tui.theme import PlainBar, styles
from console.tui.widgets.prompt import Entry
from jobs.base.errors import QuarterdeckError
from jobs.base.places import places
from jobs.wire.alertviews import AlertView
from jobs.wire.views import FileView, JobDetail, MaintenanceView

if TYPE_CHECKING:
    from console.tui.core.jobs.files import Copying

FRAME = 0.1
"""Seconds between two pictures at least: ten a second are enough for eyes and slow links."""

BURST = 0.03
"""Seconds to wait after the first news: what the control plane tells at once comes in several pieces,
and a picture of the first piece alone would have to be made again."""

ALERTS = 10.0
"""Seconds between two looks at the alerts for their number in the header."""

TICK = 1.0
"""Seconds between two pictures at most: ages move on also where nothing is told."""

FAREWELL = 0.2
"""Seconds that leaving waits for threads; they are daemons and hold nothing."""

BASE_TOPICS = ("jobs", "events")


class SystemClock:
    def wall(self) -> float:
        return time.time()

    def mono(self) -> float:
        return time.monotonic()


class QuarterdeckApp(Navigation):
    """Args:
    source: where data comes from.
    clock: all ages are by it.
    start: the screen to open with, "cluster", "jobs", "sweeps", "models", "deployments", "pipelines",
        "alerts", "events", or the id of a job, sweep or pipeline; where the last session ended when it
        is not given.
    read_only: switches off whatever changes the cluster.
    ascii_only: draws with ASCII characters.
    memory: the last session.
    config: theme and keys that the person chose.
    host: where the cluster is, when it is not on this machine.
    """

    TITLE = "Quarterdeck"
    CSS_PATH = Path(__file__).with_name("qd.tcss")
    BINDINGS = actions.bindings("app")
    COMMANDS: ClassVar[set[Any]] = {ActionCommands}
    ALLOW_SELECT = False
    ESCAPE_TO_MINIMIZE = False

    def __init__(
        self,
        source: Source,
        *,
        clock: Clock | None = None,
        start: str | None = None,
        read_only: bool = False,
        ascii_only: bool = False,
        memory: Memory | None = None,
        config: Config | None = None,
        host: str = "",
    ) -> None:
        # Without colour Textual must keep to the terminal's own two, or it would write greys.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.animation_level = "none"
        self.source = source
        self.clock: Clock = clock or SystemClock()
        self.read_only = read_only
        self.host = host
        self.glyphs: Glyphs = ASCII if ascii_only else UNICODE
        self.memory = memory or Memory()
        self.config = config or Config()
        self.keymap = self.config.keymap
        self.world = World()
        self.frozen = False
        self.opened = False
        self.copies: dict[str, Copying] = {}  # job -> how far the last copy of its files is
        self.alerts = 0  # those that fire, and that nobody has acknowledged or silenced
        self._alerts_at = float("-inf")
        self._maintained_until: float | None = (
            None  # on the clock, while the head is in maintenance
        )
        self.tones: dict[str, Style] = {}
        self._readable: Readable | None = None  # the last filter before the terminal
        self._start = self.memory.session.screen if start is None else start
        self._feeds: dict[tuple[str, ...], Feed] = {}
        self._fetches = Fetches(self._deliver)
        self._frame_due: Timer | None = None
        self._framed = float("-inf")
        self._frugal = Frugal()
        self._first_theme = self.theme
        self.set_class(ascii_only, "-ascii")
        ScrollBar.renderer = PlainBar if ascii_only else ScrollBarRender

    def action_act(self, wanted: str, *keys: str) -> None:
        """Keys that work everywhere may still mean something nearer to a screen."""
        perform(self.focused or self.screen, wanted, *keys)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Write a frame, without what stands on the terminal already."""
        if not (self._batch_count or self.is_headless or not self._running or self._closed):
            renderable = self._frugal.less(renderable, self.console)
        super()._display(screen, renderable)

    def on_key(self, event: events.Key) -> None:
        """A key that nothing nearer took. While a line to type into has focus, none that belongs there
        may be a command: it was typed in a breath with the key that opened the line, and was on its way
        to what had focus before. The same goes for a dialog that is still being made."""
        focused, wait = self.focused, getattr(self.screen, "wait", None)
        if wait is not None and wait(events.Key(event.key, event.character)):
            event.prevent_default()
        elif isinstance(focused, Input):
            own = isinstance(focused, Entry) and event.key in focused.ENDS
            if own or event.is_printable:
                event.prevent_default()
                focused._forward_event(events.Key(event.key, event.character))

    # Life.

    def get_default_screen(self) -> Screen[Any]:
        return ClusterScreen()

    def on_mount(self) -> None:
        self.set_keymap(self.keymap.textual)
        theme = self.memory.session.theme or self.config.theme
        if theme in self.available_themes:
            self.theme = theme
        self._first_theme = self.theme
        self._restyle()
        self.app_resume_signal.subscribe(self, lambda _: self._frugal.forget())
        self.theme_changed_signal.subscribe(self, lambda _: self._restyle())
        self.open_place(self._start)
        self.screen_changed()
        self.set_interval(TICK, self._tick)
        for problem in self.config.problems:
            self.tell(problem, severity="warning")

    def open(self) -> None:
        """The first picture is there: paint from now on. What was made until then stays to the end, so
        the collector, which `qd` switched off meanwhile, need not look at it again and again."""
        self.opened = True
        gc.freeze()
        gc.enable()

    def _restyle(self) -> None:
        dark = self.current_theme.dark
        self.tones = styles(self.theme_variables, dark=dark, colour=not self.no_color)
        system = SYSTEMS.get(self.console.color_system or "", SYSTEMS["truecolor"])
        self._readable = None if self.no_color else Readable(system, dark=dark)
        for screen in self.screen_stack:
            for widget in screen.query():
                widget.notify_style_update()
                widget.refresh()
            screen.refresh(recompose=False, repaint=True)

    def get_line_filters(self) -> Sequence[LineFilter]:
        found = super().get_line_filters()
        return [*found, self._readable] if self._readable is not None else found

    def on_unmount(self) -> None:
        if self.theme != self._first_theme:  # only what was chosen here is stronger than the config
            self.memory.note(theme=self.theme)
        self.memory.save()
        for feed in self._feeds.values():
            feed.close(FAREWELL)

    def _fatal_error(self) -> None:
        """A fault of our own: a screen of words, and the traceback in a file. (Textual prints all of it,
        with the values of variables.)"""
        from console.tui.crash import last_words

        error = sys.exc_info()[1]
        self._exit_renderables.append(
            last_words(error, places().state, place=self.memory.session.screen)
        )
        self._close_messages_no_wait()

    # Data in.

    def screen_changed(self) -> None:
        """Watch what the top screen shows, and nothing else."""
        if not self.is_running or self._exit:
            return
        self.memory.note(screen=self.place)
        wanted: set[tuple[str, ...]] = {BASE_TOPICS}
        if self.top is not None and self.top.topics:
            wanted.add(self.top.topics)
        for topics, feed in list(self._feeds.items()):
            if topics not in wanted:
                feed.stop()
                if topics[0].startswith(("job:", "sweep:", "pipeline:")):
                    del self._feeds[topics]
        for topics in wanted:
            if topics not in self._feeds:
                self._feeds[topics] = Feed(
                    self.source, topics, self.clock, lambda: self.post_message(Moved())
                )
            self._feeds[topics].start()
        self._take()

    @on(Moved)
    def _moved(self) -> None:
        """News: soon when the last picture is old enough, else when it is."""
        if self._frame_due is None:
            wait = max(BURST, self._framed + FRAME - time.monotonic())
            self._frame_due = self.set_timer(wait, self._take)

    def _take(self) -> None:
        """One new picture from all feeds, given to the top screen."""
        if self._frame_due is not None:
            self._frame_due.stop()
            self._frame_due = None
        self._framed = time.monotonic()
        world = self.world
        details: dict[str, JobDetail] = {}
        sweep: dict[str, Table] = {}
        pipeline: dict[str, Table] = {}
        ready: set[str] = set()
        refused: dict[str, str] = {}
        links = []
        for feed in self._feeds.values():
            tables, known, link = feed.take()
            ready |= known
            if link.phase == "refused" and feed.topics != BASE_TOPICS:
                refused |= dict.fromkeys(feed.topics, link.error)
            elif feed.running:
                links.append(link)
            for topic, table in tables.items():
                if topic == "jobs":
                    world = replace(world, jobs=table)
                elif topic == "nodes":
                    world = replace(world, nodes=table)
                elif topic == "events":
                    world = replace(world, events=events_in_order(table))
                elif topic == "sweeps":
                    world = replace(world, sweeps=table)
                elif topic == "pipelines":
                    world = replace(world, pipelines=table)
                elif topic.startswith("sweep:"):
                    sweep[topic.removeprefix("sweep:")] = table
                elif topic.startswith("pipeline:"):
                    pipeline[topic.removeprefix("pipeline:")] = table
                else:
                    details.update(cast("dict[str, JobDetail]", dict(table)))
        link = worst(links)
        if self.frozen:
            self.world = replace(self.world, link=link)
            if self.top is not None:
                self.top.redraw_frame()
            return
        self.world = replace(
            world,
            details=details,
            sweep=sweep,
            pipeline=pipeline,
            ready=frozenset(ready),
            refused=refused,
            link=link,
        )
        if self.top is not None:
            self.top.refresh_all()

    def do_app_freeze(self) -> None:
        """Keep the picture as it is while it is being read, or let it go on."""
        self.frozen = not self.frozen
        self._take()

    def _tick(self) -> None:
        """A second has passed: ages move on, and screens ask for what they need."""
        if time.monotonic() - self._framed > TICK / 2:
            self._take()
        self._count_alerts()
        if self.top is not None and self.top.alive:
            self.top.tick()

    def _count_alerts(self) -> None:
        """The number in the header, asked for now and then."""
        now = self.clock.mono()
        if now - self._alerts_at >= ALERTS:
            self._alerts_at = now
            self._fetches.start("app alerts", lambda: self.source.alerts(over=False))
            self._fetches.start("app maintenance", self.source.maintenance)

    def count_alerts(self, alerts: Sequence[AlertView]) -> None:
        """Take the number in the header from alerts that were read."""
        from console.tui.core.alerts.list import needs_someone

        self._alerts_at = self.clock.mono()
        number = needs_someone(alerts)
        if number != self.alerts:
            self.alerts = number
            if self.top is not None:
                self.top.redraw_frame()

    def _show_maintenance(self, view: MaintenanceView | None) -> None:
        """Say in the header that the head is in maintenance, or no longer."""
        if view is None and self._maintained_until is None:
            return
        self._maintained_until = None if view is None else self.clock.mono() + view["left"]
        if self.top is not None:
            self.top.redraw_frame()

    @property
    def maintenance_left(self) -> float | None:
        """Seconds for which the head may still be away."""
        if self._maintained_until is None:
            return None
        left = self._maintained_until - self.clock.mono()
        return left if left > 0.0 else None

    def fetch(self, key: str, call: Callable[[], Any]) -> None:
        """Make a call in a thread; the top screen gets the answer, if it is still there."""
        if self.top is not None:
            self._fetches.start(f"{self.top.serial} {key}", call)

    def _deliver(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        self.post_message(Fetched(key, value, error))

    @on(Fetched)
    def _fetched(self, message: Fetched) -> None:
        owner, _, key = message.key.partition(" ")
        if owner == "app":
            self._answered(key, message.value, message.error)
        elif self.top is not None and str(self.top.serial) == owner and self.top.alive:
            self.top.fetched(key, message.value, message.error)

    @property
    def settled(self) -> bool:
        """Whether nothing is under way: tests wait for it."""
        pending = any(feed.pending for feed in self._feeds.values())
        pending = pending or (self.top is not None and self.top.pending)
        return not (pending or self._fetches.busy or self._frame_due is not None)

    # Actions out.

    def confirm(self, command: Command) -> None:
        """Ask, and do it when the answer is yes."""
        from console.tui.screens.modals import Confirm

        def answered(yes: bool | None) -> None:
            if yes:
                self.do(command)

        self.push_screen(Confirm(command), answered)

    def do(self, command: Command) -> None:
        """Do what a person has agreed to."""
        key = f"app act {command.verb} {command.target}"
        self._fetches.start(key, lambda: self._perform(command))

    def _perform(self, command: Command) -> Command:
        for target in command.targets:
            self.source.act(command.verb, target, command.body_of(target))
        return command

    def _answered(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        from console.tui.core.jobs import job as job_words

        what, _, rest = key.partition(" ")
        if what == "alerts":
            if error is None:
                self.count_alerts(value)
        elif what == "maintenance":
            if error is None:
                self._show_maintenance(value)
        elif error is not None:
            self.tell(f"{rest}: {error.message}. {error.hint}".strip(), severity="error")
        elif what == "act":
            self.tell(f"{cast(Command, value).done}.")
            if self.top is not None and self.top.alive:
                self.top.acted()
        elif what in ("pull", "work"):
            self.tell(cast(str, value))
        elif what == "describe":
            self._described(value)
        elif what == "explain":
            self.page(f"explain {rest}", lambda w: job_words.explain_lines(value, w, self.glyphs))
        elif what == "stacks":
            self.page(f"stacks {rest}", lambda w: job_words.stacks_lines(value, w, self.glyphs))

    def _described(self, job: JobDetail) -> None:
        from console.tui.core.jobs.describe import describe_lines, origin

        made, now, glyphs = origin(job), self.clock.wall(), self.glyphs
        self.page(
            f"job {job['id']}",
            lambda width: describe_lines(job, now, width, glyphs),
            (made.id, lambda: self.open_origin(job)) if made else None,
        )

    def describe(self, job_id: str) -> None:
        self._fetches.start(f"app describe {job_id}", lambda: self.source.job(job_id))

    def pull(self, job_id: str, files: Sequence[FileView], target: Path) -> Copying:
        """Copy files of a job to this machine, also when its screen is left meanwhile."""
        from console.tui.core.jobs.files import Copying, copied

        copying = self.copies[job_id] = Copying(sum(file["size"] for file in files))

        def call() -> str:
            try:
                self.source.pull(job_id, files, target, copying.moved, copying.tell)
            finally:
                copying.over = True
            return copied(files, str(target))

        self._fetches.start(f"app pull {job_id}", call)
        return copying

    def work(self, name: str, call: Callable[[], str]) -> None:
        self._fetches.start(f"app work {name}", call)

    def explain(self, job_id: str) -> None:
        self._fetches.start(f"app explain {job_id}", lambda: self.source.explain(job_id))

    def stacks(self, job_id: str) -> None:
        self.tell(f"Reading the stacks of {job_id}.")
        self._fetches.start(f"app stacks {job_id}", lambda: self.source.stacks(job_id))


def run(screen: str | None = None, *, read_only: bool = False, ascii_only: bool = False) -> int:
    """Open the console on the control plane that the environment names. Gives the exit code: 1 when it
    ended by a fault of its own.

    Args:
        screen: what to open with: "cluster", "jobs", "sweeps", "models", "deployments", "pipelines",
            "alerts", "events", or the id of a job, sweep or pipeline.
        read_only: switches off whatever changes the cluster.
        ascii_only: draws with ASCII characters.
    """
    from console.client import Client
    from console.tui.source import LiveSource

    where, client = places(), Client.from_environment()
    remote = client.remote
    # What was open on one cluster says nothing about another.
    session = f"console-{remote.digest({})}.json" if remote else "console.json"
    app = QuarterdeckApp(
        LiveSource(client),
        start=screen,
        read_only=read_only,
        ascii_only=ascii_only,
        memory=Memory(where.state / session),
        config=read(where.config_file),
        host=(remote.context or remote.address) if remote else "",
    )
    app.run()
    return app.return_code or 0
