"""Optuna's samplers and pruners, made from what a sweep asks for (`jobs/sweeps/strategies.py`)."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jobs.base.errors import InvalidInput
from jobs.sweeps.spec import SweepSpec
from jobs.sweeps.strategies import CROSSOVERS, PRUNERS, SAMPLERS, Strategy, parse

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

_SOURCES = 10
"""Trials of which CMA-ES finds out where to begin: it looks at the best tenth of them."""


def check_packages(spec: SweepSpec) -> None:
    """Raises InvalidInput when a strategy needs a package that the controller does not have."""
    asked = [("sampler", spec.sampler.name, SAMPLERS), ("pruner", spec.pruner.name, PRUNERS)]
    for kind, name, table in asked:
        missing = [item for item in table[name].needs if importlib.util.find_spec(item) is None]
        if missing:
            raise InvalidInput(
                f"sweep.{kind}: {name} needs the package {missing[0]}, which the controller does "
                "not have",
                f"Install it there (`pip install {missing[0]}`), or choose another {kind}.",
            )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's warnings that some of its parts are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make_sampler(spec: SweepSpec, trials: int, lent: Sequence[FrozenTrial] = ()) -> BaseSampler:
    """The sampler that a sweep asks for.

    Args:
        lent: those of them that are an earlier sweep's.
        trials: how many there are already. After a restart a seeded sampler must not draw again what
            it drew first, so the seed moves on with the trials.
    """
    from optuna import samplers

    name, options = spec.sampler.name, spec.sampler.keywords(SAMPLERS)
    seed = spec.seed
    if seed is not None and trials and name != "qmc":  # its place in the sequence is in the storage
        seed = zlib.crc32(f"{seed}:{trials}".encode())
    # The points of a grid and of a population are enqueued: only their rest could be drawn.
    if name in ("random", "grid", "pbt"):
        return samplers.RandomSampler(seed=seed)
    if name == "tpe":
        options.setdefault("constant_liar", True)  # several trials are open at a time
        return samplers.TPESampler(seed=seed, **options)
    if name == "gp":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False, **options)
    if name == "cmaes":
        whole = [trial for trial in lent if trial.state.name == "COMPLETE"]
        whole = [trial for trial in whole if trial.params.keys() == spec.space.keys()]
        if len(whole) >= _SOURCES and not {"sigma0", "use_separable_cma"} & options.keys():
            options["source_trials"] = whole
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, **options)
    if name == "qmc":
        return samplers.QMCSampler(
            seed=seed if seed is not None else 0,
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
            **options,
        )
    if "crossover" in options:
        crossover = getattr(samplers.nsgaii, CROSSOVERS[options["crossover"]])
        options["crossover"] = crossover()
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, **options)
    return samplers.NSGAIIISampler(seed=seed, **options)


def first_generation(sampler: BaseSampler) -> dict[str, int]:
    """System attributes with which a genetic sampler counts another study's trial to its first
    generation, of which it takes the best as parents; none for others."""
    from optuna.samplers import BaseGASampler

    if isinstance(sampler, BaseGASampler):
        return {sampler._get_generation_key(): 0}
    return {}


def make_pruner(strategy: Strategy) -> BasePruner:
    from optuna import pruners

    options = strategy.keywords(PRUNERS)
    match strategy.name:
        case "median":
            return pruners.MedianPruner(**options)
        case "percentile":
            return pruners.PercentilePruner(**options)
        case "asha":
            return pruners.SuccessiveHalvingPruner(**{"min_resource": 1, **options})
        case "hyperband":
            return pruners.HyperbandPruner(**options)
        case "patient":
            inner = options.pop("wrapped_pruner", None)
            wrapped = make_pruner(parse(inner)) if inner is not None else None
            return pruners.PatientPruner(wrapped, **options)
        case "wilcoxon":
            return pruners.WilcoxonPruner(**options)
        case "threshold":
            return pruners.ThresholdPruner(**options)
    return pruners.NopPruner()
