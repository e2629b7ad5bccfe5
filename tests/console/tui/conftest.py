from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same terminal and time zone for everyone, and no thread left behind."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    deadline = time.monotonic() + 2
    while (left := _ours()) and time.monotonic() < deadline:
        time.sleep(0.01)
    monkeypatch.undo()
    time.tzset()
    assert not left, f"threads left behind: {left}"


def _ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("qd-")]
