"""A one-line prompt at the bottom of a screen, for filtering and finding."""

from __future__ import annotations

from typing import Any

from textual import events
from textual.message import Message
from textual.widgets import Input


class Prompt(Input):
    """Hidden until it is opened; enter keeps what was typed, escape drops it."""

    class Closed(Message):
        def __init__(self, prompt: Prompt, text: str, *, kept: bool) -> None:
            super().__init__()
            self.prompt = prompt
            self.text = text
            self.kept = kept

        @property
        def control(self) -> Prompt:
            return self.prompt

    def __init__(self, lead: str, example: str, **kwargs: Any) -> None:
        super().__init__(
            placeholder=f"{lead} {example}", compact=True, select_on_focus=False, **kwargs
        )
        self.cursor_blink = False
        self.display = False

    def open(self, text: str = "") -> None:
        self.value = text
        self.cursor_position = len(text)
        self.display = True
        # At once, not by `focus()`, which only asks for it: keys that were typed fast would reach the
        # screen, where they are commands.
        self.screen.set_focus(self)

    def close(self, *, kept: bool) -> None:
        self.display = False
        self.post_message(self.Closed(self, self.value, kept=kept))

    async def on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "escape"):
            event.stop()
            event.prevent_default()
            self.close(kept=event.key == "enter")
