"""What may be wrong between the steps of a pipeline that are each well-formed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.flows import conditions, graph
from jobs.flows.conditions import kind_of
from jobs.flows.params import KINDS, unknown
from jobs.flows.references import Kind, Reference, template
from jobs.spec.problems import Problem
from jobs.spec.yamlfile import KeyPath

if TYPE_CHECKING:
    from jobs.flows.spec import PipelineSpec, Step

_A = {"number": "a number", "text": "text", "flag": "true or false"}


def faults(spec: PipelineSpec) -> list[Problem]:
    """What is wrong between fields that are each well-formed, in the order of the file."""
    found = [*_names(spec), *_sizes(spec)]
    if not found and (cycle := graph.cycle(spec.needs)):
        path = ("steps", cycle[0], "needs") if spec.steps[cycle[0]].needs else ("steps", cycle[0])
        found = [Problem(path, f"it needs itself: {' → '.join(cycle)}")]
    if not found:
        for name in spec.steps:
            found += _references(spec, name)
    if not found:
        for name in spec.steps:
            found += _types(spec, name)
    return found


def _names(spec: PipelineSpec) -> list[Problem]:
    """Steps that are needed, and fields that only some kinds of steps have."""
    found = []
    for name, step in spec.steps.items():
        at: KeyPath = ("steps", name)
        for number, other in enumerate(step.needs):
            if other == name:
                found.append(Problem((*at, "needs", number), "it needs itself"))
            elif other not in spec.steps:
                what = unknown(other, _without(spec, name), "step")
                found.append(Problem((*at, "needs", number), what))
        if step.always and step.on_failure:
            what = "given together with always; allowed: one of the two"
            found.append(Problem((*at, "on_failure"), what))
        if step.job is not None and step.job.endless:
            what = "a stream has no end, and the pipeline would have none; allowed: stream: {end: true}"
            found.append(Problem((*at, "job", "stream"), what))
        if step.kind == "sweep" and step.timeout is not None:
            what = "given for a sweep; allowed: budget: {time: ...} in the sweep itself"
            found.append(Problem((*at, "timeout"), what))
        found += _misplaced(step, at)
    return found


def _misplaced(step: Step, at: KeyPath) -> list[Problem]:
    """Fields that say nothing for this kind of step."""
    fields: list[str] = []
    if step.act is not None:
        fields = ["inputs", "data", "matrix", "params"]
    elif step.kind == "notify":
        fields = ["inputs", "data"]
    what = f"given for {_a(_noun(step))}; allowed: for jobs and sweeps"
    found = [Problem((*at, field), what) for field in fields if getattr(step, field)]
    if step.timeout is not None and step.act is not None and not step.act.LASTS:
        told = f"given for {_a(_noun(step))}, which takes no time; allowed: for what may last"
        found.append(Problem((*at, "timeout"), told))
    return found


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _without(spec: PipelineSpec, name: str) -> dict[str, Step]:
    return {other: step for other, step in spec.steps.items() if other != name}


def _sizes(spec: PipelineSpec) -> list[Problem]:
    from jobs.flows.spec import MAX_TASKS

    total = 0
    for name, step in spec.steps.items():
        total += step.count
        if total > MAX_TASKS:
            what = f"{total} runs of steps so far; allowed: {MAX_TASKS} in a pipeline"
            return [Problem(("steps", name, "matrix"), what)]
    return []


def _references(spec: PipelineSpec, name: str) -> list[Problem]:
    """References of a step to what is not there, or cannot be had there."""
    step, found = spec.steps[name], []
    for path, item in step.references:
        if what := _reference(spec, name, step, path, item):
            found.append(Problem(("steps", name, *path), what))
    return found


def _reference(
    spec: PipelineSpec, name: str, step: Step, path: KeyPath, item: Reference
) -> str | None:
    """What is wrong with a reference; None when nothing is."""
    if item.form == "param" and item.name not in spec.params:
        return unknown(item.name, spec.params, "parameter")
    if item.form == "matrix" and item.name not in step.matrix:
        return unknown(item.name, step.matrix, "matrix value")
    if item.form not in ("param", "matrix", "pipeline"):
        if item.step not in spec.steps:
            return unknown(item.step, _without(spec, name), "step")
        if item.step == name:
            return "it takes something of itself"
        if what := _of_step(spec, path, item):
            return what
    return _fitting(spec, step, path, item)


def _fitting(spec: PipelineSpec, step: Step, path: KeyPath, item: Reference) -> str | None:
    """Whether a field that names a model, a data set or a job may take this."""
    wanted = "data" if path[0] == "data" else None
    if step.act is not None and len(path) == 2:
        wanted = step.act.WANTS[str(path[1])]
    if wanted in (None, "text"):
        return None
    allowed = f"allowed: a parameter that is text, or ${{steps.STEP.{wanted}}}"
    if item.form in ("param", "matrix"):
        found = kind(spec, step, item)
        return None if found == "text" else f"${{{item.text}}} is {_A[found]}; {allowed}"
    if (item.name if item.form == "left" else item.form) == wanted:
        return None
    return f"${{{item.text}}} is no {wanted}; {allowed}"


def _leaves(step: Step) -> tuple[str, ...]:
    """What others may take of a step by name: of a job the data set that one of its outputs becomes."""
    if step.act is not None:
        return step.act.LEAVES
    outputs = step.job.outputs.values() if step.job is not None and not step.matrix else ()
    return ("data",) if sum(one.data is not None for one in outputs) == 1 else ()


def _of_step(spec: PipelineSpec, path: KeyPath, item: Reference) -> str | None:
    other = spec.steps[item.step]
    if item.form == "left":
        if item.name in _leaves(other):
            return None
        having = [name for name, one in spec.steps.items() if item.name in _leaves(one)]
        also = f"; allowed: of {', '.join(having)}" if having else ""
        return f"{item.step} is {_a(_noun(other))}, which leaves no {item.name}{also}"
    if item.form == "job" and not other.is_job and other.sweep is None:
        return f"{item.step} is {_a(_noun(other))}, which has no job"
    if item.form == "output":
        if other.kind != "job":
            return f"{item.step} is {_a(_noun(other))}, which has no outputs"
        if item.name not in other.outputs:
            return unknown(item.name, other.outputs, f"output of {item.step}")
        if path[0] != "inputs":
            return f"an output is a file; allowed: in inputs, PATH: ${{{item.text}}}"
        return None
    if item.form == "state":
        return None
    if other.matrix:
        return (
            f"{item.step} has a matrix, so there is more than one; allowed: ${{steps.{item.step}"
            ".outputs.NAME} in inputs, as a folder"
        )
    if item.form in ("best", "value"):
        if other.sweep is None:
            return f"{item.step} is {_a(_noun(other))}; allowed: of a sweep"
        if item.form == "best" and item.name not in other.sweep.space:
            return unknown(item.name, other.sweep.space, f"parameter of {item.step}")
        return None
    if item.form == "metric" and other.kind != "job":
        return f"{item.step} is {_a(_noun(other))}, which logs no metrics of its own"
    return None


def _noun(step: Step) -> str:
    return {
        "notify": "notification",
        "data-check": "data check",
        "register": "registration",
        "evaluate": "evaluation",
        "deploy": "deployment",
    }.get(step.kind, step.kind)


def _types(spec: PipelineSpec, name: str) -> list[Problem]:
    step, found = spec.steps[name], []
    at: KeyPath = ("steps", name)
    if step.when is not None:
        condition = conditions.parse(step.when)
        try:
            condition.check({item.text: kind(spec, step, item) for item in condition.references})
        except ValueError as error:
            found.append(Problem((*at, "when"), str(error)))
    for key, value in step.params.items():
        own = step.base.params.get(key) if step.base is not None else None
        if own is None:
            continue
        whole = template(value).whole
        given = kind(spec, step, whole) if whole is not None else kind_of(value)
        if given != kind_of(own):
            what = f"{_A[given]}, where the job's own value is {_A[kind_of(own)]}"
            found.append(Problem((*at, "params", key), what))
    return found


def kind(spec: PipelineSpec, step: Step, item: Reference) -> Kind:
    """What a reference yields."""
    if item.form == "param":
        return KINDS[spec.params[item.name].type]
    if item.form == "matrix":
        return _common(step.matrix[item.name])
    if item.form == "output":
        return "file"
    if item.form in ("metric", "value"):
        return "number"
    if item.form == "best":
        sweep = spec.steps[item.step].sweep
        assert sweep is not None
        choices = sweep.space[item.name].choices
        return "number" if choices is None else _common(choices)
    return "text"


def _common(values: Sequence[object]) -> Kind:
    """The type of all values; where they differ they are text."""
    kinds = {kind_of(value) for value in values}
    return kinds.pop() if len(kinds) == 1 else "text"


def demands(spec: PipelineSpec) -> Mapping[str, tuple[frozenset[str], frozenset[str]]]:
    """Of each step, the outputs and the metrics that others take."""
    outputs: dict[str, set[str]] = {name: set() for name in spec.steps}
    metrics: dict[str, set[str]] = {name: set() for name in spec.steps}
    for step in spec.steps.values():
        for _, item in step.references:
            if item.form == "output":
                outputs[item.step].add(item.name)
            elif item.form == "metric":
                metrics[item.step].add(item.name)
    return {name: (frozenset(outputs[name]), frozenset(metrics[name])) for name in spec.steps}
