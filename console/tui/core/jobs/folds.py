"""The rows of the Jobs screen: jobs, and the trials of each sweep folded into one row. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from console.tui.core.base.filter import Filter
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column, in_order
from console.tui.core.draw.format import STATE_TONE, many, number, state_glyph
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span, fit
from console.tui.core.jobs.jobs import COLUMNS, number_of
from jobs.base.states import TERMINAL
from jobs.wire.sweepviews import SWEEP_ENDED, SweepView
from jobs.wire.views import JobView

UNFOLDED_KEPT = 100
"""Sweeps that are remembered as unfolded; the file stays small however many are."""


@dataclass(frozen=True, slots=True)
class Group:
    """The trials of a sweep, as one row.

    Attributes:
        id: of the sweep.
        trials: those that the filter leaves; never none.
        known: how many of its trials are known here.
        sweep: None where its own state is not known: it is too old, or has not been read yet.
        folded: whether the trials are hidden.
    """

    id: str
    trials: Sequence[JobView]
    known: int
    sweep: SweepView | None
    folded: bool

    @property
    def live(self) -> bool:
        if self.sweep is not None and self.sweep["state"] not in SWEEP_ENDED:
            return True
        return any(job["state"] not in TERMINAL for job in self.trials)

    def words(self, glyphs: Glyphs) -> Line:
        """What its trials come to. How many were pruned or failed is what the sweep says: a trial that
        was pruned is a cancelled job, and no failure."""
        sweep, trials = self.sweep, self.trials
        total = max(self.known, sweep["counts"]["total"] if sweep else 0)
        some = f"{len(trials)} of {many(total, 'trial')}"
        part = len(trials) < self.known
        running = [job for job in trials if job["state"] == "RUNNING"]
        gpus = sum(job["gpus"] for job in running)
        waiting = sum(job["state"] in ("QUEUED", "PLACING", "STAGING") for job in trials)
        stalled = sum(job.get("stalled", False) for job in trials)
        facts: list[tuple[str, str]] = [
            (sweep["name"] if sweep else trials[0]["name"].rpartition("-")[0], ""),
            (some, "found") if part else (many(total, "trial"), ""),
        ]
        if sweep and sweep["best"]:
            facts.append((f"best {number(sweep['best']['values'][0])}", "info"))
        facts += [
            (f"{len(running)} running" if running else "", "ok"),
            (f"{stalled} stalled" if stalled else "", "warn"),
            (f"{waiting} waiting" if waiting else "", "dim"),
        ]
        if sweep:
            counts = sweep["counts"]
            facts += [
                (f"{counts['failed']} failed" if counts["failed"] else "", "error"),
                (f"{counts['pruned']} pruned" if counts["pruned"] else "", "dim"),
            ]
        facts += [
            (many(gpus, "GPU") if gpus else "", ""),
            (trials[0]["user"], "dim"),
        ]
        if not self.folded and self.known < total:
            facts.append((f"the newest {self.known} follow", "dim"))
        out: list[Span] = []
        for text, tone in facts:
            if text:
                out += [Span(f" {glyphs.dot} ", "dim")] if out else []
                out.append(Span(text, tone))
        return tuple(out)


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed.

    Attributes:
        keys: of jobs and of groups, in their order.
        groups: by their keys.
        matching: how many jobs the filter leaves, those that are folded among them.
    """

    keys: Sequence[str] = ()
    groups: Mapping[str, Group] = field(default_factory=dict)
    matching: int = 0

    def jobs_of(self, key: str) -> list[str]:
        """Ids of the jobs that a row stands for."""
        group = self.groups.get(key)
        return [key] if group is None else [job["id"] for job in group.trials]


def listing(
    jobs: Mapping[str, JobView],
    wanted: Filter[JobView],
    order: Order | None = None,
    *,
    columns: Sequence[Column[JobView]] = COLUMNS,
    sweeps: Mapping[str, SweepView] = MappingProxyType({}),
    unfolded: Collection[str] = (),
    folded: Collection[str] = (),
) -> Listing:
    """The rows in an order; by default what lives first, then what has ended, each newest first. A sweep
    has the place of its first trial, and its trials stay below it.

    A filter finds trials that are folded too: a sweep of which it leaves only some is unfolded, unless
    `folded` names it.
    """
    every = jobs.values()
    matching = [*filter(wanted.matches, every)] if wanted.text.strip() else [*every]
    matching.sort(key=lambda job: (job["state"] in TERMINAL, -number_of(job)))
    alone: dict[str, JobView] = {}
    trials: dict[str, list[JobView]] = {}
    heads: list[str] = []
    for job in in_order(matching, columns, order):
        sweep = job["tags"].get("sweep", "")
        if not sweep:
            alone[job["id"]] = job
            heads.append(job["id"])
        elif sweep in trials:
            trials[sweep].append(job)
        else:
            trials[sweep] = [job]
            heads.append(sweep)
    if not trials:
        return Listing(heads, matching=len(matching))
    known = Counter(job["tags"].get("sweep", "") for job in every)
    groups: dict[str, Group] = {}
    for sweep, some in trials.items():
        shown = sweep in unfolded or (len(some) < known[sweep] and sweep not in folded)
        groups[sweep] = Group(sweep, some, known[sweep], sweeps.get(sweep), not shown)
    if order is None or not order.column:  # a sweep lives on between two of its trials
        heads.sort(
            key=lambda key: (
                not groups[key].live if key in groups else alone[key]["state"] in TERMINAL
            )
        )
    keys: list[str] = []
    for key in heads:
        keys.append(key)
        if key in groups and not groups[key].folded:
            keys += [job["id"] for job in groups[key].trials]
    return Listing(keys, groups, len(matching))


def group_line(group: Group, layout: Sequence[tuple[Column[JobView], int]], glyphs: Glyphs) -> Line:
    """A sweep's row: its id and state where jobs have theirs, then what its trials come to."""
    state = group.sweep["state"] if group.sweep else "RUNNING" if group.live else ""
    shape = f"{state_glyph(state, glyphs)} {state}" if state else ""
    cells = {
        "id": (f"{glyphs.crumb if group.folded else glyphs.down} {group.id}", "strong"),
        "state": (shape, STATE_TONE.get(state, "")),
    }
    out = [Span(" ")]
    for column, width in layout:
        if column.title in cells:
            text, tone = cells[column.title]
            out.append(Span(fit(text, width, ellipsis=glyphs.ellipsis) + " ", tone))
    return (*out, *group.words(glyphs))
