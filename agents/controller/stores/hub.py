"""What changed, told to everyone who watches.

The hub numbers every change with a revision. Changes of jobs and events are kept in a ring, so that a
client which was cut off can go on from the revision it had; one that was away for too long, or speaks
of another controller process (`boot`), gets the whole state again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterable
from typing import Any

from jobs.wire.views import Delta, EventView

_RING = 4_000
"""Changes kept: the lives of some 300 jobs, in about 5 MB. Who missed more takes the state anew."""
_QUEUE = 5_000
"""Deltas that a slow client may be behind before it is told to start over."""


class Subscription:
    """One watcher. `overflowed` means that it fell too far behind and must take the state anew.

    With `hints_only` nothing is queued: the watcher is only woken, and looks for itself.
    """

    def __init__(self, topics: frozenset[str], *, hints_only: bool) -> None:
        self.topics = topics
        self._hints_only = hints_only
        self.queue: asyncio.Queue[Delta] = asyncio.Queue(_QUEUE)
        self.dirty: set[str] = set()  # topics of which only the newest state counts
        self.wake = asyncio.Event()
        self.overflowed = False

    def offer(self, delta: Delta) -> None:
        if self._hints_only:
            self.wake.set()
            return
        if self.overflowed:
            return
        try:
            self.queue.put_nowait(delta)
        except asyncio.QueueFull:
            self.overflowed = True
        self.wake.set()

    def touch(self, topic: str) -> None:
        self.dirty.add(topic)
        self.wake.set()


class Hub:
    def __init__(self) -> None:
        self.boot = secrets.token_hex(4)
        self.revision = 0
        self._ring: deque[Delta] = deque(maxlen=_RING)
        self._subscriptions: set[Subscription] = set()

    def subscribe(self, topics: Iterable[str], *, hints_only: bool = False) -> Subscription:
        subscription = Subscription(frozenset(topics), hints_only=hints_only)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def watched(self, topic: str) -> bool:
        """Whether anybody would be told: for what is not kept, and costs something to make."""
        return any(topic in subscription.topics for subscription in self._subscriptions)

    def publish(self, topic: str, key: str, value: Any, *, keep: bool = True) -> None:
        """Tell watchers of a topic its new value; `keep` makes it replayable."""
        self.revision += 1
        delta: Delta = {
            "rev": self.revision,
            "op": "put",
            "topic": topic,
            "key": key,
            "value": value,
        }
        if keep:
            self._ring.append(delta)
        for subscription in self._subscriptions:
            if topic in subscription.topics:
                subscription.offer(delta)

    def announce(self, events: Iterable[EventView]) -> None:
        """Tell watchers of events that were recorded."""
        for event in events:
            self.publish("events", str(event["id"]), event)

    def remove(self, topic: str, key: str) -> None:
        self.revision += 1
        delta: Delta = {"rev": self.revision, "op": "del", "topic": topic, "key": key}
        self._ring.append(delta)
        for subscription in self._subscriptions:
            if topic in subscription.topics:
                subscription.offer(delta)

    def touch(self, topic: str) -> None:
        """Tell watchers that a topic changed which is sent whole (`job:j1`), at their own pace."""
        for subscription in self._subscriptions:
            if topic in subscription.topics:
                subscription.touch(topic)

    def replay(self, since: int, boot: str) -> list[Delta] | None:
        """All kept deltas after `since`, or None when they are not all here any more."""
        if boot != self.boot or since > self.revision:
            return None
        if self._ring and self._ring[0]["rev"] > since + 1 and len(self._ring) == _RING:
            return None
        return [delta for delta in self._ring if delta["rev"] > since]
