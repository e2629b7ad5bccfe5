"""Population-based training (Jaderberg et al., 2017): who goes on, with what, as pure decisions.

A population has members, and each trains in turns, its generations. A turn is a trial: it begins with
the checkpoint of another one and leaves its own. A member whose last turn was among the worst of its
generation gives its own up: it *exploits* one of the best, whose checkpoint and parameters it copies,
and *explores*, which is to change the copied parameters a little.

No generation waits for its slowest: a member goes on as soon as half of all have come as far as it.
Members are compared at the same generation only, after the same amount of training.

A person may have a turn run again: the same point, begun where that turn began. If it ends with a value
and a checkpoint, it takes that turn's place for all that is decided from then on; what others have
begun from the old one stays as it is.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.spec.command import Scalar
from jobs.sweeps.space import Parameter, Space, ordered, same

_TRIES = 100
"""Explorations after which a point that breaks no constraint is given up: the copied one is kept."""


@dataclass(frozen=True, slots=True)
class Population:
    """How a population trains.

    Args:
        size: how many members.
        generations: how many turns each has.
        until: a parameter of the job that says how far to train; of generation g it is
            `(g + 1) * interval`. None: the job trains as far as it does, from its checkpoint on.
        explore: the parameters that are changed when they are copied.
        factors: what a number may be multiplied by.
        resample: how likely a parameter is drawn anew instead.
        quantile: which share of a generation is among its worst, or its best.
    """

    size: int
    generations: int
    until: str | None
    interval: int
    explore: tuple[str, ...]
    factors: tuple[float, ...]
    resample: float
    quantile: float

    @classmethod
    def of(cls, options: Mapping[str, Any], space: Space) -> Population:
        """The population that options of `pbt` ask for, with the defaults."""
        return cls(
            size=options["population"],
            generations=options["generations"],
            until=options.get("until"),
            interval=options.get("interval", 1),
            explore=tuple(options.get("explore", space)),
            factors=tuple(options.get("factors", (0.8, 1.25))),
            resample=options.get("resample", 0.25),
            quantile=options.get("quantile", 0.25),
        )

    def told(self, generation: int) -> dict[str, Scalar]:
        """What a turn's job is told beside its point."""
        return {} if self.until is None else {self.until: (generation + 1) * self.interval}


@dataclass(frozen=True, slots=True)
class Turn:
    """A trial of a population.

    Args:
        over: it has ended.
        value: of its objective; None while it is open, and when it failed.
        feasible: it meets the sweep's constraints.
        checkpoint: it left one.
        parent: the trial whose checkpoint it began with, or that it runs again.
        again: it runs another turn again.
    """

    number: int
    member: int
    generation: int
    params: Mapping[str, Scalar]
    over: bool
    value: float | None = None
    feasible: bool = True
    checkpoint: bool = False
    parent: int | None = None
    again: bool = False

    @property
    def place(self) -> tuple[int, int]:
        return self.member, self.generation

    @property
    def usable(self) -> bool:
        """Whether a turn may begin where it ended."""
        return self.value is not None and self.checkpoint


