"""A list that no watch tells of: it is asked for every few seconds while it is on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from console.tui.core.base.world import NOTHING, World
from console.tui.core.draw.lines import Line, Span, line
from console.tui.screens.lists import ListScreen
from jobs.base.errors import QuarterdeckError

Row = TypeVar("Row")

LIST = "list"
"""The key of the call for the list; screens have others of their own."""


class PolledList(ListScreen[Row], Generic[Row]):
    """A list of what a call gives. The last answer stays when a later call fails, and the head says so.

    Attributes:
        EVERY: seconds between two calls.
    """

    EVERY: ClassVar[float]

    _known: Mapping[str, Row] = NOTHING  # a filter is parsed before anything is known

    def __init__(self) -> None:
        super().__init__()
        self._asked = float("-inf")
        self._answered = False
        self._error: QuarterdeckError | None = None

    # What a list says of itself.

    def call(self) -> Callable[[], list[Row]]:
        """What to ask, in a thread."""
        raise NotImplementedError

    def key_of(self, row: Row) -> str:
        raise NotImplementedError

    def keys(self) -> list[str]:
        """Keys of the rows that the filter leaves, in their order."""
        raise NotImplementedError

    def summary(self) -> Line:
        """What all rows come to."""
        raise NotImplementedError

    # Asking.

    def on_mount(self) -> None:
        self.tick()

    def tick(self) -> None:
        if not self.deck.frozen and self.deck.clock.mono() - self._asked >= self.EVERY:
            self._ask()

    def acted(self) -> None:
        self._ask()

    def _ask(self) -> None:
        self._asked = self.deck.clock.mono()
        self.deck.fetch(LIST, self.call())

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        if key != LIST:
            return
        self._error = error
        if error is None:
            self._answered = True
            self._known = {self.key_of(row): row for row in value}
        self.sift()

    # Showing.

    def show(self, world: World) -> None:
        self._keys = self.keys()
        self.present(world)

    def totals(self) -> Line:
        told = self.summary()
        if self._answered and self._error is not None:
            gap = (Span(f" {self.deck.glyphs.dot} "),) if told else ()
            return (*told, *gap, Span(f"not read again: {self._error.message}", "warn"))
        return told

    def _head(self, width: int, height: int) -> list[Line]:
        lines = super()._head(width, height)
        return lines if self._answered else [line((f" {self.NAME}", "strong")), *lines[1:]]

    def _nothing(self, world: World) -> list[Line]:
        if not self._answered:
            if self._error is None:
                return [line((" reading", "dim"))]
            told = [line((f" {self._error.message}", "error"))]
            return [*told, line((f" {self._error.hint}", "dim"))] if self._error.hint else told
        if not self._known:
            return self.lesson()
        named = f" No {self.TOPIC.removesuffix('s')} matches the filter. "
        return [line((named, "dim"), ("esc", "key"), (" clears it.", "dim"))]
