"""Lines to type into: the prompt at the bottom of a screen, for filtering and finding, and its base."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events
from textual.message import Message
from textual.widgets import Input


class Entry(Input):
    """A line to type into that takes enter itself, in its turn: a binding would be run before the keys
    that were typed in the same breath have arrived."""

    def __init__(self, placeholder: str, **kwargs: Any) -> None:
        super().__init__(placeholder=placeholder, compact=True, select_on_focus=False, **kwargs)
        self.cursor_blink = False

    ENDS: ClassVar[tuple[str, ...]] = ("enter",)
    """Keys that this line takes itself, beside what can be typed."""

    async def on_key(self, event: events.Key) -> None:
        if event.key in self.ENDS:
            event.stop()
            event.prevent_default()
            self.end(event.key)

    def end(self, key: str) -> None:
        self.post_message(self.Submitted(self, self.value))


class Prompt(Entry):
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
        super().__init__(f"{lead} {example}", **kwargs)
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

    ENDS = ("enter", "escape")

    def end(self, key: str) -> None:
        self.close(kept=key == "enter")
