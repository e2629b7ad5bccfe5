"""Models: every version, whether it is approved, and what for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual import on

from console.tui.actions import bindings
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.base.filter import Filter
from console.tui.core.draw.lines import BLANK, Line, Span, line
from console.tui.core.models import list as models
from console.tui.core.models.commands import Decision, decide
from console.tui.core.models.detail import detail_lines
from console.tui.screens.polled import PolledList
from console.tui.screens.sweepask import Ask
from console.tui.source import MODELS_READ
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.wire.modelviews import ModelDetail, ModelView


class ModelTable(Rows):
    PANE = "models"
    BINDINGS = bindings("models")


class ModelsScreen(PolledList[ModelView]):
    NAME = "Models"
    SCOPE = "models"
    TOPIC = "versions"
    ORDER = "models"
    TABLE = ModelTable
    COLUMNS = models.COLUMNS
    EXAMPLE = "name:digits state:pending stage:production accuracy>0.9 text"
    EVERY = 5.0
    BINDINGS = bindings("models")

    def parse(self, text: str) -> Filter[ModelView]:
        return models.model_filter(text, self._known)

    def call(self) -> Callable[[], list[ModelView]]:
        return self.deck.source.models

    def key_of(self, row: ModelView) -> str:
        return row["id"]

    def keys(self) -> list[str]:
        return models.rows(self._known, self._filter, self._order)

    def summary(self) -> Line:
        told = models.totals(self._known)
        if len(self._known) < MODELS_READ:
            return told
        return (
            *told,
            Span(f" {self.deck.glyphs.dot} only the first {MODELS_READ} are read", "warn"),
        )

    def lesson(self) -> list[Line]:
        return [
            line(
                (" A model has versions: files that a run has left, and that never change.", "dim")
            ),
            line(
                (" Gates measure them, people approve them, aliases say which one is used.", "dim")
            ),
            BLANK,
            line("   ", ("qd model register RUN NAME", "key"), ("   makes a version", "dim")),
            line("   ", ("qd gate gate.yaml NAME:1", "key"), ("     measures it", "dim")),
        ]

    # What a person does.

    def _read(self, what: str, ref: str) -> None:
        source = self.deck.source
        self.deck.fetch(f"{what} {ref}", lambda: source.model(ref))

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        self._read("detail", message.key)

    def do_model_approve(self) -> None:
        self._decide("approve")

    def do_model_reject(self) -> None:
        self._decide("reject")

    def _decide(self, decision: Decision) -> None:
        """What is decided on is read first: the digests that are sent are those that were shown."""
        if (ref := self.rows.cursor_key) is None:
            self.propose(Refusal("There is no version here."))
        else:
            self._read(decision, ref)

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        what, _, ref = key.partition(" ")
        if not ref:
            super().fetched(key, value, error)
        elif error is not None:
            self.deck.tell(f"{ref}: {error.message}. {error.hint}".strip(), severity="error")
        elif what == "detail":
            glyphs = self.deck.glyphs
            self.deck.page(f"model {ref}", lambda width: detail_lines(value, width, glyphs))
        else:
            self._asked_why(value, "approve" if what == "approve" else "reject")

    def _asked_why(self, detail: ModelDetail, decision: Decision) -> None:
        """A reason, and then the question."""
        # A rejection without a reason is refused, but not before anything was typed.
        refused = decide(detail, decision, "?")
        if isinstance(refused, Refusal):
            self.propose(refused)
            return

        def answered(command: Command | None) -> None:
            self.propose(command)

        self.deck.push_screen(
            Ask(
                decision,
                "",
                lambda typed: decide(detail, decision, typed),
                hint="a reason" if decision == "reject" else "a reason, or nothing",
                ends="enter goes on",
            ),
            answered,
        )
