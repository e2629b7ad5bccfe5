"""What may be wrong between the fields of a sweep that are each well-formed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.spec.command import fill
from jobs.spec.problems import Problem
from jobs.spec.yamlfile import KeyPath
from jobs.sweeps import constraints, strategies
from jobs.sweeps import space as searchspace
from jobs.sweeps.space import MAX_COMPARED, MAX_GRID
from jobs.sweeps.strategies import PRUNERS, SAMPLERS

if TYPE_CHECKING:
    from jobs.sweeps.spec import SweepSpec


def faults(spec: SweepSpec) -> list[Problem]:
    """What is wrong between fields that are each well-formed."""
    found = _below(("space",), searchspace.faults(spec.space))
    found += _below(("sampler",), strategies.faults(spec.sampler, SAMPLERS, "sampler"))
    found += _below(("pruner",), strategies.faults(spec.pruner, PRUNERS, "pruner"))
    if not found:
        found = [*_strategies_fit(spec), *_population_fits(spec), *_constraints_fit(spec)]
    if not found:
        found = [*_trials_end(spec), *_points_fit(spec), *_values_fit_the_command(spec)]
    return found


def _below(path: KeyPath, found: list[Problem]) -> list[Problem]:
    return [Problem((*path, *problem.path), problem.message) for problem in found]


def _strategies_fit(spec: SweepSpec) -> list[Problem]:
    found = []
    several = len(spec.objective) > 1
    if spec.job.endless:
        what = (
            "a stream has no end, and trials are compared at theirs; allowed: stream: {end: true}"
        )
        found.append(Problem(("job", "stream"), what))
    if not spec.objective:
        found.append(Problem(("objective",), "missing; the job has none either"))
    for number, metric in enumerate(spec.metrics):
        if metric in spec.metrics[:number]:
            what = f"{metric} is listed twice"
            found.append(Problem(("objective", number, "metric"), what))
    if several and not PRUNERS[spec.pruner.name].several:
        what = (
            f"{spec.pruner.name} compares trials by one objective, and there are "
            f"{len(spec.objective)}; allowed: none, or one objective"
        )
        found.append(Problem(("pruner",), what))
    if several and not SAMPLERS[spec.sampler.name].several:
        able = ", ".join(name for name, entry in SAMPLERS.items() if entry.several)
        what = f"{spec.sampler.name} takes one objective; allowed for several: {able}"
        found.append(Problem(("sampler",), what))
    if spec.warm_start and not SAMPLERS[spec.sampler.name].learns:
        able = ", ".join(name for name, entry in SAMPLERS.items() if entry.learns)
        what = f"{spec.sampler.name} learns nothing from other trials; allowed with: {able}"
        found.append(Problem(("warm_start",), what))
    return found


def _population_fits(spec: SweepSpec) -> list[Problem]:
    if spec.sampler.name != "pbt":
        return []
    found = []
    if spec.pruner.name != "none":
        found.append(Problem(("pruner",), "pbt ends no trial early; allowed: none"))
    if spec.trials is not None:
        what = f"given together with pbt, which has {spec.limit}: population times generations"
        found.append(Problem(("trials",), what))
    if len(spec.enqueue) > spec.population.size:
        what = f"{len(spec.enqueue)} points; allowed: {spec.population.size}, one for each member"
        found.append(Problem(("enqueue",), what))
    for name in spec.population.explore:
        if name not in spec.space:
            what = f"no parameter {show(name)}; allowed: {', '.join(spec.space)}"
            found.append(Problem(("sampler", "pbt", "explore"), what))
    if spec.population.until in spec.space:
        what = f"{spec.population.until} is searched; allowed: a parameter of the job's own"
        found.append(Problem(("sampler", "pbt", "until"), what))
    return found


def _constraints_fit(spec: SweepSpec) -> list[Problem]:
    found = []
    for number, text in enumerate(spec.constraints):
        for name in sorted(constraints.parse(text).names & spec.space.keys()):
            choices = spec.space[name].choices or ()
            if any(isinstance(item, bool) or not isinstance(item, int | float) for item in choices):
                what = f"{name} has choices that are no numbers; allowed: `when` beside {name}"
                found.append(Problem(("constraints", number), what))
    return found


def _trials_end(spec: SweepSpec) -> list[Problem]:
    if spec.sampler.name == "grid":
        endless = [name for name, item in spec.space.items() if item.count is None]
        if endless:
            what = "a grid needs a step or choices for every parameter"
            return [Problem(("space", name), what) for name in endless]
        # Before any point is listed: one parameter may have 10**15 values.
        many = [name for name, item in spec.space.items() if (item.count or 0) > MAX_GRID]
        if many:
            what = f"more than {MAX_GRID} values; allowed: a larger step"
            return [Problem(("space", name), what) for name in many]
        compared = MAX_COMPARED // max(1, len(spec.constraints))
        allowed = min(MAX_GRID, compared)
        for count, _ in enumerate(searchspace.grid(spec.space), start=1):
            if count > allowed:
                what = f"the grid has more than {allowed} points; allowed: larger steps"
                if allowed < MAX_GRID:
                    what += f", or fewer than {len(spec.constraints)} constraints"
                return [Problem(("space",), what)]
        if not any(map(spec.admits, searchspace.grid(spec.space))):
            return [Problem(("constraints",), "no point of the grid is left")]
    elif spec.sampler.name == "pbt":
        return []
    elif spec.trials is None and spec.budget.time is None and spec.budget.gpu_hours is None:
        return [Problem((), "the sweep would never end; allowed: with trials or a budget")]
    return []


def _points_fit(spec: SweepSpec) -> list[Problem]:
    found = []
    for number, point in enumerate(spec.enqueue):
        for name, value in point.items():
            path = ("enqueue", number, name)
            if name not in spec.space:
                what = f"no parameter of the space; allowed: {', '.join(spec.space)}"
                found.append(Problem(path, what))
            elif what := spec.space[name].problem_with(value):
                found.append(Problem(path, what))
        if not spec.admits(point):
            found.append(Problem(("enqueue", number), "it breaks a constraint"))
    return found


def _values_fit_the_command(spec: SweepSpec) -> list[Problem]:
    """A choice that cannot be quoted in the command should not wait for its trial to say so."""
    found = []
    for name, parameter in spec.space.items():
        for number, choice in enumerate(parameter.choices or ()):
            try:
                fill(spec.job.command, {name: choice})
            except InvalidInput as error:
                path = ("space", name, "choices", number)
                found.append(Problem(path, f"{error.message}; allowed: a simple word"))
    return found
