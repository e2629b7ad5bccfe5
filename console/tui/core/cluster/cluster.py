"""The Cluster screen in words: totals, heat map cells, one node, events. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from console.tui.core.base.order import Order, arranged
from console.tui.core.base.world import World
from console.tui.core.draw.chart import PERCENT, Sample, overlay
from console.tui.core.draw.format import (
    NODE_SHORT,
    STATE_TONE,
    clock,
    coarse,
    count,
    many,
    moment,
    size,
    state_glyph,
    watts,
)
from console.tui.core.draw.glyphs import Glyphs, block, load_tone
from console.tui.core.draw.lines import BLANK, Line, Span, fit, line, wrap
from console.tui.core.draw.lines import width as cells
from jobs.base.states import TERMINAL
from jobs.wire.views import EventView, GpuView, HistoryPoint, JobView, NodeView

WORKING = frozenset({"READY"})
"""Node states in which new ranks are placed."""

METRICS = ("util", "mem", "temp", "watt")


@lru_cache(maxsize=8192)
def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key that puts n2 before n10."""
    return tuple(
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.split(r"(\d+)", name)
        if part
    )


NODE_SORTS = ("job", "load", "state")
"""What nodes can be sorted by, beside their names."""


def nodes_in_order(
    world: World, order: Order | None = None, metric: str = "util"
) -> list[NodeView]:
    """Nodes by name, or by something else: the job that has them, the mean of what the map shows, their
    state. Nodes without it come last."""
    nodes = sorted(world.nodes.values(), key=lambda node: natural(node["name"]))
    by = order or Order()
    keys: dict[str, Callable[[NodeView], Any]] = {
        "job": lambda node: natural(node["jobs"][0]) if node["jobs"] else None,
        "load": lambda node: _load(node, metric),
        "state": lambda node: node["state"],
    }
    return arranged(nodes, keys[by.column], descending=by.descending) if by.column else nodes


def _load(node: NodeView, metric: str) -> float | None:
    """Mean of a metric over a node's GPUs; the CPU's load where it has none."""
    known = [value[0] for gpu in node["gpus"] if (value := reading(gpu, metric)) is not None]
    if not node["gpus"]:
        return node["cpu"]["util"]
    return sum(known) / len(known) if known else None


_last_live: tuple[Mapping[str, JobView], tuple[JobView, ...]] = ({}, ())


def live(jobs: Mapping[str, JobView]) -> tuple[JobView, ...]:
    """Jobs that have not ended. Worked out once for each snapshot: it is asked for at every frame, and
    ten thousand jobs have ended for each one that lives."""
    global _last_live
    known, found = _last_live
    if known is not jobs:
        found = tuple(job for job in jobs.values() if job["state"] not in TERMINAL)
        _last_live = (jobs, found)
    return found


@dataclass(frozen=True, slots=True)
class Totals:
    """GPUs by what they do, power in watts, and jobs by what they wait for."""

    nodes: int
    gpus: int
    busy: int
    idle: int
    draining: int
    lost: int
    power: float | None
    simulated: bool
    cpus: float
    waiting: int
    running: int


def totals(world: World) -> Totals:
    """Counted from the snapshot; each GPU is in exactly one of busy, idle, draining and lost."""
    busy = idle = draining = lost = gpus = 0
    power: float | None = None
    simulated = False
    cpus = 0.0
    for node in world.nodes.values():
        cpus += node["cpu"]["count"]
        for gpu in node["gpus"]:
            gpus += 1
            simulated = simulated or gpu["simulated"]
            if node["state"] in ("LOST", "SUSPECT"):
                lost += 1
                continue
            if gpu["power"] is not None:
                power = (power or 0.0) + gpu["power"]
            if gpu["job"]:
                busy += 1
            elif node["state"] in WORKING:
                idle += 1
            else:
                draining += 1
    states = [job["state"] for job in live(world.jobs)]
    running = sum(state in ("RUNNING", "STOPPING") for state in states)
    return Totals(
        nodes=len(world.nodes),
        gpus=gpus,
        busy=busy,
        idle=idle,
        draining=draining,
        lost=lost,
        power=power,
        simulated=simulated,
        cpus=cpus,
        waiting=len(states) - running,
        running=running,
    )


