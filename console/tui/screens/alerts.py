"""Alerts: what needs a person, who looks after it, and what is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from textual import on

from console.tui.actions import bindings
from console.tui.core.alerts import list as alerts
from console.tui.core.alerts.commands import acknowledge, silence
from console.tui.core.alerts.detail import detail_lines
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.base.filter import Filter
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.screens.polled import PolledList
from console.tui.screens.sweepask import Ask
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.wire.alertviews import AlertView


class AlertTable(Rows):
    PANE = "alerts"
    BINDINGS = bindings("alerts")


class AlertsScreen(PolledList[AlertView]):
    NAME = "Alerts"
    SCOPE = "alerts"
    TOPIC = "alerts"
    ORDER = "alerts"
    TABLE = AlertTable
    COLUMNS = alerts.COLUMNS
    EXAMPLE = "state:firing severity:error rule:job_stalled about:j12 !acked text"
    EVERY = 2.0
    BINDINGS = bindings("alerts")

    def parse(self, text: str) -> Filter[AlertView]:
        return alerts.alert_filter(text)

    def call(self) -> Callable[[], list[AlertView]]:
        return self.deck.source.alerts

    def key_of(self, row: AlertView) -> str:
        return alerts.key_of(row)

    def keys(self) -> list[str]:
        return alerts.rows(self._known, self._filter, self._order)

    def summary(self) -> Line:
        return alerts.totals(self._known)

    def lesson(self) -> list[Line]:
        return [
            line((" Nothing is wrong, and nothing was.", "ok")),
            line((" Rules watch nodes, jobs, sweeps, pipelines, the queue and the disk; what they", "dim")),
            line((" find stands here until it is over, and is sent to the channels that you name.", "dim")),
            BLANK,
            line("   ", ("qd alert test", "key"), ("   tries the channels of alerts.yaml", "dim")),
        ]  # fmt: skip

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        super().fetched(key, value, error)
        if error is None:
            self.deck.count_alerts(value)  # the header says the same

    # What a person does.

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        """Go to what it is about; where there is no such place, show all that is known."""
        about = alerts.about(self._known[message.key])
        deck = self.deck
        match about.kind if about else None, about.name if about else "":
            case "job", name:
                deck.open_job(name)
            case "sweep", name:
                deck.open_sweep(name)
            case "pipeline", name:
                deck.open_pipeline(name)
            case "node", name:
                deck.open_node(name)
            case "screen", name:
                deck.open_place(name)
            case _:
                self._describe(message.key)

    def do_row_describe(self) -> None:
        if (key := self.rows.cursor_key) is not None:
            self._describe(key)

    def _describe(self, key: str) -> None:
        alert, glyphs, now = self._known[key], self.deck.glyphs, self.deck.clock.wall()
        self.deck.page("alert", lambda width: detail_lines(alert, now, width, glyphs))

    def do_alert_ack(self) -> None:
        self._typed_of("acknowledge", "what is done about it, or nothing", "", acknowledge)

    def do_alert_silence(self) -> None:
        self._typed_of("silence", "for how long, and why: 1h the rack is moved", "1h ", silence)

    def _typed_of(
        self,
        title: str,
        hint: str,
        begin: str,
        how: Callable[[Sequence[AlertView], str], Command | Refusal],
    ) -> None:
        """A line to type, and then the question. What was picked is what was seen."""
        picked = self.picked()
        # Without a reason a silence is refused, but not before anything was typed.
        if isinstance(refused := how(picked, "1h ?"), Refusal):
            self.propose(refused)
            return

        def answered(command: Command | None) -> None:
            self.propose(command)

        ask = Ask(title, begin, lambda typed: how(picked, typed), hint=hint, ends="enter goes on")
        self.deck.push_screen(ask, answered)
