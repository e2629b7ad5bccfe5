"""The list of models' versions in words: its columns, its order and its filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column, in_order
from console.tui.core.cluster.cluster import natural
from console.tui.core.draw.format import age, number, size
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span
from jobs.wire.modelviews import ModelState, ModelView

_STATES: tuple[ModelState, ...] = ("PENDING", "APPROVED", "REJECTED", "ARCHIVED")
_TONES: Mapping[ModelState, str] = {
    "PENDING": "warn",
    "APPROVED": "ok",
    "REJECTED": "error",
    "ARCHIVED": "dim",
}


def state_words(state: ModelState, glyphs: Glyphs) -> tuple[str, str]:
    """A shape and a word, and their tone."""
    shapes: Mapping[ModelState, str] = {
        "PENDING": glyphs.waiting,
        "APPROVED": glyphs.ok,
        "REJECTED": glyphs.failed,
        "ARCHIVED": glyphs.cancelled,
    }
    return f"{shapes[state]} {state.lower()}", _TONES[state]


def _aliases(model: ModelView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return (" ".join(model["aliases"]), "key") if model["aliases"] else ("-", "dim")


def _approvals(model: ModelView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    held, needed = model["approvals"], model["approvals_needed"]
    return f"{held}/{needed}", "ok" if held >= needed else "dim"


def _metrics(model: ModelView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    told = [f"{name} {number(value)}" for name, value in model["metrics"].items()]
    return ("  ".join(told), "") if told else ("-", "dim")


COLUMNS: tuple[Column[ModelView], ...] = (
    Column("version", 14, lambda m, n, g: (m["id"], "strong"), grow=2,
           order=lambda m: natural(m["id"])),
    Column("state", 10, lambda m, n, g: state_words(m["state"], g),
           order=lambda m: _STATES.index(m["state"])),
    Column("said", 4, _approvals, right=True, order=lambda m: m["approvals"]),
    Column("aliases", 8, _aliases, grow=1, order=lambda m: " ".join(m["aliases"]) or None),
    Column("metrics", 15, _metrics, grow=3),
    Column("run", 6, lambda m, n, g: (m["run"] or "-", "dim"), rank=2,
           order=lambda m: natural(m["run"]) if m["run"] else None),
    Column("size", 5, lambda m, n, g: (size(m["size"]), "dim"), rank=3, right=True,
           order=lambda m: m["size"]),
    Column("age", 5, lambda m, n, g: (age(m["created_at"], n), "dim"), right=True,
           order=lambda m: m["created_at"]),
    Column("by", 8, lambda m, n, g: (m["user"], "dim"), rank=4, order=lambda m: m["user"]),
    Column("reason", 12, lambda m, n, g: (m["reason"], "dim"), rank=1, grow=3),
)  # fmt: skip

FIELDS: Mapping[str, Callable[[ModelView], Any]] = {
    "name": lambda m: m["name"],
    "version": lambda m: m["version"],
    "state": lambda m: m["state"],
    "stage": lambda m: m["stage"],
    "user": lambda m: m["user"],
    "run": lambda m: m["run"] or "",
    "approvals": lambda m: m["approvals"],
    "format": lambda m: m["format"],
    "size": lambda m: m["size"],
}


def _anywhere(model: ModelView) -> str:
    parts = (model["id"], model["label"] or "", model["state"], model["reason"], model["user"])
    return " ".join((*parts, *model["aliases"], model["run"] or "", model["format"]))


def _metric(name: str) -> Callable[[ModelView], float | None]:
    def value(model: ModelView) -> float | None:
        return next((v for held, v in model["metrics"].items() if held.lower() == name), None)

    return value


def model_filter(text: str, models: Mapping[str, ModelView]) -> Filter[ModelView]:
    """A filter; the metrics of `models` are fields too."""
    metrics = {name.lower() for model in models.values() for name in model["metrics"]}
    fields = {name: _metric(name) for name in sorted(metrics)} | dict(FIELDS)
    return parse(text, fields, _anywhere)


def rows(
    models: Mapping[str, ModelView], wanted: Filter[ModelView], order: Order | None = None
) -> list[str]:
    """Ids that match, in an order; by default by name, the newest version first."""
    matching = [model for model in models.values() if wanted.matches(model)]
    matching.sort(key=lambda model: (natural(model["name"]), -model["version"]))
    return [model["id"] for model in in_order(matching, COLUMNS, order)]


def totals(models: Mapping[str, ModelView]) -> Line:
    """How many wait for somebody to decide; nothing where there are none."""
    if not models:
        return ()
    waiting = sum(model["state"] == "PENDING" for model in models.values())
    return (Span(f"{waiting} pending", "warn") if waiting else Span("all are decided", "dim"),)
