"""What the console knows: watch deltas folded into immutable snapshots.

One `Fold` belongs to one stream. It keeps what it holds when the stream is cut, and takes a new full
state in one step (at `ready`), so that a reconnection never shows a half-filled screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

from console.tui.core.base.link import CONNECTING, Link
from jobs.wire.flowviews import PipelineView
from jobs.wire.sweepviews import SweepView
from jobs.wire.views import Delta, EventView, JobDetail, JobView, NodeView

EVENTS_KEPT = 1000
"""Events are a pane to glance at; `qd events` has them all."""

Table = Mapping[str, Any]
NOTHING: Table = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class World:
    """One immutable picture of the cluster, as far as it is watched.

    `ready` names the topics whose full state has been received at least once: an empty table of a
    topic that is not in it means "not known yet", not "none". `refused` says why a topic will not be
    told (there is no such job, or no permission).
    """

    jobs: Mapping[str, JobView] = field(default_factory=dict)
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    events: tuple[EventView, ...] = ()
    details: Mapping[str, JobDetail] = field(default_factory=dict)
    sweeps: Mapping[str, SweepView] = field(default_factory=dict)
    sweep: Mapping[str, Table] = field(default_factory=dict)  # id -> the sweep and its trials
    pipelines: Mapping[str, PipelineView] = field(default_factory=dict)
    pipeline: Mapping[str, Table] = field(default_factory=dict)  # id -> the run and its steps
    ready: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    link: Link = CONNECTING


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a stream can be taken up again without its full state."""

    rev: int
    boot: str


class Fold:
    """Folds the deltas of one stream. Not thread-safe: the feed that owns it locks."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Any]] = {}
        self._staged: dict[str, dict[str, Any]] = {}
        self._ready: set[str] = set()
        self._rev = 0  # all changes up to it are held; some beyond it may be, which does no harm
        self._reset_rev: int | None = None
        self._boot = ""
        self._frozen: dict[str, Table] = {}  # topic -> snapshot, dropped when the topic changes

    def apply(self, delta: Delta) -> bool:
        """Take one delta; True when something that is shown changed."""
        topic = delta.get("topic", "")
        if "boot" in delta:
            self._boot = delta["boot"]
        changed = False
        match delta["op"]:
            case "reset":
                self._staged[topic] = {}
                first = self._reset_rev is None
                self._reset_rev = delta["rev"] if first else min(self._reset_rev or 0, delta["rev"])
            case "put":
                table = self._staged.get(topic)
                changed = table is None
                if table is None:
                    table = self._touch(topic)
                table[delta["key"]] = self._whole(topic, delta["key"], delta.get("value"), table)
            case "del":
                table = self._staged.get(topic)
                changed = table is None
                if table is None:
                    table = self._touch(topic)
                table.pop(delta["key"], None)
            case "ready":
                changed = self._adopt(topic)
            case "ping":
                pass
        if not self._staged and delta["op"] in ("put", "del", "ping"):
            self._rev = max(self._rev, delta["rev"])
        if changed and topic == "events":
            self._trim()
        return changed

    def _whole(self, topic: str, key: str, value: Any, table: Mapping[str, Any]) -> Any:
        """A sweep is put with its file once, and without it whenever it changes: what it was put with
        stays, however many changes came before anybody looked."""
        if topic == f"sweep:{key}" and isinstance(value, dict) and key in table:
            return {**table[key], **value}
        return value

    def _touch(self, topic: str) -> dict[str, Any]:
        self._frozen.pop(topic, None)
        return self._tables.setdefault(topic, {})

    def _adopt(self, topic: str) -> bool:
        """A full state is complete: of one topic, or of all when `ready` names none that waits."""
        done = [topic] if topic in self._staged else list(self._staged)
        for name in done:
            self._tables[name] = self._staged.pop(name)
            self._frozen.pop(name, None)
        if done and not self._staged and self._reset_rev is not None:
            # Not the revision of `ready`: changes made while the state was being told still come.
            self._rev, self._reset_rev = self._reset_rev, None
        before = len(self._ready)
        self._ready.update(done)
        if topic:
            self._ready.add(topic)
        return bool(done) or len(self._ready) != before

    def _trim(self) -> None:
        events = self._tables.get("events", {})
        if len(events) > EVENTS_KEPT * 5 // 4:
            for key in sorted(events, key=int)[:-EVENTS_KEPT]:
                del events[key]

    def cut(self) -> None:
        """The stream ended: a full state that was still arriving is dropped, and with it the right
        to resume, because what it held is known only in part."""
        if self._staged:
            self._staged.clear()
            self._reset_rev = None
            self._boot = ""

    @property
    def resume(self) -> Resume | None:
        """Where to go on from, or None when the full state is needed."""
        if not self._boot or not self._ready or self._staged:
            return None
        return Resume(self._rev, self._boot)

    @property
    def ready(self) -> frozenset[str]:
        return frozenset(self._ready)

    def table(self, topic: str) -> Table:
        """An immutable snapshot of one topic; the same object until the topic changes."""
        frozen = self._frozen.get(topic)
        if frozen is None:
            held = self._tables.get(topic)
            frozen = NOTHING if held is None else MappingProxyType(dict(held))
            self._frozen[topic] = frozen
        return frozen


def events_in_order(table: Table) -> tuple[EventView, ...]:
    """The newest `EVENTS_KEPT` events, oldest first."""
    events = cast("list[EventView]", list(table.values()))
    events.sort(key=lambda event: event["id"])
    return tuple(events[-EVENTS_KEPT:])
