"""Deployments: every service, which versions answer, and how a rollout goes."""

from __future__ import annotations

from collections.abc import Callable

from textual import on

from console.tui.actions import bindings
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.base.filter import Filter
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.services import commands
from console.tui.core.services import list as services
from console.tui.core.services.detail import detail_lines
from console.tui.screens.polled import PolledList
from console.tui.widgets.rows import Rows
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
        view, glyphs, now = self._known[message.key], self.deck.glyphs, self.deck.clock.wall()
        self.deck.page(
            f"deployment {message.key}", lambda width: detail_lines(view, now, width, glyphs)
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
