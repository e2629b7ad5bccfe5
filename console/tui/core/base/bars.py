"""The header and the footer, as lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from console.tui.core.base.link import Link, badge
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span, line
from console.tui.core.draw.lines import width as cells
from jobs.base.words import duration

ALERTING = "Alerts"
"""The screen that says what needs somebody; its name is followed by how much does."""

SHORT = (8, 6, 4, 3, 0)
"""Cells of a screen's name where whole names do not fit, the most that do: at last keys only."""


def header(
    crumbs: Sequence[str],
    screens: Sequence[tuple[str, str]],
    current: str,
    link: Link,
    now: float,
    width: int,
    glyphs: Glyphs,
    *,
    read_only: bool,
    frozen: bool = False,
    alerts: int = 0,
    host: str = "",
    maintenance: float | None = None,
) -> Line:
    """`qd ▸ Cluster   1·Cluster 2·Jobs   ● live · 0.6s`: where you are, where you can go, how fresh.

    The badge is never dropped; when the line is short, the names of screens are cut, and at last the
    list of them is dropped. `host` is where the cluster is when it is not on this machine;
    `maintenance` is for how many seconds more the head may be away.
    """
    left: list[Span] = [Span(" qd", "strong")]
    if host:
        left += [Span(" "), Span(f" {host} ", "found")]
    for crumb in crumbs:
        left += [Span(f" {glyphs.crumb} ", "dim"), Span(crumb, "strong")]
    right: list[Span] = [Span("read-only ", "warn")] if read_only else []
    if maintenance is not None:
        right.append(Span(f"maintenance, {duration(maintenance)} left ", "warn"))
    right += [Span("frozen, p goes on ", "found")] if frozen else []
    right += [*badge(link, now, glyphs), Span(" ")]
    for length in (None, *SHORT):
        tabs = _tabs(screens, current, alerts, glyphs, length)
        if cells(left) + cells(tabs) + cells(right) <= width:
            left += tabs
            break
    gap = max(1, width - cells(left) - cells(right))
    return (*left, Span(" " * gap), *right)


def header_at(line: Line, screens: Sequence[tuple[str, str]], x: int) -> str | None:
    """The name of the screen whose key or name is drawn at cell `x` of a header; None where none is."""
    keys = {f" {key}": name for key, name in screens}
    at, here = 0, None
    for span in line:
        if span.tone == "key":
            here = keys.get(span.text)
        elif not span.text.strip():
            here = None
        at += cells((span,))
        if x < at:
            return here
    return None


def _tabs(
    screens: Sequence[tuple[str, str]],
    current: str,
    alerts: int,
    glyphs: Glyphs,
    length: int | None,
) -> list[Span]:
    """Keys and names of the screens. Names have `length` cells at most."""
    out: list[Span] = [Span("  ")]
    for key, name in screens:
        shown = name
        if length is not None and len(name) > length:
            mark = glyphs.ellipsis if length > 3 else ""
            shown = name[: length - len(mark)] + mark
        out += [
            Span(f" {key}", "key"),
            *(
                [Span(f"{glyphs.dot}{shown}", "strong" if name == current else "dim")]
                if shown
                else []
            ),
        ]
        if alerts and name == ALERTING:
            out.append(Span(f"({alerts})", "warn"))
    return out


def footer(keys: Sequence[tuple[str, str]], width: int, ellipsis: str = "…") -> Line:
    """Keys and what they do, as many as fit. Where some do not, an ellipsis says so, and the key for
    help, which knows them all, stands after it."""
    return tuple(span for _, part in _parts(keys, width, ellipsis) for span in part)


def footer_at(
    keys: Sequence[tuple[str, str]], width: int, x: int, ellipsis: str = "…"
) -> int | None:
    """Index of the key that is drawn at cell `x`; None where there is none."""
    at = 0
    for index, part in _parts(keys, width, ellipsis):
        at += cells(part)
        if x < at:
            return index
    return None


def _parts(
    keys: Sequence[tuple[str, str]], width: int, ellipsis: str
) -> list[tuple[int | None, Line]]:
    """What is drawn, each with the index of its key."""
    parts: list[tuple[int | None, Line]] = [
        (index, line((f" {key} ", "key"), (label + " ", "dim")))
        for index, (key, label) in enumerate(keys)
    ]
    if sum(cells(part) for _, part in parts) <= width:
        return parts
    end: list[tuple[int | None, Line]] = [(None, line((f" {ellipsis}", "dim")))]
    end += [parts[index] for index, (_, label) in enumerate(keys) if label == HELP]
    room = width - sum(cells(part) for _, part in end)
    out: list[tuple[int | None, Line]] = []
    for index, part in parts:
        if (index, part) in end:
            continue
        room -= cells(part)
        if room < 0:
            break
        out.append((index, part))
    return out + end


HELP = "help"
"""Label of the action that shows all keys."""
