"""The Job screen in words: summary, ranks, GPUs, metrics, attempts, explanations, stacks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from console.tui.core.cluster.cluster import facts_line
from console.tui.core.draw.chart import strip
from console.tui.core.draw.format import (
    STATE_TONE,
    age,
    clock,
    coarse,
    job_glyph,
    job_tone,
    job_word,
    many,
    moment,
    number,
    size,
    span,
    state_glyph,
)
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import BLANK, Line, Span, fit, line, wrap
from console.tui.core.draw.look import Look
from console.tui.core.draw.timeline import timeline
from console.tui.core.jobs.jobs import duration
from console.tui.core.jobs.logs import Quiet
from jobs.base.words import counted
from jobs.wire.views import (
    AttemptView,
    ExplainView,
    FirstFailure,
    HistoryPoint,
    JobDetail,
    JobView,
    RankView,
    StacksView,
)

QUIET_AFTER = 60.0
"""Seconds without a line after which a running rank is pointed out. A hint, not a verdict."""


def current(job: JobDetail) -> AttemptView | None:
    """The newest attempt."""
    return job["attempts"][-1] if job["attempts"] else None


def opening_rank(attempt: AttemptView) -> int | None:
    """The rank whose log is read first: the one that failed first, else the only one; None for all."""
    failure, ranks = attempt["first_failure"], attempt["ranks"]
    if failure is not None and failure["rank"] is not None:
        return failure["rank"]
    return ranks[0]["rank"] if len(ranks) == 1 else None


def summary(job: JobView, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """Two lines: what it is and how long, then where it runs, why it waits, or how it ended."""
    ran = duration(job, now)
    facts = [
        line((job["id"], "strong"), " " + fit(job["name"], min(len(job["name"]), 40))),
        line((f"{job_glyph(job, glyphs)} {job_word(job)}", job_tone(job))),
        line(span(ran) if ran is not None else f"waits {age(job['submitted_at'], now)}"),
    ]
    if job["exit_code"]:
        facts.append(line((f"exit {job['exit_code']}", "error")))
    if job["attempt"] > 1 or job["restarts"]:
        facts.append(line((f"attempt {job['attempt']}", "warn")))
    facts.append(line(job["user"]))
    facts.append(line(f"{many(job['ranks'], 'rank')} on {many(job['nodes'], 'node')}"))
    if job["gpus"]:
        facts.append(line(many(job["gpus"], "GPU")))
    if job["objective"] is not None:
        facts.append(line("objective ", (number(job["objective"]["value"]), "info")))
    tone = "error" if job["state"] == "FAILED" else "dim"
    where = ("on " + ", ".join(job["placed_on"])) if job["placed_on"] else ""
    second = job["reason"] or where
    return [
        facts_line(facts, glyphs, width),
        line((" " + fit(second, width - 2, ellipsis=glyphs.ellipsis), tone)),
    ]


# Ranks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RankCells:
    """How wide the parts of a rank's cell are: `>r16 n03 g2,3 * 12s `."""

    rank: int
    where: int
    word: int = 7

    @property
    def width(self) -> int:
        return 1 + self.rank + 1 + self.where + 3 + self.word + 1


def rank_cells(ranks: Sequence[RankView], indices: Mapping[str, int]) -> RankCells:
    """Cells that fit these ranks; long node names are cut at 16 cells."""
    numbers = max((len(f"r{rank['rank']}") for rank in ranks), default=2)
    return RankCells(numbers, min(16, max((len(_where(r, indices)) for r in ranks), default=3)))


def _where(rank: RankView, indices: Mapping[str, int]) -> str:
    """Node, and GPU indices where they are known."""
    known = sorted(indices[uuid] for uuid in rank["gpus"] if uuid in indices)
    return f"{rank['node']} g{','.join(map(str, known))}" if known else rank["node"]


def rank_word(rank: RankView, quiet: float | None) -> tuple[str, str]:
    """How a rank is, shortly: how long it is quiet, or how it ended; and the tone."""
    if rank["signal"]:
        return rank["signal"].removeprefix("SIG").lower(), "error"
    if rank["exit_code"]:
        return f"exit {rank['exit_code']}", "error"
    if rank["state"] == "EXITED":
        return "done", "dim"
    if rank["state"] != "RUNNING":
        return rank["state"].lower(), STATE_TONE[rank["state"]]
    if quiet is None:
        return size(rank["log_bytes"]), "dim"
    return coarse(quiet), "warn" if quiet > QUIET_AFTER else "ok"


