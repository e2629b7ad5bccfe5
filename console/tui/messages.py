"""What the threads tell the app. Handlers of these messages alone touch widgets."""

from __future__ import annotations

from typing import Any

from textual.message import Message

from jobs.base.errors import QuarterdeckError


class Moved(Message):
    """Some feed has news; take them when the next frame is due."""

    bubble = False


class Fetched(Message):
    """A fetch was answered, or failed."""

    bubble = False

    def __init__(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        super().__init__()
        self.key = key
        self.value = value
        self.error = error


class LogsCame(Message):
    """The log stream has lines waiting, or ended."""

    bubble = False
