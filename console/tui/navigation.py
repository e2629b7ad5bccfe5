"""Going places: which screen is open, which one `:` and the number keys open, and what lies over it."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from textual.app import App
from textual.command import CommandPalette
from textual.geometry import Region
from textual.strip import Strip

from console.text import neutralise
from console.tui import clipboard, outside
from console.tui.core.base.world import World
from console.tui.core.cluster.goto import Place
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, line
from console.tui.dispatch import Acts
from console.tui.keymap import Keymap
from console.tui.screens.base import Frame

if TYPE_CHECKING:
    from console.tui.screens.cluster import ClusterScreen
    from jobs.wire.views import JobView

SWEEP_ID = re.compile(r"s[1-9]\d*")
PIPELINE_ID = re.compile(r"p[1-9]\d*")


class Navigation(Acts, App[None]):
    """The app as far as it opens and closes screens. The stack is Cluster, a list, a job, a question.

    A screen is imported when it is opened: what is not looked at costs no start-up time.
    """

    SCREEN_KEYS: ClassVar[tuple[tuple[str, str], ...]] = (
        ("1", "Cluster"),
        ("2", "Jobs"),
        ("3", "Sweeps"),
        ("4", "Models"),
        ("5", "Deployments"),
        ("6", "Pipelines"),
        ("7", "Alerts"),
        ("8", "Events"),
        ("9", "Data"),
    )
    """Keys and names of the main screens; Jobs is `screens.jobs.JobsScreen`, and so are the others."""

    world: World
    glyphs: Glyphs
    keymap: Keymap
    read_only: bool

    @property
    def top(self) -> Frame | None:
        """The uppermost full screen; questions and pages over it do not count."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, Frame):
                return screen
        return None

    @property
    def place(self) -> str:
        """Where the person is, as `open_place` takes it."""
        top = self.top
        if top is not None and top.place:
            return top.place
        return "cluster" if top is None or top.NAME not in self._main else top.NAME.lower()

    @property
    def _main(self) -> list[str]:
        return [name for _, name in self.SCREEN_KEYS]

    def open_place(self, name: str) -> None:
        """Open a main screen by its name in small letters, or a job, sweep or pipeline by its id."""
        if name.capitalize() in self._main:
            self._open_main(name.capitalize())
        elif SWEEP_ID.fullmatch(name):
            self.open_sweep(name)
        elif PIPELINE_ID.fullmatch(name):
            self.open_pipeline(name)
        elif name:
            self.open_job(name)

    def _back_to(self, name: str) -> bool:
        """Close screens until the one of this name is on top; False when there is none."""
        held = [one for one in self.screen_stack if isinstance(one, Frame) and name == one.NAME]
        while held and self.screen is not held[-1]:
            self.pop_screen()
        return bool(held)

    def _open_main(self, name: str) -> None:
        if not self._back_to(name):
            self._back_to("Cluster")
            module = importlib.import_module(f"console.tui.screens.{name.lower()}")
            self.push_screen(getattr(module, f"{name}Screen")())

    def do_go_cluster(self) -> None:
        self._open_main("Cluster")

    def do_go_jobs(self) -> None:
        self._open_main("Jobs")

    def do_go_sweeps(self) -> None:
        self._open_main("Sweeps")

    def do_go_models(self) -> None:
        self._open_main("Models")

    def do_go_deployments(self) -> None:
        self._open_main("Deployments")

    def do_go_pipelines(self) -> None:
        self._open_main("Pipelines")

    def do_go_alerts(self) -> None:
        self._open_main("Alerts")

    def do_go_events(self) -> None:
        self._open_main("Events")

    def do_go_data(self) -> None:
        self._open_main("Data")

    def open_job(self, job_id: str) -> None:
        """Open a job's screen over the one that is shown."""
        from console.tui.screens.job import JobScreen

        if isinstance(self.top, JobScreen):
            self.pop_screen()
        self.push_screen(JobScreen(job_id))

    def open_sweep(self, sweep_id: str) -> None:
        """Open a sweep's screen, over the list of them where that is open."""
        from console.tui.screens.sweep import SweepScreen

        if isinstance(self.top, SweepScreen):
            self.pop_screen()
        self.push_screen(SweepScreen(sweep_id))

    def open_pipeline(self, pipeline_id: str) -> None:
        """Open a run of a pipeline, over the list of them where that is open."""
        from console.tui.screens.pipeline import PipelineScreen

        if isinstance(self.top, PipelineScreen):
            self.pop_screen()
        self.push_screen(PipelineScreen(pipeline_id))

    def open_origin(self, job: JobView) -> None:
        """Open the sweep or the pipeline that a job belongs to."""
        from console.tui.core.jobs.describe import origin

        if (made := origin(job)) is None:
            self.tell(f"{job['id']} belongs to no sweep and to no pipeline.", severity="warning")
        else:
            self.open_place(made.id)

    def open_node(self, name: str) -> None:
        self._back_to("Cluster")
        cast("ClusterScreen", self.screen).select_node(name)

    def compare(self, job_ids: Sequence[str]) -> None:
        """Open the metrics of some jobs in one chart."""
        from console.tui.screens.compare import CompareScreen

        self.push_screen(CompareScreen(job_ids))

    def write_job(self) -> None:
        """Open the dialog in which a job is written and submitted."""
        from console.tui.screens.submit import Submit

        self.push_screen(Submit(), self._submitted)

    def _submitted(self, job_id: str | None) -> None:
        if job_id:
            self.open_job(job_id)

    def do_app_back(self) -> None:
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def do_app_goto(self) -> None:
        from console.tui.screens.modals import Goto

        self.push_screen(Goto(self.world, self._main), self._gone)

    def _gone(self, place: Place | None) -> None:
        if place is None:
            return
        match place.kind:
            case "screen":
                getattr(self, f"do_go_{place.name.lower()}")()
            case "job":
                self.open_job(place.name)
            case "sweep":
                self.open_sweep(place.name)
            case "pipeline":
                self.open_pipeline(place.name)
            case "node":
                self.open_node(place.name)

    def do_app_help(self) -> None:
        from console.tui.screens.modals import help_lines

        scopes = self.top.scopes() if self.top else ("app",)
        keymap, off = self.keymap, self.read_only
        self.page("help", lambda width: help_lines(scopes, keymap, width, read_only=off))

    def action_command_palette(self) -> None:
        """Textual's palette, asking in words that every terminal can draw."""
        if not CommandPalette.is_open(cast("App[object]", self)):
            self.push_screen(CommandPalette(placeholder="Find a command", id="--command-palette"))

    def do_app_palette(self) -> None:
        self.action_command_palette()

    def do_app_theme(self) -> None:
        self.search_themes()

    def do_app_quit(self) -> None:
        self.exit()

    def page(
        self,
        title: str,
        build: Callable[[int], Sequence[Line]],
        jump: tuple[str, Callable[[], object]] | None = None,
    ) -> None:
        """Lay a page of text over the screen; `o` goes where `jump` says."""
        from console.tui.screens.modals import Page

        self.push_screen(Page(title, build, jump))

    def tell(
        self, text: str, *, severity: Literal["information", "warning", "error"] = "information"
    ) -> None:
        """A short note in the corner."""
        text = "\n".join(map(neutralise, text.split("\n")))
        self.notify(text, severity=severity, timeout=6 if severity == "error" else 3, markup=False)

    # What is seen, as a file.

    def do_screen_write(self) -> None:
        """The screen, or the page that lies over it, in the folder where the console was started."""
        page = self.screen.query(".page")
        region = page.first().region if page else Region(0, 0, *self.size)
        self._write(region, self.place, *(["page"] if page else []))

    def do_pane_write(self) -> None:
        """The pane that has the focus, with its title."""
        if (pane := self.focused) is not None:
            self._write(pane.region, self.place, pane.id or "")

    def _write(self, region: Region, *names: str) -> None:
        from console.tui.exporting import Picture, file_name

        rows = [Strip(row) for row in self.screen._compositor.render_strips(self.size)]
        picture = Picture.of(rows, region, " ".join(names), self.ansi_theme)
        folder = outside.here()

        def call() -> str:
            drawn, written = picture.write(folder, file_name(*names))
            return f"Written to {drawn} and {written.name}."

        self.work("write", call)

    def work(self, name: str, call: Callable[[], str]) -> None:
        """Do something in a thread, and say what it says when it is done."""
        raise NotImplementedError

    def copy(self, text: str) -> None:
        """Copy in the way that this terminal allows, and claim no more than is known."""
        what = clipboard.excerpt(text)
        match clipboard.way(text, os.environ):
            case "tmux" if clipboard.to_tmux(text):
                self.tell(f"{what}: in tmux's buffer, and passed on to the terminal.")
            case "osc52":
                self.copy_to_clipboard(text)
                self.tell(f"{what}: sent to the terminal's clipboard (OSC 52).")
            case _:
                lines = [line(part) for part in text.split("\n")]
                self.page(
                    "no clipboard here: mark it with shift and the mouse", lambda width: lines
                )