def totals_line(world: World, glyphs: Glyphs, width: int) -> Line:
    """The facts of the whole cluster, most important first, as many as fit."""
    if "nodes" not in world.ready:
        if world.link.tries:
            return line((f" {world.link.error}", "error"))
        return line((" waiting for the first picture of the cluster", "dim"))
    t = totals(world)
    facts: list[Line] = [line((many(t.nodes, "node"), "strong"))]
    if t.gpus:
        sim = " sim" if t.simulated else ""
        facts.append(line((f"{t.gpus} GPU", "strong"), (sim, "warn")))
        facts.append(line("busy ", (str(t.busy), "ok"), f" ({100 * t.busy / t.gpus:.0f}%)"))
        facts.append(line("idle ", str(t.idle)))
        if t.draining:
            facts.append(line("drain ", (str(t.draining), "warn")))
        facts.append(line("lost ", (str(t.lost), "error" if t.lost else "")))
    else:
        facts.append(line(many(t.cpus, "CPU")))
    facts.append(line("queue ", (str(t.waiting), "strong" if t.waiting else "")))
    facts.append(line("running ", str(t.running)))
    if t.power:
        facts.append(line(watts(t.power)))
    return facts_line(facts, glyphs, width)


def facts_line(facts: Sequence[Line], glyphs: Glyphs, width: int) -> Line:
    """Facts with dots between them; the last ones are left out when the line is full, and an ellipsis
    says so."""
    out: list[Span] = [Span(" ")]
    used = 1
    for index, fact in enumerate(facts):
        part = ((Span(f" {glyphs.dot} ", "dim"),) if index else BLANK) + fact
        used += cells(part)
        if used > width - (2 if index + 1 < len(facts) else 0):
            out.append(Span(f" {glyphs.ellipsis}", "dim"))
            break
        out.extend(part)
    return tuple(out)


# Heat map ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeatCells:
    """How wide the parts of a node's cell are: `▸n03 j412 97█98█...`, or without numbers."""

    name: int
    job: int
    gpus: int
    numbers: bool

    @property
    def width(self) -> int:
        return 1 + self.name + 1 + self.job + 1 + self.gpus * (3 if self.numbers else 1) + 1


def heat_cells(nodes: Sequence[NodeView], width: int) -> HeatCells:
    """Cells for these nodes in a pane of `width` cells; numbers are dropped when not even one node
    with numbers fits."""
    name = min(16, max((len(node["name"]) for node in nodes), default=3))
    gpus = max((len(node["gpus"]) for node in nodes), default=0) or 3
    job = min(6, max((len(_label(node)) for node in nodes), default=3))
    cells = HeatCells(name, job, gpus, True)
    return cells if cells.width <= width else HeatCells(name, job, gpus, False)


def _label(node: NodeView) -> str:
    """The job that has the node (with + when there are more), or why it takes none."""
    if node["state"] not in WORKING:
        return NODE_SHORT.get(node["state"], node["state"][:3])
    jobs = node["jobs"]
    return f"{jobs[0]}+" if len(jobs) > 1 else jobs[0] if jobs else "---"


def reading(gpu: GpuView, metric: str) -> tuple[float, float] | None:
    """(number to show, load in percent) of a GPU; None when it was not measured."""
    match metric:
        case "util":
            return None if gpu["util"] is None else (gpu["util"], gpu["util"])
        case "mem":
            if gpu["mem_used"] is None or not gpu["mem_total"]:
                return None
            share = 100 * gpu["mem_used"] / gpu["mem_total"]
            return share, share
        case "temp":
            # 30 to 90 degrees is the range that says something: room temperature to throttling.
            value = gpu["temp"]
            return None if value is None else (value, (value - 30) / 60 * 100)
        case _:
            if gpu["power"] is None or not gpu["power_limit"]:
                return None
            share = 100 * gpu["power"] / gpu["power_limit"]
            return share, share


