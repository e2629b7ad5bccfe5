"""Deployments: every service, which versions answer, and how a rollout goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual import on

from console.tui.actions import bindings
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.base.filter import Filter
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.services import commands
from console.tui.core.services import list as services
from console.tui.core.services.detail import detail_lines
from console.tui.core.services.monitor import Watched, last_look
from console.tui.screens.polled import PolledList
from console.tui.source import Source
from console.tui.widgets.rows import Rows
from jobs.base.errors import Conflict, NotFound, QuarterdeckError
from jobs.wire.serviceviews import DeploymentView


class DeploymentTable(Rows):
    PANE = "deployments"
    BINDINGS = bindings("deployments")


class DeploymentsScreen(PolledList[DeploymentView]):
    """The watch tells of a deployment when something is decided; what the front counts is asked for."""

    NAME = "Deployments"
    SCOPE = "deployments"
    TOPIC = "deployments"
    ORDER = "deployments"
    TABLE = DeploymentTable
    COLUMNS = services.COLUMNS
    EXAMPLE = "name:digits target:production state:stepping errors>0 text"
    EVERY = 2.0
    BINDINGS = bindings("deployments")

    def parse(self, text: str) -> Filter[DeploymentView]:
        return services.deployment_filter(text)

    def call(self) -> Callable[[], list[DeploymentView]]:
        return self.deck.source.deployments

    def key_of(self, row: DeploymentView) -> str:
        return services.key_of(row)

    def keys(self) -> list[str]:
        return services.rows(self._known, self._filter, self._order)

    def summary(self) -> Line:
        return services.totals(self._known)

    def lesson(self) -> list[Line]:
        return [
            line(
                (" A deployment answers requests: a version of a model, or any program that", "dim")
            ),
            line(
                (" listens on $PORT. A new version gets its share of requests step by step.", "dim")
            ),
            BLANK,
            line(
                "   ", ("qd deploy NAME:1", "key"), ("        serves a version of a model", "dim")
            ),
            line("   ", ("qd deploy service.yaml", "key"), ("  serves a program", "dim")),
        ]

    # What a person does.

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        """Its monitor and keys are read first; what is known is shown also where they cannot be."""
        view, source = self._known[message.key], self.deck.source
        self.deck.fetch(f"detail {message.key}", lambda: (view, _watched(source, view)))

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        what, _, ref = key.partition(" ")
        if what != "detail":
            super().fetched(key, value, error)
        elif error is None:
            view, watched = value
            glyphs, now = self.deck.glyphs, self.deck.clock.wall()
            self.deck.page(
                f"deployment {ref}", lambda width: detail_lines(view, watched, now, width, glyphs)
            )

    def _steer(self, how: Callable[[DeploymentView], Command | Refusal]) -> None:
        view = self._known.get(self.rows.cursor_key or "")
        self.propose(Refusal("There is no deployment here.") if view is None else how(view))

    def do_rollout_promote(self) -> None:
        self._steer(commands.promote)

    def do_rollout_pause(self) -> None:
        self._steer(commands.pause)

    def do_rollout_abort(self) -> None:
        self._steer(commands.abort)

    def do_rollout_back(self) -> None:
        self._steer(commands.rollback)


def _watched(source: Source, view: DeploymentView) -> Watched:
    """In a thread: what its monitor found, and its keys."""
    name, target = view["name"], view["target"]
    try:
        keys = source.service_keys(name, target) if view["keyed"] else []
        try:
            monitor = source.monitor(name, target)
        except (Conflict, NotFound):  # nothing serves there
            return Watched(keys=keys)
        last = last_look(monitor)
        run = source.monitor_run(last["id"]) if last is not None else None
        return Watched(monitor, run, keys)
    except QuarterdeckError as error:
        return Watched(problem=error.message)
