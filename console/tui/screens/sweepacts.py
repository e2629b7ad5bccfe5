"""What a person does to a sweep and its trials, and with its past: steer, copy, save, replay."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from textual.timer import Timer

from console.tui import outside
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.sweeps import commands, replay
from console.tui.screens.sweepask import Ask
from console.tui.screens.sweeppictures import PictureActions
from jobs.base.errors import QuarterdeckError
from jobs.wire.sweepviews import SweepView, TrialView

FRAME = 0.25
"""Seconds between two pictures of a replay."""


@dataclass(frozen=True, slots=True)
class Look:
    """How values are looked at: on a logarithmic scale, and over time rather than over trials."""

    log: bool = False
    by_time: bool = False


class SweepActions(PictureActions):
    """Attributes:
    at: the moment that is shown, in seconds since the epoch; None for the present.
    """

    sweep_id: str
    _present: SweepView
    _sorted: Sequence[TrialView]

    def __init__(self) -> None:
        super().__init__()
        self.at: float | None = None
        self.look = Look()
        self.best: TrialView | None = None
        self.front: Sequence[TrialView] = ()  # of several objectives
        self._key: object = None
        self._row_key: object = None
        self._keys: list[str] = []
        self._by_number: Mapping[str, TrialView] = {}
        self._playing: Timer | None = None

    def picked(self) -> list[TrialView]:
        """The trials that are marked, else the one that the cursor is on."""
        raise NotImplementedError

    def open_trial(self) -> None:
        if trial := self.one():
            self.deck.open_job(trial["job"])

    def one(self) -> TrialView | None:
        return None if self.chosen is None else self._by_number.get(str(self.chosen))

    # Steering. What has passed cannot be steered.

    def _ask_for(self, make: Callable[[SweepView], Command | Refusal]) -> None:
        if self.sweep is None:
            return
        if self.at is not None:
            self.propose(Refusal("This is a replay: R comes back to the present."))
        else:
            self.propose(make(self._present))

    def do_trial_prune(self) -> None:
        self._ask_for(lambda sweep: commands.prune(sweep, self.picked()))

    def do_trial_pin(self) -> None:
        self._ask_for(lambda sweep: commands.pin(sweep, self.picked()))

    def do_trial_rerun(self) -> None:
        self._ask_for(lambda sweep: commands.rerun(sweep, self.picked()))

    def do_sweep_pause(self) -> None:
        self._ask_for(lambda sweep: commands.pause([sweep]))

    def do_sweep_stop(self) -> None:
        self._ask_for(lambda sweep: commands.stop([sweep]))

    def do_sweep_extend(self) -> None:
        if self.sweep is not None:
            self._type("limits", commands.limits_text(self._present), commands.extend)

    def do_sweep_parallel(self) -> None:
        if self.sweep is not None:
            text = str(self._present["parallel"])
            self._type("trials at a time", text, commands.parallel)

    def do_sweep_add(self) -> None:
        trial, axes = self.one(), {axis.name: axis for axis in self.axes if axis.name}
        text = commands.point_text(trial["params"]) if trial else ""
        self._type("a point to try", text, lambda sweep, typed: commands.add(sweep, typed, axes))

    def _type(
        self, title: str, text: str, judge: Callable[[SweepView, str], Command | Refusal]
    ) -> None:
        """Ask for a line; what it does stands below it while it is typed, so enter is an answer."""

        def answered(command: Command | None) -> None:
            if command is not None:
                self.deck.do(command)

        self.deck.push_screen(Ask(title, text, lambda typed: judge(self._present, typed)), answered)

    # Taking away.

    def do_params_copy(self) -> None:
        if trials := self.picked():
            self.deck.copy("\n".join(json.dumps(trial["params"]) for trial in trials))

    def do_sweep_save(self) -> None:
        if self.sweep is None:
            return
        text = as_csv(self._present, self._sorted)
        folder, name = outside.here(), self.sweep_id

        def save() -> str:
            try:
                path = outside.new_file(folder, name, ".csv")
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise QuarterdeckError(f"{folder}/{name}.csv: {error.strerror}") from error
            return str(path)

        self.deck.fetch("save", save)

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        if key == "save" and error is None:
            self.deck.tell(f"{len(self._sorted)} trials are saved in {value}.")

    # How values are looked at.

    def do_sweep_log(self) -> None:
        self.look = replace(self.look, log=not self.look.log)
        self.look_again()

    def do_sweep_axis(self) -> None:
        self.look = replace(self.look, by_time=not self.look.by_time)
        self.look_again()

    # Replay.

    def _extent(self) -> tuple[float, float]:
        return replay.extent(self._present, self._sorted, self.deck.clock.wall())

    def do_sweep_replay(self) -> None:
        """From the beginning; or back to the present."""
        if self.sweep is None:
            return
        self._stop_playing()
        if self.at is None:
            self.at = self._extent()[0]
            self._playing = self.set_interval(FRAME, self._play)
        else:
            self.at = None
        self.look_again()

    def _play(self) -> None:
        begin, end = self._extent()
        if self.at is None or self.at >= end or self.deck.top is not self:
            self._stop_playing()
        else:
            self.at = min(end, self.at + (end - begin) * FRAME / replay.LENGTH)
            self.look_again()

    def _stop_playing(self) -> None:
        if self._playing is not None:
            self._playing.stop()
            self._playing = None

    def do_replay_on(self) -> None:
        self._go(1)

    def do_replay_back(self) -> None:
        self._go(-1)

    def _go(self, by: int) -> None:
        """A step in time; the first one back leaves the present."""
        if self.sweep is None:
            return
        self._stop_playing()
        begin, end = self._extent()
        at = (end if self.at is None else self.at) + by * (end - begin) / replay.STEPS
        self.at = None if at > end else max(begin, at)
        self.look_again()


def as_csv(sweep: SweepView, trials: Sequence[TrialView]) -> str:
    """One line per trial: what is known of it, its values, its parameters."""
    metrics = [objective["metric"] for objective in sweep["objectives"]]
    names = list(dict.fromkeys(name for trial in trials for name in trial["params"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = ("number", "state", "job", "started_at", "ended_at", "gpu_hours", "reason")
    writer.writerow(
        [*fixed, *(f"value.{name}" for name in metrics), *(f"param.{n}" for n in names)]
    )
    for trial in trials:
        values: list[Any] = list(trial["values"] or ())
        values += [None] * (len(metrics) - len(values))
        held: Mapping[str, Any] = trial
        params = [trial["params"].get(name) for name in names]
        writer.writerow([*(held[name] for name in fixed), *values, *params])
    return text.getvalue()
