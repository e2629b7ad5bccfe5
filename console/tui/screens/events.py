"""Events: what is wrong now above, what happened below."""

from __future__ import annotations

from collections.abc import Iterable

from textual import on
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core import happenings
from console.tui.core.filter import Filter
from console.tui.core.happenings import Alert
from console.tui.core.lines import BLANK, Line, line
from console.tui.core.world import World
from console.tui.screens.lists import Sifted
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows
from jobs.views import EventView


class Happenings(Rows):
    PANE = "happenings"
    BINDINGS = bindings("happenings")


class EventsScreen(Sifted):
    NAME = "Events"
    SCOPE = "events_screen"
    ORDER = "events"
    TOPICS = ("nodes",)
    PANES = ("alerts", "happenings")
    BINDINGS = bindings("events_screen")
    AUTO_FOCUS = "#happenings"

    def __init__(self) -> None:
        super().__init__()
        self._level = happenings.LEVELS[0]
        self._alerts: dict[str, Alert] = {}
        self._events: dict[str, EventView] = {}

    def body(self) -> Iterable[Widget]:
        yield Rows(self._alert_row, id="alerts")
        yield Happenings(self._event_row, id="happenings")
        yield Prompt("/", "job:j12 node:n3 level:error !placed text", id="filter")

    @property
    def rows(self) -> Rows:
        return self.query_one(Happenings)

    def parse(self, text: str) -> Filter[EventView]:
        return happenings.event_filter(text)

    def sortable(self) -> tuple[str, ...]:
        return happenings.SORTABLE

    def show(self, world: World) -> None:
        now = self.deck.clock.wall()
        known = "nodes" in world.ready
        self._alerts = {alert.key: alert for alert in happenings.alerts(world, now)}
        none = "Nothing is wrong." if known else world.link.error or "connecting"
        alerts = self.query_one("#alerts", Rows)
        alerts.set_keys(list(self._alerts), [line((f" {none}", "ok" if known else "dim"))])
        alerts.styles.height = min(max(len(self._alerts), 1), max(3, self.size.height // 3)) + 1
        self.set_title("alerts", f"Alerts {len(self._alerts)}" if known else "Alerts")
        picked = happenings.chosen(world.events, self._filter, self._level, self._order)
        self._events = {str(event["id"]): event for event in picked}
        self.rows.set_keys(list(self._events), self._nothing(world))
        self._title(len(picked), len(world.events))

    def _title(self, shown: int, known: int) -> None:
        parts = [f"Events {known}" if shown == known else f"Events {shown} of {known}"]
        if self._level != happenings.LEVELS[0]:
            parts.append(f"{self._level} and worse")
        parts += self._order.words
        if marked := len(self.rows.marked):
            parts.append(f"{marked} marked")
        if self._filter.text:
            parts.append(f"/{self._filter.text}")
        if self._filter.problem:
            parts.append(self._filter.problem)
        self.set_title("happenings", f" {self.deck.glyphs.dot} ".join(parts))

    def _nothing(self, world: World) -> list[Line]:
        if "events" not in world.ready:
            return [line((f" {world.link.error or 'connecting'}", "dim"))]
        if world.events:
            return [line((" No event matches. ", "dim"), ("esc", "key"), (" clears.", "dim"))]
        return [
            line((" Jobs, nodes and people leave their traces here.", "dim")),
            BLANK,
            line("   ", ("qd events -f", "key"), ("   the same in a pipe", "dim")),
        ]

    def _alert_row(self, key: str, width: int) -> Line:
        return happenings.alert_line(self._alerts[key], width, self.deck.glyphs)

    def _event_row(self, key: str, width: int) -> Line:
        now = self.deck.clock.wall()
        return happenings.event_row(self._events[key], now, width, self.deck.glyphs)

    # What a person does.

    def do_events_level(self) -> None:
        at = happenings.LEVELS.index(self._level)
        self._level = happenings.LEVELS[(at + 1) % len(happenings.LEVELS)]
        self.show(self.deck.world)

    @on(Rows.Marks)
    def _marks_changed(self) -> None:
        self.show(self.deck.world)

    @on(Rows.Opened, "#alerts")
    def _alert_opened(self, message: Rows.Opened) -> None:
        alert = self._alerts[message.key]
        if alert.kind == "job":
            self.deck.open_job(alert.name)
        else:
            self.deck.open_node(alert.name)

    @on(Rows.Opened, "#happenings")
    def _event_opened(self, message: Rows.Opened) -> None:
        event = self._events[message.key]
        if event["job"]:
            self.deck.open_job(event["job"])
        elif event["node"]:
            self.deck.open_node(event["node"])

    def do_id_copy(self) -> None:
        """What the event is about; of several that are marked, their lines."""
        rows = self.rows
        chosen = [self._events[key] for key in rows.chosen]
        if len(chosen) > 1:
            self.deck.copy("\n".join(f"{one['at']} {one['message']}" for one in chosen))
        elif chosen:
            one = chosen[0]
            self.deck.copy(one["job"] or one["node"] or one["message"])
