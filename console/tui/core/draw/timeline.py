"""A job's life on one axis: when it waited, and when each attempt ran. Pure."""

from __future__ import annotations

from console.tui.core.draw.format import STATE_TONE, moment, span, state_glyph
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span
from jobs.wire.views import JobDetail

SHOWN = 6
"""Attempts with a bar of their own; a job that restarts all day would fill the pane."""


def timeline(job: JobDetail, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """A bar for each of the newest attempts, from submission to the end, all on one scale. A single
    attempt needs no picture."""
    begin = moment(job["submitted_at"])
    attempts = job["attempts"][-SHOWN:]
    if begin is None or len(job["attempts"]) < 2:
        return []
    end = moment(job["ended_at"]) or now
    whole = max(end - begin, 1.0)
    names = max(len(attempt["id"]) for attempt in attempts)
    room = width - names - 10
    if room < 10:
        return []

    def cell(at: float) -> int:
        return max(0, min(room, round((at - begin) / whole * room)))

    out: list[Line] = []
    for attempt in attempts:
        start = moment(attempt["started_at"])
        stop = moment(attempt["ended_at"]) or now
        tone = STATE_TONE[attempt["state"]]
        first = room if start is None else min(cell(start), room - 1)
        last = room if start is None else max(cell(stop), first + 1)
        ran = None if start is None else stop - start
        out.append(
            (
                Span(f" {attempt['id']:<{names}} ", "strong"),
                Span(glyphs.empty * first, "dim"),
                Span(glyphs.blocks[3] * (last - first), tone),
                Span(" " * (room - last)),
                Span(f" {state_glyph(attempt['state'], glyphs)} ", tone),
                Span(span(ran), "dim"),
            )
        )
    return out