def rank_cell(
    rank: RankView,
    cells: RankCells,
    indices: Mapping[str, int],
    quiet: float | None,
    selected: bool,
    glyphs: Glyphs,
    *,
    odd: bool = False,
) -> Line:
    """One rank: number, node, GPUs, state, and when it last wrote a line; `odd` is the one that the
    diagnosis names."""
    word, tone = ("odd one", "warn") if odd else rank_word(rank, quiet)
    return line(
        (glyphs.cursor if selected else " ", "key"),
        (fit(f"r{rank['rank']}", cells.rank) + " ", "strong"),
        fit(_where(rank, indices), cells.where, ellipsis=glyphs.ellipsis),
        (f" {state_glyph(rank['state'], glyphs)} ", STATE_TONE[rank["state"]]),
        (fit(word, cells.word, ellipsis=glyphs.ellipsis) + " ", tone),
    )


def ranks_title(attempt: AttemptView, quiet: Quiet, now: float, glyphs: Glyphs) -> str:
    """The ranks in one phrase, the worst one named: the one that failed first, else the quietest."""
    ranks = attempt["ranks"]
    text = f"Ranks {len(ranks)} {glyphs.dot} "
    if attempt["first_failure"] is not None:
        rank = attempt["first_failure"]["rank"]
        return text + (f"r{rank} failed first" if rank is not None else attempt["reason"])
    running = [rank["rank"] for rank in ranks if rank["state"] == "RUNNING"]
    silences = [(quiet.since(rank, now), rank) for rank in running]
    known = [(age, rank) for age, rank in silences if age is not None]
    if len(known) > 1 and max(known)[0] > QUIET_AFTER:
        longest, rank = max(known)
        return text + f"r{rank} is quiet for {coarse(longest)}"
    return text + (f"{len(running)} running" if running else attempt["state"].lower())


def gpu_names(attempt: AttemptView | None) -> dict[str, str]:
    """GPU UUID -> `r0 n1`, by which people know it."""
    if attempt is None:
        return {}
    return {
        uuid: f"r{rank['rank']} {rank['node']}"
        for rank in attempt["ranks"]
        for uuid in rank["gpus"]
    }


def simulated(uuid: str) -> bool:
    return uuid.startswith("SIM-")


