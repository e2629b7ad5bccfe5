"""Two samples of one feature, or of all of them: do they differ, and by how much (pure).

Every test gives the chance of a difference at least as large while nothing has changed (p). The distances
say how large a difference is, whatever the number of rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

Floats = np.ndarray[Any, np.dtype[np.float64]]

BINS = 10
"""Of a histogram, and of PSI: deciles of the reference."""
TOP = 50
"""Categories that are compared one by one, the most frequent ones; the others together."""
SEEN = 5
"""How often a category must have been seen to be compared by itself (Cochran's rule for chi-square)."""
CLOSE = 50.0
"""Expected counts from which the normal approximation of a share is exact enough."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two samples are apart.

    Attributes:
        size: of numbers, Wasserstein's first distance in standard deviations of the reference; of
            categories, the Jensen-Shannon distance (base 2, from 0 to 1).
        psi: population stability index; below 0.1 counts as stable, above 0.25 as shifted (Siddiqi, Credit
            Risk Scorecards, 2006).
        statistic: Kolmogorov and Smirnov's D; of categories, chi-square.
    """

    p: float
    size: float
    psi: float
    statistic: float


def ks(reference: Floats, window: Floats) -> tuple[float, float]:
    """Kolmogorov and Smirnov's D of two sorted samples, and its p by the limiting distribution.

    Between two values of the window the difference of the distribution functions only grows, so it is
    largest at one of them, or just before it.
    """
    n, m = reference.size, window.size
    at = (
        np.searchsorted(reference, window, "right") / n
        - np.searchsorted(window, window, "right") / m
    )
    before = (
        np.searchsorted(window, window, "left") / m - np.searchsorted(reference, window, "left") / n
    )
    d = float(max(np.abs(at).max(), np.abs(before).max()))
    return d, float(special.kolmogorov(d * math.sqrt(n * m / (n + m))))


def wasserstein(one: Floats, other: Floats) -> float:
    """The first distance of two sorted samples: the area between their distribution functions."""
    both = np.sort(np.concatenate([one, other]))
    at = both[:-1]
    gap = np.abs(
        np.searchsorted(one, at, "right") / one.size
        - np.searchsorted(other, at, "right") / other.size
    )
    return float(gap @ np.diff(both))


class Numbers:
    """A reference of finite numbers, not empty, made ready for many windows."""

    def __init__(self, values: Floats) -> None:
        self.ordered = np.sort(values)
        self.middle = np.median(self.ordered)
        self.spread = np.sort(np.abs(self.ordered - self.middle))
        self.deviation = float(self.ordered.std())
        self.edges = quantile_edges(self.ordered)

    def p(self, ordered: Floats) -> tuple[float, float]:
        """D, and the p that two tests share: of the values, and of how far they are from the reference's
        median. The second sees a change of spread, for which the first alone is weak."""
        d, p = ks(self.ordered, ordered)
        _, spread = ks(self.spread, np.sort(np.abs(ordered - self.middle)))
        return d, min(1.0, 2 * min(p, spread))

    def compare(self, window: Floats) -> Distance:
        """With the finite numbers of a window, at least one."""
        ordered = np.sort(window)
        d, p = self.p(ordered)
        moved = wasserstein(self.ordered, ordered)
        size = moved / self.deviation if self.deviation > 0 else float(moved > 0)
        return Distance(p, size, psi(*binned(self.ordered, ordered, self.edges)), d)


def quantile_edges(ordered: Floats) -> Floats:
    """Inner edges of bins that hold about as much of the sample each; fewer where values repeat."""
    return np.unique(np.quantile(ordered, np.linspace(0, 1, BINS + 1)[1:-1]))


def binned(one: Floats, other: Floats, edges: Floats) -> tuple[Floats, Floats]:
    """How many of each sample are in each bin; a value on an edge belongs to the bin below."""
    bins = len(edges) + 1
    counts = [
        np.bincount(np.searchsorted(edges, sample, "left"), minlength=bins).astype(float)
        for sample in (one, other)
    ]
    return counts[0], counts[1]


def psi(reference: Floats, window: Floats) -> float:
    """Population stability index of two histograms. Half a count is added to each bin: none is empty."""
    p, q = _shares(reference + 0.5), _shares(window + 0.5)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(reference: Floats, window: Floats) -> float:
    """The distance of two histograms, base 2: 0 for equal ones, 1 where they share nothing."""
    p, q = _shares(reference), _shares(window)
    mean = (p + q) / 2
    divergence = special.rel_entr(p, mean).sum() + special.rel_entr(q, mean).sum()
    return math.sqrt(max(0.0, float(divergence) / 2 / math.log(2)))


def _shares(counts: Floats) -> Floats:
    shares: Floats = counts / max(counts.sum(), 1e-300)
    return shares


class Categories:
    """A reference of categories, not empty, made ready for many windows.

    Which categories are compared is decided by one half of it, and the other half is compared: to choose
    cells by the counts that are tested makes differences of what is merely rare. What that half has not
    seen is a test of its own, which finds a new category.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self.known, self.held = Counter(values[::2]), Counter(values[1::2])
        self.names = [name for name, count in self.known.most_common(TOP) if count >= SEEN]
        self.whole = self.known + self.held
        self.unseen = sum(n for name, n in self.held.items() if name not in self.known)

    def p(self, seen: Counter[str]) -> tuple[float, float]:
        """Chi-square, and the p that both tests share."""
        cells = np.array([[self.held[name], seen[name]] for name in self.names], float)
        cells = cells.reshape(-1, 2)
        of_held, of_seen = self.held.total(), seen.total()
        table = np.vstack([cells, [of_held, of_seen] - cells.sum(axis=0)])
        statistic, p = chi_square(table[table.sum(axis=1) >= 2 * SEEN])
        unseen = sum(n for name, n in seen.items() if name not in self.known)
        return statistic, min(1.0, 2 * min(p, shares(self.unseen, of_held, unseen, of_seen)))

    def compare(self, window: Sequence[str]) -> Distance:
        """With the categories of a window, at least one."""
        seen = Counter(window)
        statistic, p = self.p(seen)
        every = [*self.whole, *(name for name in seen if name not in self.whole)]
        before = np.array([self.whole[name] for name in every], float)
        after = np.array([seen[name] for name in every], float)
        return Distance(p, jensen_shannon(before, after), psi(before, after), statistic)


def chi_square(table: Floats) -> tuple[float, float]:
    """Pearson's test of homogeneity. `table` is cells by samples; p is 1 with fewer than two cells."""
    if len(table) < 2 or not table.sum(axis=0).all():
        return 0.0, 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return statistic, float(special.chdtrc(len(table) - 1, statistic))


def shares(one: int, of_one: int, other: int, of_other: int) -> float:
    """p of two counts, each out of so many: Fisher's exact test (twice the smaller tail), or its normal
    approximation where both are large."""
    total, size = one + other, of_one + of_other
    if total in (0, size) or not of_one or not of_other:
        return 1.0
    smallest = min(total, size - total) * min(of_one, of_other) / size
    if smallest >= CLOSE:
        mean = total / size
        z = (one / of_one - other / of_other) / math.sqrt(
            mean * (1 - mean) * (1 / of_one + 1 / of_other)
        )
        return float(special.erfc(abs(z) / math.sqrt(2)))
    low, high = max(0, total - of_other), min(total, of_one)
    k = np.arange(low, high + 1)
    logs = _choose(of_one, k) + _choose(of_other, total - k) - _choose(size, np.array(total))
    chances = np.exp(logs)
    return float(min(1.0, 2 * min(chances[k <= one].sum(), chances[k >= one].sum())))


def _choose(n: int, k: Any) -> Any:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def adjusted(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values ("Controlling the False Discovery Rate", Journal of the
    Royal Statistical Society B 57, 1995), in the given order.

    While nothing has changed at all, the chance that the smallest one is below a level is at most that
    level, when the tests are independent or positively dependent (Benjamini and Yekutieli, 2001).
    """
    if not len(p):
        return []
    values = np.asarray(p, float)
    order = np.argsort(values)
    scaled = values[order] * len(values) / np.arange(1, len(values) + 1)
    found = np.empty(len(values))
    found[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return [float(value) for value in found]


@dataclass(frozen=True, slots=True)
class Joint:
    """A classifier's accuracy at telling window from reference, on `rows` that it has not seen."""

    accuracy: float
    p: float
    rows: int


def classifier(reference: Floats, window: Floats, seed: int = 0, most: int = 5000) -> Joint:
    """The classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017), with a ridge discriminant on the
    features, their squares, and, for up to 12 of them, their products.

    Args:
        reference, window: rows by features, finite.
        most: rows of each that are used; as many of one as of the other.
    """
    dice = np.random.default_rng(seed)
    count = min(len(reference), len(window), most) // 2 * 2
    parts = [
        sample[dice.permutation(len(sample))[:count]].astype(float)
        for sample in (reference, window)
    ]
    both = np.vstack(parts)
    deviation = both.std(axis=0)
    kept = deviation > 0
    both = np.clip((both[:, kept] - both[:, kept].mean(axis=0)) / deviation[kept], -10, 10)
    width = both.shape[1]
    pairs = [both**2]
    if width <= 12:
        pairs += [both[:, [i]] * both[:, i + 1 :] for i in range(width)]
    both = np.hstack([both, *pairs])
    half = count // 2
    one, other = both[:half], both[count : count + half]
    means = one.mean(axis=0), other.mean(axis=0)
    centred = np.vstack([one - means[0], other - means[1]])
    spread = centred.T @ centred / max(1, len(centred))
    spread[np.diag_indices_from(spread)] += 0.05 + 1e-9
    weights = np.linalg.solve(spread, means[1] - means[0])
    edge = weights @ (means[0] + means[1]) / 2
    tested = count - half
    right = int((both[half:count] @ weights < edge).sum())
    right += int((both[count + half :] @ weights > edge).sum())
    p = float(special.bdtrc(right - 1, 2 * tested, 0.5)) if right else 1.0
    return Joint(right / max(1, 2 * tested), p, 2 * tested)