@dataclass(frozen=True, slots=True)
class Next:
    """A turn to begin.

    Args:
        params: its point; what a first one leaves out is drawn.
        parent: the trial whose checkpoint it begins with; None for a first one. Of one that runs
            another again, that one.
        again: which of the turns that are to run again (`pending`) it is.
    """

    member: int
    generation: int
    params: dict[str, Scalar]
    parent: int | None
    origin: Literal["drawn", "enqueued", "continued", "copied", "rerun"]
    again: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The turns to begin now. `stuck`: why there can be no further one, ever."""

    turns: tuple[Next, ...]
    stuck: str = ""


def choose(
    population: Population,
    space: Space,
    turns: Sequence[Turn],
    count: int,
    *,
    maximize: bool,
    enqueued: Sequence[Mapping[str, Scalar]],
    admits: Callable[[Mapping[str, Scalar]], bool],
    seed: str,
    reruns: Sequence[int] = (),
) -> Choice:
    """Which turns to begin, those that lag behind first; at most `count` of them.

    Args:
        turns: all so far.
        enqueued: points that the first members begin with.
        admits: whether a point breaks no constraint.
        seed: the same seed and the same turns give the same choice, also after a restart.
        reruns: numbers of the turns that a person has had run again, in that order; they come first.
    """
    standing, ended = _standing(turns), _standing(turn for turn in turns if turn.over)
    newest = _newest(standing.values())
    by_number = {turn.number: turn for turn in turns}
    chosen: list[Next] = []
    waiting = 0
    held = set()  # members whose next turn depends on one that is to run again first
    for index, number in pending(reruns, turns):
        known = by_number[number]
        held.add(known.place)
        member, generation = known.place
        chosen.append(Next(member, generation, dict(known.params), number, "rerun", index))
    for member in range(population.size):
        if member not in newest:
            point = dict(enqueued[member]) if member < len(enqueued) else {}
            origin: Literal["drawn", "enqueued"] = "enqueued" if point else "drawn"
            chosen.append(Next(member, 0, point, None, origin))
    ready = [
        turn
        for turn in newest.values()
        if turn.over and turn.generation + 1 < population.generations and turn.place not in held
    ]
    for turn in sorted(ready, key=lambda turn: (turn.generation, turn.member)):
        rng = random.Random(f"{seed}:{turn.member}:{turn.generation + 1}")  # noqa: S311
        peers = [peer for peer in ended.values() if peer.generation == turn.generation]
        parent = _parent(population, turn, peers, maximize, rng)
        if parent is None:
            waiting += 1
            continue
        if parent is turn:
            params = dict(turn.params)
        else:
            params = _explored(population, space, parent.params, admits, rng)
        how: Literal["continued", "copied"] = "continued" if parent is turn else "copied"
        chosen.append(Next(turn.member, turn.generation + 1, params, parent.number, how))
    is_open = any(not turn.over for turn in turns)
    if not chosen and not is_open and waiting:
        return Choice((), f"no checkpoint to go on with: {waiting} members failed, or left none")
    return Choice(tuple(chosen[:count]))


def _standing(turns: Iterable[Turn]) -> dict[tuple[int, int], Turn]:
    """Of each place (member, generation) the turn that counts. One that ran again counts while it is
    open, and for good unless it has failed where the one before had not."""
    found: dict[tuple[int, int], Turn] = {}
    for turn in sorted(turns, key=lambda turn: turn.number):
        known = found.get(turn.place)
        if known is None or not turn.over or turn.usable or not known.usable:
            found[turn.place] = turn
    return found


def _newest(standing: Iterable[Turn]) -> dict[int, Turn]:
    """Each member's turn of its latest generation."""
    found: dict[int, Turn] = {}
    for turn in standing:
        if turn.member not in found or turn.generation > found[turn.member].generation:
            found[turn.member] = turn
    return found


