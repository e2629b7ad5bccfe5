"""Feeds, fetches, and the live source over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console.client import Client
from console.tui.core.base.world import Resume
from console.tui.feed import Feed, Fetches
from console.tui.source import LiveSource
from jobs.base.errors import NotFound, QuarterdeckError, Unreachable
from tests.console.fake_controller import FakeController, Reply
from tests.console.tui.fakes import BOOT, FakeClock, FakeSource


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def live(home: Path) -> Any:
    with FakeController(home / "qd" / "run" / "api.sock") as fake:
        yield fake, LiveSource(Client(fake.socket))


def test_a_feed_wakes_once_until_it_is_taken() -> None:
    source, woken = FakeSource(), threading.Semaphore(0)
    feed = Feed(source, ("jobs",), FakeClock(), woken.release)
    feed.start()
    try:
        assert woken.acquire(timeout=2)
        wait_for(lambda: "jobs" in feed.take()[1])
        assert len(feed.take()[0]["jobs"]) == len(source.tables["jobs"])
        while woken.acquire(blocking=False):
            pass
        source.put("jobs", "j1", {"id": "j1"})
        source.put("jobs", "j2", {"id": "j2"})
        assert woken.acquire(timeout=2)
        wait_for(lambda: "j2" in feed.take()[0]["jobs"])
    finally:
        feed.close(2)


def test_a_feed_resumes_after_a_cut_and_after_a_pause() -> None:
    source = FakeSource()
    feed = Feed(source, ("jobs",), FakeClock(), lambda: None)
    feed.start()
    try:
        wait_for(lambda: "jobs" in feed.take()[1])
        source.cut(down=False)
        wait_for(lambda: len(source.watches) == 2)
        feed.stop()
        source.put("jobs", "j1", {"id": "j1"})
        feed.start()
        wait_for(lambda: len(source.watches) == 3)
    finally:
        feed.close(2)
    assert [resume for _, resume in source.watches] == [None, Resume(100, BOOT), Resume(100, BOOT)]


def test_one_fetch_flies_per_key_and_the_newest_question_waits() -> None:
    hold, answers = threading.Event(), []
    fetches = Fetches(lambda key, value, error: answers.append((key, value, error)))

    def slow() -> str:
        hold.wait(2)
        return "first"

    fetches.start("pane", slow)
    fetches.start("pane", lambda: "second")
    fetches.start("pane", lambda: "third")
    assert fetches.busy
    hold.set()
    wait_for(lambda: not fetches.busy)
    assert [value for _, value, _ in answers] == ["first", "third"]


def test_a_failed_fetch_delivers_its_error() -> None:
    answers: list[tuple[str, Any, QuarterdeckError | None]] = []
    fetches = Fetches(lambda *answer: answers.append(answer))

    def fail() -> None:
        raise NotFound("no such job")

    fetches.start("x", fail)
    wait_for(lambda: not fetches.busy)
    key, value, error = answers[0]
    assert (key, value) == ("x", None)
    assert isinstance(error, NotFound)


def test_the_live_source_asks_as_the_api_says(live: Any) -> None:
    controller, source = live
    controller.on("GET /v1/watch", Reply.stream([{"rev": 1, "op": "ping", "topic": ""}]))
    controller.on("GET /v1/jobs/j1/logs/3/raw", Reply(b"abc", headers={"X-Size": "900"}))
    controller.on("GET /v1/history", Reply.of([]))
    controller.on("POST /v1/nodes/n1/undrain", Reply.of({}))
    with_resume = source.watch(("jobs", "events"), Resume(7, "b"))
    assert [delta["op"] for delta in with_resume] == ["ping"]
    assert source.read_log("j1", 2, 3, 10, 100) == (b"abc", 900)
    assert source.cluster_history(3600, 240) == []
    source.act("undrain", "n1")
    asked = {request.path: request for request in controller.requests}
    watch = asked["/v1/watch"]
    assert (watch.one("topics"), watch.one("since"), watch.one("boot")) == ("jobs,events", "7", "b")
    raw = asked["/v1/jobs/j1/logs/3/raw"]
    assert (raw.one("attempt"), raw.one("offset"), raw.one("limit")) == ("2", "10", "100")
    assert asked["/v1/history"].one("metric") == "gpu_util"
    assert "/v1/nodes/n1/undrain" in asked


def test_the_live_source_is_unreachable_without_a_controller(home: Path) -> None:
    source = LiveSource(Client(home / "nothing.sock"))
    with pytest.raises(Unreachable):
        source.watch(("jobs",), None)