def heat_cell(
    node: NodeView, cells: HeatCells, metric: str, selected: bool, glyphs: Glyphs
) -> Line:
    """One node: name, job, and each GPU's load as number, block height and colour."""
    tone = "" if node["state"] in WORKING else STATE_TONE[node["state"]]
    label_tone = tone or ("dim" if not node["jobs"] else "info")
    head = (
        Span(glyphs.cursor if selected else " ", "key"),
        Span(fit(node["name"], cells.name, ellipsis=glyphs.ellipsis) + " ", tone or "strong"),
        Span(fit(_label(node), cells.job, ellipsis=glyphs.ellipsis) + " ", label_tone),
    )
    return head + _gpu_cells(node, cells, metric, glyphs) + (Span(" "),)


def _gpu_cells(node: NodeView, cells: HeatCells, metric: str, glyphs: Glyphs) -> Line:
    each = 3 if cells.numbers else 1
    room = cells.gpus * each
    if not node["gpus"]:
        load = node["cpu"]["util"]
        text = "cpu" if load is None else f"cpu {load:.0f}%"
        return (Span(fit(text, room, ellipsis=glyphs.ellipsis), "dim"),)
    if node["state"] not in WORKING and not node["jobs"]:
        drawn = len(node["gpus"]) * each
        tone = STATE_TONE[node["state"]]
        return (Span(glyphs.crossed * drawn, tone), Span(" " * (room - drawn)))
    out: list[Span] = []
    for gpu in node["gpus"]:
        value = reading(gpu, metric)
        if node["state"] == "LOST" or value is None:
            out.append(Span(" ?" + glyphs.empty if each == 3 else "?", "dim"))
        elif gpu["job"] is None and value[0] < 1:
            out.append(Span(glyphs.empty * each, "dim"))
        else:
            shape = block(value[1] / 100, glyphs)
            # Two digits, so that cells stay narrow: 100 shows as 99, the node pane has it exactly.
            text = f"{min(99, round(value[0])):2d}{shape}" if each == 3 else shape
            out.append(Span(text, load_tone(value[1])))
    out.append(Span(" " * (room - each * len(node["gpus"]))))
    return tuple(out)


# One node ------------------------------------------------------------------------------------------


def node_title(node: NodeView, glyphs: Glyphs) -> str:
    parts = [node["name"]]
    if node["gpus"]:
        first = node["gpus"][0]
        sim = " sim" if first["simulated"] else ""
        parts.append(f"{short_model(first['model'])}x{len(node['gpus'])}{sim}")
    parts.extend(node["jobs"][:2])
    return f" {glyphs.dot} ".join(parts)


_NO_MODEL = frozenset({"NVIDIA", "TESLA", "GEFORCE", "SIMULATED"})


def short_model(model: str) -> str:
    """`NVIDIA H100 80GB HBM3` as `H100`."""
    words = [word for word in model.split() if word.upper() not in _NO_MODEL]
    return words[0] if words else model


def node_lines(
    node: NodeView,
    history: Sequence[HistoryPoint],
    now: float,
    width: int,
    height: int,
    glyphs: Glyphs,
) -> list[Line]:
    """State, host figures, one row per GPU, and a chart of the last ten minutes where there is room."""
    state = node["state"]
    free = f"{count(node['free_gpus'])} of {len(node['gpus'])} GPUs free"
    if not node["gpus"]:
        free = f"{count(node['free_cpus'])} of {many(node['cpu']['count'], 'CPU')} free"
    facts = [
        line((f"{state_glyph(state, glyphs)} {state}", STATE_TONE[state])),
        line(free),
        line((f"seen {coarse(node['age'])} ago", "warn" if node["age"] > 5 else "dim")),
    ]
    out = [facts_line(facts, glyphs, width)]
    out += [line((" " + text, "warn")) for text in wrap(node["reason"], width - 2)]
    out += _host_lines(node, width, glyphs)
    if node["gpus"]:
        out.append(BLANK)
        out.append(line((" gpu util   mem temp watt job     rank", "dim")))
        out += [_gpu_line(gpu, glyphs) for gpu in node["gpus"]]
    rows = height - len(out) - 2
    if history and rows >= 3:
        out.append(BLANK)
        out.append(line((f" GPU util {glyphs.dot} 10 min", "dim")))
        out += util_chart(history, width, min(rows, 8), 600, now, glyphs)
    return out


