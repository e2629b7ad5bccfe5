"""The engine of alerts: sees conditions and events, decides (`jobs.alerts.course`), writes notes.

What a look comes to, the notes about it, and up to which event it went are written in one transaction: a
controller that is killed looks again from there, and no event is passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlmodel import Session

from agents.controller.alerts.delivery import Delivery
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from agents.loops import loop, woken
from jobs.alerts.course import Alert, Sight, covers, see, step
from jobs.alerts.rules import Rule, Rules, load_rules
from jobs.base.errors import NotFound, QuarterdeckError
from jobs.store import alertwriting, audit, reading
from jobs.store.alerttables import AlertNoteRow, SilenceRow
from jobs.store.writing import Caller
from jobs.wire.alertviews import AlertView, ChannelTest, SilenceView
from jobs.wire.views import EventView

log = logging.getLogger(__name__)

TICK = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A condition that holds: which, of what, in words, and on which node."""

    condition: str
    subject: str
    text: str
    node: str = ""


class Alerts:
    """Args:
    file: the rules of people, if there is such a file.
    conditions: what holds at a time by the clock that never jumps, and in unix time.
    tell: says what is wrong with a source; "" that nothing is.
    """

    def __init__(
        self,
        database: Database,
        hub: Hub,
        file: Path,
        conditions: Callable[[float, float], Sequence[Seen]],
        tell: Callable[[str, str], None],
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._db, self._hub, self._file = database, hub, file
        self._conditions, self._tell = conditions, tell
        self._now, self._monotonic = now, monotonic
        self._rules, self._stamp = Rules(), (0, 0)
        self._alerts: dict[tuple[str, str], Alert] = {}
        self._silences: list[SilenceRow] = []
        self._event = 0
        self._subscription = hub.subscribe(["events"], hints_only=True)
        self.delivery = Delivery(database, lambda: self._rules, tell, now=now, monotonic=monotonic)

    async def load(self) -> None:
        def read(session: Session) -> tuple[list[Alert], int, list[SilenceRow]]:
            known = alertwriting.load(session)
            silences = alertwriting.silences(session, self._now())
            return known, alertwriting.seen_event(session), silences

        alerts, self._event, self._silences = await self._db.read(read)
        self._alerts = {alert.key: alert for alert in alerts}
        self._read_rules()

    async def run(self) -> None:
        """Look, for ever."""
        await loop("alerts", self._turn, self._rest)

    async def _turn(self) -> None:
        self._read_rules()
        await self._look()

    async def _rest(self) -> None:
        if await woken(self._subscription.wake, TICK):
            self._subscription.wake.clear()
            await asyncio.sleep(0.1)  # what comes in a storm is looked at together

    def _read_rules(self) -> None:
        """Read the file when it has changed; while it is wrong, the rules from before hold."""
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_size)
        except OSError:
            stamp = (0, 0)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._rules = load_rules(self._file) if stamp != (0, 0) else Rules()
            self._tell("alerts", "")
        except QuarterdeckError as error:
            self._tell("alerts", error.message)

    async def _look(self) -> None:
        rules, now = self._rules.every(), self._now()
        after = self._event
        events = await self._db.read(lambda s: reading.events(s, after, alertwriting.AT_ONCE))
        alerts = dict(self._alerts)
        there = self._see(alerts, now)
        for event in events:
            self._hear(alerts, event, now)
        changed, gone, notes = [], [], []
        firing = {(a.rule, a.node) for a in alerts.values() if a.state == "FIRING" and a.node}
        for key, alert in list(alerts.items()):
            rule = rules.get(alert.rule)
            if rule is None:  # it was taken away
                gone.append(alerts.pop(key))
                continue
            hidden = self._silenced(alert, now) or any(
                (other, alert.node) in firing for other in rule.hidden_by
            )
            new, told = step(rule, alert, now, there=key in there, hidden=hidden)
            if told is not None and new is not None:
                notes += self._notes(new, told, now)
            if new is None or new.state == "RESOLVED":
                alerts.pop(key)
                if new is None:
                    gone.append(alert)
                else:
                    changed.append(new)
                continue
            alerts[key] = new
            known = self._alerts.get(key)
            if known is None or _worth(known) != _worth(new):
                changed.append(new)
        event_seen = events[-1]["id"] if events else after
        if changed or gone or notes or event_seen != after:
            every = self._rules

            def write(session: Session) -> None:
                alertwriting.save(session, every, changed, gone, notes, event_seen, now)

            await self._db.write(write)
        self._alerts, self._event = alerts, event_seen
        if notes:
            self.delivery.wake()
        if changed or gone:
            self._hub.publish("alerts", "alerts", now, keep=False)

    def _see(self, alerts: dict[tuple[str, str], Alert], now: float) -> set[tuple[str, str]]:
        """Take in the conditions that hold; the keys of their alerts."""
        found: set[tuple[str, str]] = set()
        for seen in self._conditions(self._monotonic(), now):
            for name, rule in self._rules.every().items():
                if rule.when == seen.condition:
                    sight = Sight(name, seen.subject, seen.text, seen.node)
                    key = name, seen.subject
                    alerts[key] = see(rule, alerts.get(key), sight, now, event=False)
                    found.add(key)
        return found

    def _hear(self, alerts: dict[tuple[str, str], Alert], event: EventView, now: float) -> None:
        """Take in an event: it raises alerts, and ends others."""
        subject = event["job"] or event["node"] or event["message"].split(" ", 1)[0]
        if event["kind"].startswith("schedule."):
            subject = " ".join(event["message"].split(" ", 2)[:2])
        for name, rule in self._rules.every().items():
            key = name, subject
            if event["kind"] in rule.event:
                sight = Sight(name, subject, event["message"], event["node"] or "")
                alerts[key] = see(rule, alerts.get(key), sight, now, event=True)
            elif event["kind"] in rule.until and key in alerts:
                alerts[key] = see(
                    rule, alerts[key], Sight(name, subject, alerts[key].text), now, event=True
                )
                alerts[key] = _ending(alerts[key], now)

    def _silenced(self, alert: Alert, now: float) -> bool:
        return any(
            row.until > now and covers(row.rule, row.subject, alert.rule, alert.subject)
            for row in self._silences
        )

    def _notes(self, alert: Alert, told: str, now: float) -> list[AlertNoteRow]:
        word = {"firing": "FIRING", "resolved": "RESOLVED", "repeat": "STILL FIRING"}[told]
        severity = "info" if told == "resolved" else self._rules.every()[alert.rule].severity
        text = f"{word} {alert.rule}, {alert.subject}: {alert.text}"
        return [
            AlertNoteRow(channel=channel, text=text, severity=severity, at=now)
            for channel in self._rules.to(alert.rule)
        ]

    # -- what people ask ----------------------------------------------------------------------------

    async def ack(self, rule: str, subject: str, reason: str, who: Caller) -> AlertView:
        """Somebody looks after it: it is not repeated. Raises NotFound."""
        now = self._now()

        def write(session: Session) -> AlertView:
            row = alertwriting.get(session, rule, subject)
            row.acked_by, row.acked_why = who.user, reason
            session.add(row)
            _record(session, who, "alert.ack", f"{rule} {subject}", now, {"reason": reason})
            return alertwriting.view(row, alertwriting.silences(session, now))

        view = await self._db.write(write)
        alert = self._alerts.get((rule, subject))
        if alert is not None:
            self._alerts[alert.key] = replace(alert, acked_by=who.user, acked_why=reason)
        return view

    async def silence(
        self, rule: str, subject: str, seconds: float, reason: str, who: Caller
    ) -> SilenceView:
        """Tell nobody of alerts that match, until then."""
        now = self._now()
        row = SilenceRow(
            rule=rule,
            subject=subject,
            until=now + seconds,
            user=who.user,
            reason=reason,
            made_at=now,
        )

        def write(session: Session) -> tuple[SilenceView, list[SilenceRow]]:
            session.add(row)
            session.flush()
            _record(session, who, "alert.silence", f"{rule} {subject}", now, {"reason": reason})
            return alertwriting.silence_view(row), alertwriting.silences(session, now)

        view, self._silences = await self._db.write(write)
        return view

    def channels(self) -> tuple[str, ...]:
        """The channels that there are now."""
        self._read_rules()
        return tuple(self._rules.channels)

    def rules(self) -> dict[str, Rule]:
        """The rules that hold now, by name."""
        self._read_rules()
        return self._rules.every()

    async def test(self, channel: str | None) -> list[ChannelTest]:
        """Send a message to one channel, or to all. Raises NotFound."""
        channels = self._rules.channels
        if channel is not None and channel not in channels:
            known = ", ".join(channels) or "none yet"
            raise NotFound(f"there is no channel '{channel}'", f"Channels: {known}.")
        return await self.delivery.test(
            channels if channel is None else {channel: channels[channel]}
        )


def _worth(alert: Alert) -> tuple[object, ...]:
    """What of an alert is worth writing down: not each second in which it was seen."""
    return alert.state, alert.text, alert.until, alert.told, alert.acked_by, alert.acked_why


def _ending(alert: Alert, now: float) -> Alert:
    return replace(alert, until=now)


def _record(
    session: Session, who: Caller, action: str, target: str, now: float, data: Mapping[str, str]
) -> None:
    audit.append(
        session, at=now, user=who.user, uid=who.uid, action=action, target=target, data=data
    )
