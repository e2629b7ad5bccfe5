"""Events: what is wrong now above, what happened below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.widget import Widget

from console.tui.actions import bindings
from console.tui.core.base.filter import Filter
from console.tui.core.base.world import World
from console.tui.core.cluster import happenings
from console.tui.core.cluster.happenings import Alert, Folded
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.screens.lists import Sifted
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.wire.views import EventView

PAGE = 500
"""Events that are asked for at once."""

PAGES = 40
"""Pages that one look goes back at most, where few of their events match."""


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
        self._events: dict[str, Folded] = {}
        self._older: list[EventView] = []  # oldest first, of `_asked`
        self._asked = ("", "")  # the filter and the level that they were looked for with
        self._more = True  # whether older ones may be recorded
        self._folds = True
        self._made_of: tuple[object, ...] = ()  # what `_events` is made from
        self._counts = 0, 0  # events that match, and that are known

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
        self.set_title("alerts", f"Wrong now {len(self._alerts)}" if known else "Wrong now")
        if self._asked != self._wanted:
            self._asked, self._older, self._more = self._wanted, [], True
        made_of = (world.events, self._older, self._filter, self._level, self._order, self._folds)
        if made_of != self._made_of:
            self._made_of = made_of
            self._sift(world)
        self.rows.set_keys(list(self._events), self._nothing(world))
        self._title()

    # Older events: the watch has the newest ones only.

    @property
    def _wanted(self) -> tuple[str, str]:
        """The filter and the level that older events are looked for with."""
        return self._filter.text, self._level

    @on(Rows.Moved, "#happenings")
    def _moved(self, message: Rows.Moved) -> None:
        if message.key == next(reversed(self._events), None):
            self._look_back()

    def _look_back(self) -> None:
        """Read older events that match, until there is a page of them or no more."""
        known = self._older or list(self.deck.world.events)
        if not self._more or not known:
            return
        wanted, sifted, source = self._wanted, self._filter, self.deck.source
        text, level, before = happenings.needle(sifted.text), self._level, known[0]["id"]

        def read() -> tuple[tuple[str, str], list[EventView], bool]:
            found: list[EventView] = []
            at = before
            for _ in range(PAGES):
                page = source.events(at, PAGE, text, level)
                found = [*(one for one in page if sifted.matches(one)), *found]
                if len(page) < PAGE or page[0]["id"] >= at:
                    return wanted, found, False
                at = page[0]["id"]
                if len(found) >= PAGE // 2:
                    break
            return wanted, found, True

        self.deck.fetch("older", read)

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        if error is not None:
            self.deck.tell(f"Older events: {error.message}.", severity="error")
        elif value[0] == self._wanted:
            _, found, self._more = value
            held = {one["id"] for one in self._older}
            self._older = [*(one for one in found if one["id"] not in held), *self._older]
            self.show(self.deck.world)

    def do_events_fold(self) -> None:
        self._folds = not self._folds
        self.show(self.deck.world)

    @on(Prompt.Closed)
    def _search_closed(self, message: Prompt.Closed) -> None:
        """What was typed is looked for in all that is recorded."""
        if message.kept and self._filter.text:
            self._look_back()

    def _sift(self, world: World) -> None:
        """What there is of events, after the filter, in their order, with those that repeat folded."""
        first = world.events[0]["id"] if world.events else 0
        held = [*(one for one in self._older if one["id"] < first), *world.events]
        picked = happenings.chosen(held, self._filter, self._level, self._order)
        folds = self._folds and not self._order.column
        shown = happenings.fold(picked, world.jobs) if folds else list(map(Folded, picked))
        self._events = {str(one.event["id"]): one for one in shown}
        self._counts = len(picked), len(held)

    def _title(self) -> None:
        shown, known = self._counts
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
        if not self._more:
            parts.append("that is all")
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
        return happenings.folded_row(self._events[key], now, width, self.deck.glyphs)

    # What a person does.

    def do_events_level(self) -> None:
        at = happenings.LEVELS.index(self._level)
        self._level = happenings.LEVELS[(at + 1) % len(happenings.LEVELS)]
        self.show(self.deck.world)
        if self._level != happenings.LEVELS[0]:
            self._look_back()

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
        event = self._events[message.key].event
        if event["job"]:
            self.deck.open_job(event["job"])
        elif event["node"]:
            self.deck.open_node(event["node"])

    def do_id_copy(self) -> None:
        """What the event is about; of several that are marked, their lines."""
        rows = self.rows
        chosen = [self._events[key].event for key in rows.chosen]
        if len(chosen) > 1:
            self.deck.copy("\n".join(f"{one['at']} {one['message']}" for one in chosen))
        elif chosen:
            one = chosen[0]
            self.deck.copy(one["job"] or one["node"] or one["message"])