def _host_lines(node: NodeView, width: int, glyphs: Glyphs) -> list[Line]:
    def part(name: str, value: str) -> Line:
        return line((name + " ", "dim"), value)

    cpu, memory, disk = node["cpu"], node["memory"], node["disk"]
    load = "-" if cpu["util"] is None else f"{cpu['util']:.0f}% of {count(cpu['count'])}"
    first = [part("cpu", load), part("mem", f"{size(memory['used'])}/{size(memory['total'])}")]
    second = [part("disk", f"{size(disk['used'])}/{size(disk['total'])}")]
    if node["net_rx"] is not None and node["net_tx"] is not None:
        second.append(part("net", f"{size(node['net_rx'])}/s in, {size(node['net_tx'])}/s out"))
    return [facts_line(first, glyphs, width), facts_line(second, glyphs, width)]


def _gpu_line(gpu: GpuView, glyphs: Glyphs) -> Line:
    util = gpu["util"]
    load = (
        Span("    - ", "dim")
        if util is None
        else Span(f"{util:4.0f}{block(util / 100, glyphs)} ", load_tone(util))
    )
    temp = "-" if gpu["temp"] is None else f"{gpu['temp']:.0f}C"
    power = "-" if gpu["power"] is None else f"{gpu['power']:.0f}"
    rank = "" if gpu["rank"] is None else f"r{gpu['rank']}"
    notes = list(gpu["throttle"])
    if gpu["ecc_errors"]:
        notes.append(many(gpu["ecc_errors"], "ECC error"))
    return line(
        f" {gpu['index']:3d}",
        load,
        f"{size(gpu['mem_used']):>5} {temp:>4} {power:>4} ",
        (f"{gpu['job'] or '':<7} {rank:<4} ", "info"),
        (("sim " if gpu["simulated"] else "") + ", ".join(notes), "warn"),
    )


def util_chart(
    history: Sequence[HistoryPoint],
    width: int,
    rows: int,
    seconds: float,
    now: float,
    glyphs: Glyphs,
    cross: float | None = None,
) -> list[Line]:
    """Utilisation on a fixed scale of 0 to 100, the right edge being now.

    It moves on by whole dots, so that a second in which nothing came is no other picture; and it is drawn
    once for each of them, however often it is asked for.
    """
    step = seconds / (2 * max(1, width))
    end = math.ceil(now / step) * step
    key = (width, rows, seconds, end, cross, glyphs.braille)
    for index, (held, of, lines) in enumerate(_drawn):
        if held is history and of == key:
            _drawn.append(_drawn.pop(index))
            return lines
    samples = [Sample(point["at"], point["low"], point["high"]) for point in history]
    lines = overlay(
        [(samples, "accent")], width, rows, PERCENT, glyphs, x0=end - seconds, x1=end, cross=cross
    )
    _drawn.append((history, key, lines))
    del _drawn[:-_CHARTS]
    return lines


_CHARTS = 2
"""Charts of utilisation that are on screen at once."""

_drawn: list[tuple[Sequence[HistoryPoint], tuple[object, ...], list[Line]]] = []


# Events ----------------------------------------------------------------------------------------

_SEVERITY_TONE = {"info": "info", "warning": "warn", "error": "error"}


def event_line(event: EventView, width: int, glyphs: Glyphs) -> Line:
    at = moment(event["at"])
    shape = {"warning": glyphs.warn, "error": glyphs.failed}.get(event["severity"], glyphs.dot)
    about = event["job"] or event["node"] or ""
    text = event["message"]
    if about and about not in text:
        text = f"{about} {text}"
    return line(
        (f" {clock(at) if at is not None else '--:--'} ", "dim"),
        (shape + " ", _SEVERITY_TONE.get(event["severity"], "")),
        fit(text, width - 9, ellipsis=glyphs.ellipsis),
    )
