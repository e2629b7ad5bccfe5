"""Samplers and pruners by name, with the options that each takes.

A strategy is written as its name, or as a mapping of the name to its options: `tpe`, or
`asha: {min_steps: 1, reduction: 3}`. Options have our names, which are the same for all strategies;
those of Optuna are taken too. Making the Optuna object is the controller's business: this module only
knows what may be asked for, so that a command can check a file without importing Optuna.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.base.units import show
from jobs.spec.problems import Problem

Kind = Literal["int", "float", "bool", "word", "name", "names", "factors", "pruner"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Args:
        keyword: what Optuna calls it.
        low, high: bounds of a number, both included.
        words: what a word may be.
    """

    keyword: str
    kind: Kind = "int"
    low: float = 0
    high: float = math.inf
    words: tuple[str, ...] = ()
    required: bool = False

    def problem_with(self, value: Any) -> str:
        """Why `value` cannot be this option's, in words; empty when it can."""
        if self.kind == "bool":
            fits, allowed = isinstance(value, bool), "true or false"
        elif self.kind == "word":
            fits, allowed = value in self.words, ", ".join(self.words)
        elif self.kind == "name":
            fits, allowed = isinstance(value, str) and value.isidentifier(), "a name"
        elif self.kind == "names":
            fits = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
            fits, allowed = fits and bool(value), "a list of names"
        elif self.kind == "factors":
            fits = isinstance(value, list | tuple) and all(map(_is_factor, value))
            fits, allowed = fits and bool(value), "a list of numbers above 0"
        else:
            number = int if self.kind == "int" else int | float
            fits = isinstance(value, number) and not isinstance(value, bool)
            fits = fits and self.low <= value <= self.high
            allowed = "a whole number" if self.kind == "int" else "a number"
            if self.high < math.inf:
                allowed += f" from {self.low:g} to {self.high:g}"
            elif self.low > -math.inf:
                allowed += f", at least {self.low:g}"
        return "" if fits else f"found {show(value)}; allowed: {allowed}"