def gpu_lines(
    attempt: AttemptView | None,
    histories: Mapping[str, Sequence[HistoryPoint]],
    look: Look,
    window: tuple[float, float],
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """GPUs by time: a row per GPU over the window, and the value under the crosshair, else the newest,
    in figures."""
    names = gpu_names(attempt)
    if not names:
        return [line((" This job asked for no GPU.", "dim"))]
    out: list[Line] = []
    label = max(len(name) for name in names.values()) + 1
    t0, t1 = window
    for uuid, name in names.items():
        points = histories.get(uuid, ())
        room = max(0, width - label - 10)
        values = bins(points, room, t0, t1)
        drawn = strip(values, glyphs)
        told = points[-1]["mean"] if points else None
        if look.cross is not None and room and t0 <= look.cross <= t1:
            column = min(room - 1, int((look.cross - t0) / (t1 - t0) * room))
            told = values[column]
            drawn[column] = Span(drawn[column].text, "found")
        last = f"{told:4.0f}%" if told is not None else "   -"
        sim = " sim" if simulated(uuid) else ""
        out.append((Span(f" {name:<{label}}", "dim"), *drawn, Span(last), Span(sim, "warn")))
    return out


def gpu_moment_at(
    attempt: AttemptView | None, window: tuple[float, float], width: int, x: int, y: int
) -> float | None:
    """The middle of what column `x` of the GPU lines shows; None beside them."""
    names = gpu_names(attempt)
    if not names or y >= len(names):
        return None
    label = max(len(name) for name in names.values()) + 1
    room = width - label - 10
    column = x - 1 - label
    if not 0 <= column < room:
        return None
    return window[0] + (column + 0.5) / room * (window[1] - window[0])


def bins(points: Sequence[HistoryPoint], count: int, t0: float, t1: float) -> list[float | None]:
    """Means of a history over `count` equal parts of [t0, t1]; None where nothing was measured.

    A part between two measured ones that are as far apart as the history is coarse is filled from the
    one before.
    """
    out: list[float | None] = [None] * count
    if not count or t1 <= t0:
        return out
    sums = [0.0] * count
    seen = [0] * count
    inside = [point for point in points if t0 <= point["at"] <= t1]
    for point in inside:
        index = min(count - 1, int((point["at"] - t0) / (t1 - t0) * count))
        sums[index] += point["mean"]
        seen[index] += 1
    gaps = [b["at"] - a["at"] for a, b in pairwise(inside)]
    coarse_by = 1.5 * median(gaps) / ((t1 - t0) / count) if gaps else 1.0
    last: int | None = None
    for index in range(count):
        if seen[index]:
            out[index] = sums[index] / seen[index]
            last = index
        elif last is not None and index - last <= coarse_by:
            out[index] = out[last]
    return out


# Attempts and failures -----------------------------------------------------------------------------


def attempt_lines(job: JobDetail, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """Their timeline, then attempts, newest first, each with its first failure and the last lines of
    that rank."""
    out: list[Line] = timeline(job, now, width, glyphs)
    for attempt in reversed(job["attempts"]):
        start, end = moment(attempt["started_at"]), moment(attempt["ended_at"])
        ran = None if start is None else (now if end is None else end) - start
        out.append(
            line(
                (f" {attempt['id']} ", "strong"),
                (
                    f"{state_glyph(attempt['state'], glyphs)} {attempt['state']} ",
                    STATE_TONE[attempt["state"]],
                ),
                (f"{clock(start) if start is not None else ''} {span(ran)}", "dim"),
            )
        )
        out += [line(("   " + text, "dim")) for text in wrap(attempt["reason"], width - 4)]
        if attempt["first_failure"] is not None:
            out += failure_lines(attempt["first_failure"], width, glyphs)
        left = attempt.get("left")
        if left and left["files"]:
            kept = f"{counted(left['files'], 'file')}, {size(left['bytes'])} not kept"
            out.append(line((f"   {kept}: qd pull {attempt['id']}", "dim")))
    for warning in job.get("warnings", ()):
        out += [line((" " + text, "warn")) for text in wrap(warning, width - 2)]
    for artifact in job["artifacts"]:
        out.append(
            line(
                (f" {glyphs.ok} ", "ok"),
                artifact["name"],
                (f" {size(artifact['size'])} {artifact['digest'][:19]}", "dim"),
            )
        )
    return out or [line((" Not started yet.", "dim"))]


def failure_lines(failure: FirstFailure, width: int, glyphs: Glyphs) -> list[Line]:
    if failure["rank"] is None:
        text = f"{failure['node']}: {failure['reason']}"
    else:
        how = failure["signal"] or f"exit code {failure['exit_code']}"
        text = (
            f"rank {failure['rank']} on {failure['node']} failed first: {how}. {failure['reason']}"
        )
    out = [line(("   " + part, "error")) for part in wrap(text, width - 4)]
    out += [
        line((f"   {glyphs.bar} ", "dim"), fit(text, width - 6, ellipsis=glyphs.ellipsis))
        for text in failure["tail"][-8:]
    ]
    return out


def explain_lines(view: ExplainView, width: int, glyphs: Glyphs) -> list[Line]:
    """`qd explain` as a page: the sentence, the reasons, what would help, the story."""
    out: list[Line] = [line((text, "strong")) for text in wrap(view["summary"], width)]
    for reason in view["reasons"]:
        out += _item(reason, width, glyphs)
    if view["unblock"]:
        out += [BLANK, line(("What would let it start, smallest change first", "dim"))]
        for change in view["unblock"]:
            out += _item(change["change"], width, glyphs)
            if change["command"]:
                out.append(line("    ", (change["command"], "key")))
    if view["first_failure"] is not None:
        out += [BLANK, *failure_lines(view["first_failure"], width, glyphs)]
    if view["story"]:
        out += [BLANK, line(("Story", "dim"))]
        out += [line(text) for entry in view["story"] for text in wrap(entry, width)]
    return out


def _item(text: str, width: int, glyphs: Glyphs) -> list[Line]:
    pieces = wrap(text, width - 4)
    return [
        line((f"  {glyphs.dot} " if index == 0 else "    ", "dim"), piece)
        for index, piece in enumerate(pieces)
    ]


def stacks_lines(view: StacksView, width: int, glyphs: Glyphs) -> list[Line]:
    """Stacks, equal ones together, innermost frame first."""
    out: list[Line] = []
    for group in view["groups"]:
        out.append(
            line(
                (f"{many(len(group['ranks']), 'rank')}: {ranges(group['ranks'])}", "strong"),
                (f" {glyphs.dot} thread {group['thread']}", "dim"),
            )
        )
        out += [
            line((f"  {glyphs.bar} ", "dim"), fit(frame, width - 5, ellipsis=glyphs.ellipsis))
            for frame in group["frames"]
        ]
        out.append(BLANK)
    for rank, why in sorted(view["failed"].items(), key=lambda item: int(item[0])):
        out += [line((text, "warn")) for text in wrap(f"r{rank} could not be read: {why}", width)]
    return out or [line(("No rank runs, so there is no stack to read.", "dim"))]


def ranges(numbers: Sequence[int]) -> str:
    """`0-3, 7` for 0 1 2 3 7."""
    out: list[str] = []
    held = sorted(set(numbers))
    start = 0
    for index in range(1, len(held) + 1):
        if index == len(held) or held[index] != held[index - 1] + 1:
            first, last = held[start], held[index - 1]
            out.append(str(first) if first == last else f"{first}-{last}")
            start = index
    return ", ".join(out)
