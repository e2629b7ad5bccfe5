"""Shadow traffic: what a new version answered to copies of requests, beside the running one's answers. Pure.

Each replica of the running version counts what became of its copies. Its counts only grow while its program
runs (`Sources` are named by that), and all of them are stored: reading one twice, or late, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.services.histogram import UNCOUNTED, Seen


@dataclass(frozen=True, slots=True)
class Output:
    """One output of both versions, row by row.

    Attributes:
        rows: that were compared.
        same: of them, those that say the same: equal, the same largest of several numbers, or one number
            within a thousandth.
        numbers: pairs of numbers; `apart` the sum of their distances, `most` the largest.
    """

    rows: int = 0
    same: int = 0
    numbers: int = 0
    apart: float = 0.0
    most: float = 0.0

    def __add__(self, other: Output) -> Output:
        return Output(
            self.rows + other.rows,
            self.same + other.same,
            self.numbers + other.numbers,
            self.apart + other.apart,
            max(self.most, other.most),
        )

    @property
    def mean(self) -> float | None:
        """Of the distances; None without numbers."""
        return self.apart / self.numbers if self.numbers else None


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of copies. `old` and `new` are the answers of both versions to the same requests, timed
    inside the model server; `dropped` copies were never sent: nobody waits for them."""

    old: Seen = UNCOUNTED
    new: Seen = UNCOUNTED
    dropped: int = 0
    outputs: Mapping[str, Output] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tally:
        """Raises ValueError, KeyError, TypeError or AttributeError for what is none."""
        outputs = {str(name): Output(**one) for name, one in data["outputs"].items()}
        for one in outputs.values():
            if not all(value >= 0 and math.isfinite(value) for value in asdict(one).values()):
                raise ValueError("not what was counted")
        old, new = Seen.from_json(data["old"]), Seen.from_json(data["new"])
        return cls(old, new, int(data["dropped"]), outputs)

    def to_json(self) -> dict[str, Any]:
        outputs = {name: asdict(one) for name, one in self.outputs.items()}
        both = {"old": self.old.to_json(), "new": self.new.to_json()}
        return {**both, "dropped": self.dropped, "outputs": outputs}

    def __add__(self, other: Tally) -> Tally:
        outputs = dict(self.outputs)
        for name, one in other.outputs.items():
            outputs[name] = outputs.get(name, Output()) + one
        return Tally(
            self.old + other.old, self.new + other.new, self.dropped + other.dropped, outputs
        )

    @property
    def size(self) -> int:
        """It only grows."""
        return self.new.seen + self.dropped

    @property
    def agree(self) -> float | None:
        """Share of rows that say the same, of the output where fewest do; None before there are any."""
        shares = [one.same / one.rows for one in self.outputs.values() if one.rows]
        return min(shares, default=None)


Sources = Mapping[str, Tally]


def merged(known: Sources, told: Sources) -> dict[str, Tally]:
    """Of each source what it said last."""
    both = dict(known)
    for name, tally in told.items():
        if name not in both or tally.size > both[name].size:
            both[name] = tally
    return both


def total(sources: Sources) -> Tally:
    found = Tally()
    for tally in sources.values():
        found += tally
    return found


def words(tally: Tally) -> str:
    """What the answers came to, output by output."""
    texts = []
    for name, one in sorted(tally.outputs.items()):
        if one.rows:
            text = (
                f"{name} is the same in {one.same} of {one.rows} rows ({one.same / one.rows:.1%})"
            )
            if one.mean is not None:
                text += f", {one.mean:.3g} apart on average, {one.most:.3g} at most"
            texts.append(text)
    return "; ".join(texts)
