"""The board: which trial runs, or ran, on which GPU, each GPU being a lane in time. Pure.

Trials without GPUs have lanes too: as many for each node as ran there at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from console.tui.core.cluster.cluster import natural
from console.tui.core.draw.format import STATE_TONE, moment, state_glyph
from console.tui.core.draw.glyphs import Glyphs, block, load_tone
from console.tui.core.draw.lines import Line, Span, fit
from jobs.wire.sweepviews import TrialView
from jobs.wire.views import GpuView, NodeView

LEAST = 5
"""Cells that a usual trial takes at least, where the window may be chosen."""

LONG_GONE = 2000
"""Trials that ended before the window, the newest first, after which only those that run are looked for:
trials are asked for in order, and of those that are over none outlived so many that came after it."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A trial on a lane; times in seconds since the epoch."""

    number: int
    state: str
    begin: float
    end: float | None  # None while it runs


@dataclass(frozen=True, slots=True)
class Lane:
    """A GPU (or one of the places that trials shared on it or on a node), and who was there, in order."""

    key: str
    name: str
    gpu: str | None  # UUID
    node: str
    stays: tuple[Stay, ...]

    @property
    def now(self) -> Stay | None:
        """Who is there now."""
        return self.stays[-1] if self.stays and self.stays[-1].end is None else None


def gpus_by_uuid(nodes: Iterable[NodeView]) -> dict[str, tuple[str, GpuView]]:
    """UUID -> (node, GPU)."""
    return {gpu["uuid"]: (node["name"], gpu) for node in nodes for gpu in node["gpus"]}


def lanes(
    trials: Sequence[TrialView], gpus: Mapping[str, tuple[str, GpuView]], begin: float, end: float
) -> list[Lane]:
    """Lanes of all who were there between two moments, in order of node and index."""
    places: dict[tuple[str, str | None], list[Stay]] = {}
    gone = 0
    for trial in reversed(trials):
        if gone >= LONG_GONE and trial["ended_at"] is not None:
            continue
        at, left = moment(trial["started_at"]), moment(trial["ended_at"])
        if at is None or at > end:
            continue
        # Those before the window are packed as well: trials must not change lanes while it moves on.
        gone += left is not None and left < begin
        _place(places, trial, Stay(trial["number"], trial["state"], at, left), gpus)
    out: list[Lane] = []
    for (on, gpu), stays in places.items():
        packed = _packed(stays)
        for place, held in enumerate(packed):
            row = [stay for stay in held if stay.end is None or stay.end >= begin]
            if not row:
                continue
            name = _name(on, gpu, gpus, place if len(packed) > 1 or gpu is None else None)
            out.append(Lane(f"{on} {gpu or ''} {place}", name, gpu, on, tuple(row)))
    out.sort(key=lambda lane: natural(lane.name))
    return out


def _place(
    places: dict[tuple[str, str | None], list[Stay]],
    trial: TrialView,
    stay: Stay,
    gpus: Mapping[str, tuple[str, GpuView]],
) -> None:
    """Put a stay on each GPU of its trial, or on each node where it has none."""
    for uuid in trial["gpus"]:
        node = gpus[uuid][0] if uuid in gpus else (trial["nodes"] or ["?"])[0]
        places.setdefault((node, uuid), []).append(stay)
    for node in trial["nodes"] if not trial["gpus"] else ():
        places.setdefault((node, None), []).append(stay)


def _name(
    node: str, uuid: str | None, gpus: Mapping[str, tuple[str, GpuView]], place: int | None
) -> str:
    if uuid is None:
        return f"{node}.{place}"
    index = str(gpus[uuid][1]["index"]) if uuid in gpus else uuid[-4:]
    shared = "" if place is None else "abcdefghijklmnopqrstuvwxyz"[place % 26]
    return f"{node}:{index}{shared}"


def _packed(stays: Sequence[Stay]) -> list[list[Stay]]:
    """As few rows as hold them without an overlap: each takes the first row that is free."""
    rows: list[list[Stay]] = []
    for stay in sorted(stays, key=lambda stay: stay.begin):
        for row in rows:
            last = row[-1].end
            if last is not None and last <= stay.begin + 0.05:  # the clock's and the poll's grain
                row.append(stay)
                break
        else:
            rows.append([stay])
    return rows


def window(trials: Sequence[TrialView], begin: float, end: float, cells: int, zoom: int) -> float:
    """Seconds that the board shows, up to its right edge: so many that a usual trial is wide enough to
    be told apart, halved with each step of `zoom`, doubled with each step below 0."""
    whole = max(1.0, end - begin)
    lengths = sorted(
        (moment(t["ended_at"]) or end) - (moment(t["started_at"]) or end)
        for t in trials[-200:]
        if t["started_at"]
    )
    usual = max(0.2, lengths[len(lengths) // 2]) if lengths else whole
    return float(max(2.0, min(whole, cells / LEAST * usual / 2.0**zoom)))


def lane_line(
    lane: Lane,
    gpu: GpuView | None,
    begin: float,
    end: float,
    name: int,
    width: int,
    glyphs: Glyphs,
    chosen: int | None,
) -> Line:
    """A lane: its name, its load while a trial is on it, and its trials in time.

    Args:
        name: cells of the lanes' names.
        chosen: the trial that the cursor is on, which stands out.
    """
    load = Span("     ")
    if gpu is not None and gpu["util"] is not None and lane.now is not None:
        util = gpu["util"]
        load = Span(f"{min(999, round(util)):3d}{block(util / 100, glyphs)} ", load_tone(util))
    head = (Span(" " + fit(lane.name, name, ellipsis=glyphs.ellipsis) + " ", "strong"), load)
    room = width - name - 2 - 5
    if room < 6:
        return head
    return (*head, *_bars(lane.stays, begin, end, room, glyphs, chosen))


def _bars(
    stays: Sequence[Stay], begin: float, end: float, room: int, glyphs: Glyphs, chosen: int | None
) -> list[Span]:
    out: list[Span] = []
    used = 0
    whole = max(end - begin, 0.001)
    for stay in stays:
        if stay.end is not None and stay.end < begin:
            continue
        left = max(used, round((stay.begin - begin) / whole * room))
        until = end if stay.end is None else stay.end
        right = min(room, round((until - begin) / whole * room))
        if right <= left:
            continue
        out.append(Span(" " * (left - used)))
        out += _bar(stay, right - left, glyphs, chosen == stay.number, cut=stay.begin < begin)
        used = right
    out.append(Span(" " * (room - used)))
    return out


def _bar(stay: Stay, room: int, glyphs: Glyphs, chosen: bool, *, cut: bool) -> list[Span]:
    """A trial's time: its number in a line that ends in how it ended."""
    tone = "key" if chosen else STATE_TONE[stay.state]
    label = str(stay.number)
    if stay.end is None:
        last = glyphs.cursor
    elif stay.state == "COMPLETE":
        last = glyphs.stop
    else:
        last = state_glyph(stay.state, glyphs)
    rail = glyphs.rail
    if room == 1:
        return [Span(last, tone)]
    if len(label) + 2 > room:
        return [Span(rail * (room - 1) + last, tone)]
    first = rail if cut else glyphs.start
    rest = room - len(label) - 2
    return [
        Span(first, tone),
        Span(label, "found" if chosen else tone if stay.state != "RUNNING" else "strong"),
        Span(rail * rest + last, tone),
    ]
