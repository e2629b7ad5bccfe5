"""What watchers are told: all of it in order, or that they must begin anew."""

from __future__ import annotations

import pytest

from agents.controller.stores import hub as module
from agents.controller.stores.hub import Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr(module, "_RING", 4)
    monkeypatch.setattr(module, "_QUEUE", 3)
    return Hub()


def keys(hub: Hub, since: int, boot: str | None = None) -> list[str] | None:
    deltas = hub.replay(since, hub.boot if boot is None else boot)
    return None if deltas is None else [delta["key"] for delta in deltas]


def test_replay_gives_what_came_since(hub: Hub) -> None:
    assert keys(hub, 0) == []
    for number in range(1, 4):
        hub.publish("jobs", f"j{number}", {})
    hub.remove("jobs", "j1")
    assert keys(hub, 0) == ["j1", "j2", "j3", "j1"]
    assert keys(hub, 2) == ["j3", "j1"]
    assert keys(hub, hub.revision) == []


def test_who_was_away_for_too_long_begins_anew(hub: Hub) -> None:
    for number in range(1, 7):
        hub.publish("jobs", f"j{number}", {})
    assert keys(hub, 2) == ["j3", "j4", "j5", "j6"]
    assert keys(hub, 1) is None


def test_another_controllers_revisions_mean_nothing(hub: Hub) -> None:
    hub.publish("jobs", "j1", {})
    assert keys(hub, 0, "other") is None
    assert keys(hub, hub.revision + 1) is None


def test_what_is_not_kept_is_told_but_not_replayed(hub: Hub) -> None:
    subscription = hub.subscribe(["nodes"])
    hub.publish("nodes", "n1", {}, keep=False)
    assert subscription.queue.get_nowait()["key"] == "n1"
    assert keys(hub, 0) == []


def test_watchers_get_their_topics_only(hub: Hub) -> None:
    subscription = hub.subscribe(["jobs", "job:j1"])
    hub.publish("events", "1", {})
    hub.touch("job:j2")
    assert subscription.queue.empty()
    assert not subscription.wake.is_set()
    hub.publish("jobs", "j1", {})
    hub.touch("job:j1")
    assert subscription.queue.get_nowait()["key"] == "j1"
    assert subscription.dirty == {"job:j1"}
    hub.unsubscribe(subscription)
    hub.publish("jobs", "j2", {})
    assert subscription.queue.empty()


def test_a_slow_watcher_overflows_and_costs_no_more(hub: Hub) -> None:
    slow, waiting = hub.subscribe(["jobs"]), hub.subscribe(["jobs"], hints_only=True)
    for number in range(9):
        hub.publish("jobs", f"j{number}", {})
    assert slow.overflowed
    assert slow.queue.qsize() == 3
    assert waiting.wake.is_set()
    assert waiting.queue.empty()
