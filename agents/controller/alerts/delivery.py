"""Delivering notes, by Apprise: at least once, from the registry.

A note is marked as sent after the channel has taken it, so one that was on its way when the controller
was killed goes again. Channels that refuse are tried again, each by itself.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence

from agents.controller.stores.database import Database
from agents.loops import loop, woken
from jobs.alerts.rules import Channel, Rules
from jobs.base.words import counted
from jobs.store import alertwriting
from jobs.store.alerttables import AlertNoteRow
from jobs.wire.alertviews import ChannelTest

log = logging.getLogger(__name__)

TICK = 0.5
RETRY_AFTER, RETRY_AT_LEAST_EVERY = 2.0, 300.0
"""Seconds to wait after a channel refused: the first time, and after many."""
_LINES = 20
"""Lines of a message; the rest is counted."""


class Delivery:
    """Args:
    rules: the rules that hold now.
    tell: says what is wrong with a source; "" that nothing is.
    """

    def __init__(
        self,
        database: Database,
        rules: Callable[[], Rules],
        tell: Callable[[str, str], None],
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._db, self._rules, self._tell = database, rules, tell
        self._now, self._monotonic = now, monotonic
        self._wake = asyncio.Event()
        self._ready = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}  # by channel, monotonic
        self._patience: dict[str, float] = {}

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Deliver, for ever."""
        try:
            await loop("alerts", self._look, lambda: woken(self._wake, TICK))
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _look(self) -> None:
        self._wake.clear()
        channels = self._rules().channels
        if not channels:
            return
        if not self._ready:  # the first alert should not wait for the library
            await asyncio.to_thread(importlib.import_module, "apprise")
            self._ready = True
        unsent = await self._db.read(alertwriting.unsent)
        for name, notes in unsent.items():
            task = self._tasks.get(name)
            if name not in channels or (task is not None and not task.done()):
                continue
            if self._monotonic() >= self._not_before.get(name, 0.0):
                work = self._send(name, channels[name], notes)
                self._tasks[name] = asyncio.create_task(work, name=f"alerts-{name}")

    async def _send(self, name: str, channel: Channel, notes: Sequence[AlertNoteRow]) -> None:
        title, body = message(notes)
        taken = await asyncio.to_thread(send, channel, title, body, notes[-1].severity)
        if not taken:
            wait = self._patience.get(name, RETRY_AFTER)
            self._patience[name] = min(2 * wait, RETRY_AT_LEAST_EVERY)
            self._not_before[name] = self._monotonic() + wait
            self._tell(f"alerts to {name}", f"{counted(len(notes), 'note')} could not be delivered")
            return
        self._patience.pop(name, None)
        self._not_before[name] = self._monotonic() + channel.every
        last, now = max(note.id or 0 for note in notes), self._now()
        await self._db.write(lambda session: alertwriting.sent(session, name, last, now))
        self._tell(f"alerts to {name}", "")

    async def test(self, channels: Mapping[str, Channel]) -> list[ChannelTest]:
        """Send a message to each channel now."""
        found: list[ChannelTest] = []
        for name, channel in channels.items():
            title, body = "quarterdeck: a test", f"Alerts reach this channel ({name})."
            taken = await asyncio.to_thread(send, channel, title, body, "info")
            found.append({"channel": name, "delivered": taken})
        return found


def message(notes: Sequence[AlertNoteRow]) -> tuple[str, str]:
    """Title and text of one message about many notes."""
    lines = [note.text for note in notes[:_LINES]]
    if len(notes) > _LINES:
        lines.append(f"and {len(notes) - _LINES} more; `qd alerts` lists them")
    title = notes[0].text if len(notes) == 1 else f"{len(notes)} notes"
    return f"quarterdeck: {title}"[:200], "\n".join(lines)


def send(channel: Channel, title: str, body: str, severity: str) -> bool:
    """Hand a message to a channel; whether it took it. Runs on a thread, and never raises."""
    import apprise  # some 20 MB, for those who have channels

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it names hosts and users
    kinds = {
        "error": apprise.NotifyType.FAILURE,
        "warning": apprise.NotifyType.WARNING,
        "info": apprise.NotifyType.INFO,
    }
    try:
        target = apprise.Apprise()
        if not target.add(channel.url.get_secret_value()):
            return False
        return bool(target.notify(body=body, title=title, notify_type=kinds[severity]))
    except Exception as error:
        log.warning("a channel failed: %s", type(error).__name__)  # its words may hold the URL
        return False