def pending(reruns: Sequence[int], turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """Those of the turns to run again that have not begun: (place in `reruns`, number)."""
    begun = Counter(turn.parent for turn in turns if turn.again)
    found = []
    for index, number in enumerate(reruns):
        if begun[number] > 0:
            begun[number] -= 1
        else:
            found.append((index, number))
    return found


def start_of(turn: Turn, by_number: Mapping[int, Turn]) -> int | None:
    """The trial whose checkpoint a turn begins with, None for a first one."""
    while turn.again:
        assert turn.parent is not None
        turn = by_number[turn.parent]
    return turn.parent


def spent(
    population: Population, turns: Sequence[Turn], *, maximize: bool, reruns: Sequence[int] = ()
) -> set[int]:
    """Turns whose checkpoints no further turn can begin with, now or ever.

    Kept are those of the generation that the slowest member is in and of all later ones, among which
    its parent will be, what open turns began with and turns that are to run again will, and the best.
    """
    newest = _newest(_standing(turns).values())
    slowest = min((turn.generation for turn in newest.values()), default=0)
    if len(newest) < population.size:
        slowest = 0
    by_number = {turn.number: turn for turn in turns}
    waited_for = [by_number[number] for _, number in pending(reruns, turns)]
    waited_for += [turn for turn in turns if not turn.over]
    kept: set[int | None] = {start_of(turn, by_number) for turn in waited_for}
    good = [turn for turn in turns if turn.usable and turn.feasible]
    if good:
        kept.add(max(good, key=lambda turn: (turn.value or 0.0) * (1 if maximize else -1)).number)
    return {
        turn.number
        for turn in turns
        if turn.checkpoint and turn.generation < slowest and turn.number not in kept
    }


def _parent(
    population: Population, turn: Turn, peers: Sequence[Turn], maximize: bool, rng: random.Random
) -> Turn | None:
    """Whose checkpoint a member goes on with; None when that cannot be said yet."""
    if len(peers) < math.ceil(population.size / 2):
        return None

    def worth(peer: Turn) -> tuple[bool, bool, float]:
        value = peer.value if peer.value is not None else -math.inf
        return peer.usable, peer.feasible, value if maximize else -value

    ranked = sorted(peers, key=lambda peer: (worth(peer), -peer.number), reverse=True)
    share = max(int(len(ranked) * population.quantile), 1)
    best = [peer for peer in ranked[:share] if peer.usable]
    if not best:
        return None
    worst = turn in ranked[-share:] and turn not in best and worth(turn) != worth(best[-1])
    return rng.choice(best) if worst or not turn.usable else turn


def _explored(
    population: Population,
    space: Space,
    params: Mapping[str, Scalar],
    admits: Callable[[Mapping[str, Scalar]], bool],
    rng: random.Random,
) -> dict[str, Scalar]:
    for _ in range(_TRIES):
        found = explore(population, space, params, rng)
        if admits(found):
            return found
    return dict(params)


def explore(
    population: Population, space: Space, params: Mapping[str, Scalar], rng: random.Random
) -> dict[str, Scalar]:
    """A point near another: of its parameters, those in `explore` are changed a little."""
    found: dict[str, Scalar] = {}
    for name in ordered(space):
        parameter = space[name]
        if not parameter.applies(found):
            continue
        if name not in params:  # it begins to apply, since another one has changed
            found[name] = draw(parameter, rng)
        elif name not in population.explore:
            found[name] = params[name]
        elif rng.random() < population.resample:
            found[name] = draw(parameter, rng)
        else:
            found[name] = _nearby(parameter, params[name], rng.choice(population.factors))
    return {name: found[name] for name in space if name in found}


def draw(parameter: Parameter, rng: random.Random) -> Scalar:
    """Any of its values, each as likely as the others; of a logarithmic range, by its logarithm."""
    count = parameter.count if parameter.choices is not None or parameter.step else None
    if count is not None:
        return parameter.value(rng.randrange(count))
    low, high = float(parameter.low or 0), float(parameter.high or 0)
    if parameter.log:
        return _fitted(parameter, math.exp(rng.uniform(math.log(low), math.log(high))))
    if parameter.is_int:
        return rng.randint(int(low), int(high))
    return _fitted(parameter, rng.uniform(low, high))


def _nearby(parameter: Parameter, value: Scalar, factor: float) -> Scalar:
    """A number times the factor, or one of the two values beside it when it stays where it is; of
    choices that are no numbers, the same."""
    step = 1 if factor > 1 else -1
    if parameter.choices is None and parameter.step and (count := parameter.count) is not None:
        return parameter.value(min(max((parameter.place(value) or 0) + step, 0), count - 1))
    if parameter.choices is None:
        assert isinstance(value, int | float)
        moved = _fitted(parameter, value * factor)
        if moved == value and parameter.is_int:
            moved = _fitted(parameter, value + (1 if factor > 1 else -1))
        return moved
    listed = parameter.choices
    if any(isinstance(item, bool) or not isinstance(item, int | float) for item in listed):
        return value
    numbers = sorted(listed, key=float)  # type: ignore[arg-type]  # all are numbers
    at = next((i for i, item in enumerate(numbers) if same(item, value)), 0)
    return numbers[min(max(at + step, 0), len(numbers) - 1)]


def _fitted(parameter: Parameter, value: float) -> int | float:
    low, high = float(parameter.low or 0), float(parameter.high or 0)
    kept = min(max(value, low), high)
    return round(kept) if parameter.is_int else kept
