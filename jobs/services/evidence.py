"""Is the new version worse than the running one? A sequential test that may be looked at at any time.

The safe test of two proportions by Turner, Ly and Grünwald ("Generic E-variables for exact sequential
k-sample tests that allow for optional stopping", Journal of Statistical Planning and Inference 230, 2024,
equation 2). Requests come in blocks, of which `a` went to the running version and `b` to the new one. For
any chances pa < pb, fixed before the block is seen, with p0 = (a·pa + b·pb) / (a + b),

    E = Π over running: P(y | pa) / P(y | p0)  ·  Π over new: P(y | pb) / P(y | p0)

has an expectation of at most 1 while the new version is no worse, whatever the two chances are. So the
product over blocks passes 1/α with a chance of at most α (Ville), however often somebody looks, and whenever
the rollout stops. pa is what the running version has shown in earlier blocks; pb has some times its odds. A
mean of such products, over several ratios, is one again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ODDS = (1.5, 2.0, 4.0, 10.0, 40.0)
"""Ratios of the odds that are bet on: what is a little worse shows late, what is broken at once."""

_SEEN, _BAD = 10.0, 0.2
"""What is believed of a version before its first request: some 2 % go wrong, and not firmly."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of one block, and how many of them went wrong."""

    seen: int = 0
    bad: int = 0

    @property
    def share(self) -> float:
        return self.bad / self.seen if self.seen else 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.seen + other.seen, self.bad + other.bad)


NONE = Counts()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What has been seen so far. `bets` are the logarithms of the products, one for each of `ODDS`."""

    old: Counts = NONE
    new: Counts = NONE
    bets: tuple[float, ...] = (0.0,) * len(ODDS)

    def and_also(self, old: Counts, new: Counts) -> Evidence:
        """With one more block."""
        if not old.seen and not new.seen:
            return self
        pa = (self.old.bad + _BAD) / (self.old.seen + _SEEN)
        bets = tuple(
            bet + _log_e(pa, _times_odds(pa, ratio), old, new)
            for bet, ratio in zip(self.bets, ODDS, strict=True)
        )
        return Evidence(self.old + old, self.new + new, bets)

    @property
    def log_e(self) -> float:
        """Logarithm of the e-value: how many times the bets have multiplied their stake."""
        highest = max(self.bets)
        return highest + math.log(
            sum(math.exp(bet - highest) for bet in self.bets) / len(self.bets)
        )

    def against(self, alpha: float) -> bool:
        """Whether the new version is worse, with a chance of at most `alpha` of ever saying so wrongly."""
        return self.log_e >= -math.log(alpha)


UNSEEN = Evidence()


def _times_odds(chance: float, ratio: float) -> float:
    odds = ratio * chance / (1 - chance)
    return odds / (1 + odds)


def _log_e(pa: float, pb: float, old: Counts, new: Counts) -> float:
    p0 = (old.seen * pa + new.seen * pb) / (old.seen + new.seen)
    return _gain(pa, p0, old) + _gain(pb, p0, new)


def _gain(chance: float, p0: float, counts: Counts) -> float:
    good = counts.seen - counts.bad
    return counts.bad * math.log(chance / p0) + good * math.log((1 - chance) / (1 - p0))