def _is_factor(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


@dataclass(frozen=True, slots=True)
class Entry:
    """A sampler or pruner.

    Args:
        needs: packages that it needs on the controller beside Optuna.
        several: it takes more than one objective.
        learns: an earlier sweep's trials tell it something.
        apart: pairs of options of which at most one may be on.
    """

    options: Mapping[str, Option] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    several: bool = False
    learns: bool = False
    apart: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Strategy:
    """What was asked for: a name and its options, as they were written."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {self.name: dict(self.options)}

    def keywords(self, table: Mapping[str, Entry]) -> dict[str, Any]:
        """Its options by Optuna's names."""
        known = table[self.name].options
        return {
            known[name].keyword if name in known else name: value
            for name, value in self.options.items()
        }


CROSSOVERS = {
    "uniform": "UniformCrossover",
    "blx-alpha": "BLXAlphaCrossover",
    "sbx": "SBXCrossover",
    "spx": "SPXCrossover",
    "undx": "UNDXCrossover",
    "vsbx": "VSBXCrossover",
}
"""By our names: Optuna's classes."""
_STARTUP = {"startup": Option("n_startup_trials")}
_POPULATION = {
    "population": Option("population_size", low=2),
    "mutation_prob": Option("mutation_prob", "float", 0, 1),
    "crossover_prob": Option("crossover_prob", "float", 0, 1),
    "swapping_prob": Option("swapping_prob", "float", 0, 1),
    "crossover": Option("crossover", "word", words=tuple(CROSSOVERS)),
}
SAMPLERS: dict[str, Entry] = {
    "tpe": Entry(
        {
            **_STARTUP,
            "candidates": Option("n_ei_candidates", low=1),
            "multivariate": Option("multivariate", "bool"),
            "group": Option("group", "bool"),
            "constant_liar": Option("constant_liar", "bool"),
        },
        several=True,
        learns=True,
    ),
    "random": Entry(several=True),
    "grid": Entry(several=True),
    "gp": Entry(
        {**_STARTUP, "deterministic": Option("deterministic_objective", "bool")},
        needs=("torch", "scipy"),
        several=True,
        learns=True,
    ),
    "cmaes": Entry(
        {
            **_STARTUP,
            "sigma": Option("sigma0", "float", 1e-12),
            "population": Option("popsize", low=2),
            "margin": Option("with_margin", "bool"),
            "separable": Option("use_separable_cma", "bool"),
            "adapt": Option("lr_adapt", "bool"),
            "use_pruned": Option("consider_pruned_trials", "bool"),
        },
        needs=("cmaes",),
        learns=True,
        apart=(("separable", "margin"), ("adapt", "separable"), ("adapt", "margin")),
    ),
    "qmc": Entry(
        {
            "sequence": Option("qmc_type", "word", words=("sobol", "halton")),
            "scramble": Option("scramble", "bool"),
        },
        needs=("scipy",),
        several=True,
    ),
    "nsga2": Entry(_POPULATION, several=True, learns=True),
    "nsga3": Entry(
        {**_POPULATION, "dividing": Option("dividing_parameter", low=1)}, several=True, learns=True
    ),
    "pbt": Entry(
        {
            "population": Option("population", low=2, high=1000, required=True),
            "generations": Option("generations", low=1, high=10_000, required=True),
            "until": Option("until", "name"),
            "interval": Option("interval", low=1),
            "explore": Option("explore", "names"),
            "factors": Option("factors", "factors"),
            "resample": Option("resample", "float", 0, 1),
            "quantile": Option("quantile", "float", 0.01, 0.5),
        }
    ),
}
_WARMUP = {
    "warmup": Option("n_warmup_steps"),
    "interval": Option("interval_steps", low=1),
}
_MEDIAN = {**_STARTUP, **_WARMUP, "min_trials": Option("n_min_trials", low=1)}
_HALVING = {
    "min_steps": Option("min_resource", low=1),
    "reduction": Option("reduction_factor", low=2),
    "bootstrap": Option("bootstrap_count"),
}
PRUNERS: dict[str, Entry] = {
    "none": Entry(several=True),
    "median": Entry(_MEDIAN),
    "percentile": Entry(
        {"percentile": Option("percentile", "float", 0, 100, required=True), **_MEDIAN}
    ),
    "asha": Entry({**_HALVING, "grace_rungs": Option("min_early_stopping_rate")}),
    "hyperband": Entry({**_HALVING, "max_steps": Option("max_resource", low=1)}),
    "patient": Entry(
        {
            "patience": Option("patience", required=True),
            "min_delta": Option("min_delta", "float"),
            "then": Option("wrapped_pruner", "pruner"),
        }
    ),
    "wilcoxon": Entry(
        {
            "p_threshold": Option("p_threshold", "float", 0, 1),
            "startup": Option("n_startup_steps"),
        },
        needs=("scipy",),
    ),
    "threshold": Entry(
        {
            "lower": Option("lower", "float", -math.inf),
            "upper": Option("upper", "float", -math.inf),
            **_WARMUP,
        }
    ),
}


def parse(value: object) -> Strategy:
    """A strategy as it is written: `tpe`, `{tpe: {startup: 5}}`. Raises ValueError in words."""
    if isinstance(value, Strategy):
        return value
    if isinstance(value, str):
        return Strategy(value)
    if isinstance(value, Mapping) and len(value) == 1:
        name, options = next(iter(value.items()))
        if isinstance(options, Mapping) or options is None:
            return Strategy(str(name), dict(options or {}))
    raise ValueError(f"found {show(value)}; allowed: a name, or one name with its options")


def faults(strategy: Strategy, table: Mapping[str, Entry], kind: str) -> list[Problem]:
    """What is wrong with a strategy; paths start at its field. `kind` is "sampler" or "pruner"."""
    entry = table.get(strategy.name)
    if entry is None:
        what = f"there is no {kind} {show(strategy.name)}; {_nearest(strategy.name, table)}"
        return [Problem((strategy.name,), what)]
    found = []
    by_keyword = {option.keyword: option for option in entry.options.values()}
    for name, value in strategy.options.items():
        option = entry.options.get(name) or by_keyword.get(name)
        path = (strategy.name, name)
        if option is None:
            what = f"{strategy.name} has no such option; {_nearest(name, entry.options)}"
            found.append(Problem(path, what))
        elif option.kind == "pruner":
            found += [Problem((*path, *inner.path), inner.message) for inner in _inner(value)]
        elif what := option.problem_with(value):
            found.append(Problem(path, what))
    given = set(strategy.options)
    for name, option in entry.options.items():
        if option.required and not {name, option.keyword} & given:
            found.append(Problem((strategy.name,), f"needs {name}"))
    return found or _between(strategy, entry, table)


def _between(strategy: Strategy, entry: Entry, table: Mapping[str, Entry]) -> list[Problem]:
    """What is wrong between options that are each well-formed."""
    name, given = strategy.name, strategy.keywords(table)
    found = []
    for pair in entry.apart:
        if all(given.get(entry.options[option].keyword) for option in pair):
            found.append(Problem((name, pair[1]), f"given together with {pair[0]}"))
    if name == "threshold" and not {"lower", "upper"} & given.keys():
        found.append(Problem((name,), "needs lower, upper or both"))
    for low, high in (("lower", "upper"), ("min_resource", "max_resource")):
        if low in given and high in given and given[low] > given[high]:
            option = {item.keyword: key for key, item in entry.options.items()}[high]
            what = f"found {show(given[high])}; allowed: at least {show(given[low])}"
            found.append(Problem((name, option), what))
    if given.get("group") and not given.get("multivariate"):
        found.append(Problem((name, "group"), "needs multivariate: true"))
    return found


def _inner(value: object) -> list[Problem]:
    try:
        return faults(parse(value), PRUNERS, "pruner")
    except ValueError as error:
        return [Problem((), str(error))]


def _nearest(name: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    also = f"; did you mean {near[0]}?" if near else ""
    return f"allowed: {', '.join(names) or 'no options'}{also}"
