"""Going places: which screen is open, which one `:` and the number keys open, and what lies over it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, cast

from textual.app import App

from console.tui import clipboard
from console.tui.core.glyphs import Glyphs
from console.tui.core.goto import Place
from console.tui.core.lines import Line, line
from console.tui.core.world import World
from console.tui.dispatch import Acts
from console.tui.keymap import Keymap
from console.tui.screens.base import Frame
from console.tui.screens.cluster import ClusterScreen
from console.tui.screens.events import EventsScreen
from console.tui.screens.job import JobScreen
from console.tui.screens.jobs import JobsScreen
from console.tui.screens.modals import Goto, Page, help_lines
from console.tui.screens.sweeps import SweepsScreen

SWEEP_ID = re.compile(r"s[1-9]\d*")


class Navigation(Acts, App[None]):
    """The app as far as it opens and closes screens. The stack is Cluster, a list, a job, a question."""

    SCREEN_KEYS: ClassVar[tuple[tuple[str, type[Frame]], ...]] = (
        ("1", ClusterScreen),
        ("2", JobsScreen),
        ("3", SweepsScreen),
        ("7", EventsScreen),
    )

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
        return next((s.NAME.lower() for _, s in self.SCREEN_KEYS if isinstance(top, s)), "cluster")

    def open_place(self, name: str) -> None:
        """Open "cluster", "jobs", "sweeps", "events", or a job or sweep by its id."""
        match name:
            case "" | "cluster":
                pass
            case "jobs":
                self.push_screen(JobsScreen())
            case "sweeps":
                self.push_screen(SweepsScreen())
            case "events":
                self.push_screen(EventsScreen())
            case _ if SWEEP_ID.fullmatch(name):
                self.open_sweep(name)
            case _:
                self.push_screen(JobScreen(name))

    def _back_to(self, kind: type[Frame]) -> bool:
        """Close screens until one of this kind is on top; False when there is none."""
        if not any(isinstance(screen, kind) for screen in self.screen_stack):
            return False
        while not isinstance(self.screen, kind):
            self.pop_screen()
        return True

    def _open_list(self, kind: type[Frame]) -> None:
        if not self._back_to(kind):
            self._back_to(ClusterScreen)
            self.push_screen(kind())

    def do_go_cluster(self) -> None:
        self._back_to(ClusterScreen)

    def do_go_jobs(self) -> None:
        self._open_list(JobsScreen)

    def do_go_sweeps(self) -> None:
        self._open_list(SweepsScreen)

    def do_go_events(self) -> None:
        self._open_list(EventsScreen)

    def open_job(self, job_id: str) -> None:
        """Open a job's screen over the one that is shown."""
        if isinstance(self.top, JobScreen):
            self.pop_screen()
        self.push_screen(JobScreen(job_id))

    def open_sweep(self, sweep_id: str) -> None:
        """Open a sweep's screen, over the list of them where that is open."""
        from console.tui.screens.sweep import SweepScreen  # not before it is asked for

        if isinstance(self.top, SweepScreen):
            self.pop_screen()
        self.push_screen(SweepScreen(sweep_id))

    def open_node(self, name: str) -> None:
        self._back_to(ClusterScreen)
        cast(ClusterScreen, self.screen).select_node(name)

    def compare(self, job_ids: Sequence[str]) -> None:
        """Open the metrics of some jobs in one chart."""
        from console.tui.screens.compare import CompareScreen  # not before it is asked for

        self.push_screen(CompareScreen(job_ids))

    def write_job(self) -> None:
        """Open the dialog in which a job is written and submitted."""
        from console.tui.screens.submit import Submit  # not before it is asked for

        self.push_screen(Submit(), self._submitted)

    def _submitted(self, job_id: str | None) -> None:
        if job_id:
            self.open_job(job_id)

    def do_app_back(self) -> None:
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def do_app_goto(self) -> None:
        names = [screen.NAME for _, screen in self.SCREEN_KEYS]
        self.push_screen(Goto(self.world, names), self._gone)

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
            case "node":
                self.open_node(place.name)

    def do_app_help(self) -> None:
        scopes = self.top.scopes() if self.top else ("app",)
        lines = help_lines(scopes, self.keymap, read_only=self.read_only)
        self.page("help", lambda width: lines)

    def do_app_palette(self) -> None:
        self.action_command_palette()

    def do_app_theme(self) -> None:
        self.search_themes()

    def do_app_quit(self) -> None:
        self.exit()

    def page(self, title: str, build: Callable[[int], Sequence[Line]]) -> None:
        """Lay a page of text over the screen."""
        self.push_screen(Page(title, build))

    def tell(
        self, text: str, *, severity: Literal["information", "warning", "error"] = "information"
    ) -> None:
        """A short note in the corner."""
        self.notify(text, severity=severity, timeout=6 if severity == "error" else 3, markup=False)

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
                self.page("no clipboard here: mark it with the mouse", lambda width: lines)
