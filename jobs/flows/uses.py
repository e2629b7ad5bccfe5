"""`uses: other.yaml` of a step: the steps of another pipeline file in its place.

They are named after the step, `NAME_STEP`. What the file's parameters are is put where it refers to them, and
its references to its own steps are to the new names. Its name, schedule, timeout and `parallel` do not count.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.base.units import show
from jobs.flows import conditions
from jobs.flows.params import Parameter, unknown
from jobs.flows.references import Reference, reference, template
from jobs.spec.command import Scalar, as_text
from jobs.spec.problems import Problem

if TYPE_CHECKING:
    from jobs.flows.spec import PipelineSpec, Step

MAX_DEPTH = 10
"""Files of which one uses the next."""
_FIELDS = ("uses", "params", "needs", "when")
_NEVER = "pipeline.name == ''"
"""What never holds: a condition has to name something."""


def misplaced(step: Mapping[str, Any]) -> list[Problem]:
    """What a step with `uses` cannot have; paths are below the step."""
    told = f"given together with uses; allowed: {', '.join(_FIELDS[1:])}"
    found = [Problem((str(name),), told) for name in step if name not in _FIELDS]
    if not isinstance(step["uses"], str):
        found.append(Problem(("uses",), f"found {show(step['uses'])}; allowed: a pipeline file"))
    given = step.get("params", {})
    if not isinstance(given, dict):
        found.append(Problem(("params",), f"found {show(given)}; allowed: names with values"))
    if not isinstance(step.get("when", ""), str):
        found.append(Problem(("when",), f"found {show(step['when'])}; allowed: a condition"))
    return found


def faults(params: Mapping[str, Parameter], given: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the values that a step gives to a file's parameters; paths are below the step."""
    found = []
    for name, value in given.items():
        if name not in params:
            found.append(Problem(("params", name), unknown(name, params, "parameter")))
            continue
        try:
            if not template(value).references:
                params[name].accept(_plain(value))
        except ValueError as error:
            found.append(Problem(("params", name), str(error)))
    missing = [name for name, one in params.items() if one.default is None and name not in given]
    if missing:
        what = f"no value for {', '.join(missing)}; allowed: params: {{{missing[0]}: ...}}"
        found.append(Problem(("uses",), what))
    return found


def _plain(value: Any) -> Any:
    return template(value).fill({}) if isinstance(value, str) else value


class Inlining:
    """One file in place of one step.

    Args:
        name: the step's. spec: the file's. given: what the step gives to its parameters, as written.
        needs: what the step needs, as names of steps. when: its condition.
    """

    def __init__(
        self,
        name: str,
        spec: PipelineSpec,
        given: Mapping[str, Any],
        needs: list[str],
        when: str | None,
    ) -> None:
        self._name, self._spec, self._needs, self._when = name, spec, needs, when
        # As they are written in the file that uses this one: text may refer to what is there.
        self._values: dict[str, Scalar] = {
            key: given[key] if key in given else _escaped(one.default)
            for key, one in spec.params.items()
        }

    def steps(self) -> dict[str, dict[str, Any]]:
        """The steps by their new names, as a file would have them.

        Raises ValueError, in words: a condition that cannot be written with what is given.
        """
        return {self._new(name): self._step(name, step) for name, step in self._spec.steps.items()}

    def _new(self, name: str) -> str:
        return f"{self._name}_{name}"

    def _step(self, name: str, step: Step) -> dict[str, Any]:
        kept = ("matrix", "parallel", "retries", "timeout", "cache", "always", "on_failure")
        data: dict[str, Any] = {
            field: getattr(step, field) for field in kept if field in step.model_fields_set
        }
        data[step.kind] = step.inner
        if step.act is not None:
            texts = {field: self._text(text) for field, text in step.act.texts().items()}
            data[step.kind] = {**step.act.to_json(), **texts}
        for field in ("inputs", "data", "params"):
            values = getattr(step, field)
            if values:
                data[field] = {key: self._text(value) for key, value in values.items()}
        waits = self._spec.needs[name]
        last = step.always or step.on_failure
        data["needs"] = [self._new(other) for other in (waits if last else step.needs)]
        if not waits:
            data["needs"] += self._needs
        when = self._condition(step.when)
        if when is not None:
            data["when"] = when
        return data

    def _text(self, value: Scalar) -> Scalar:
        """A value with its references moved."""
        if not isinstance(value, str):
            return value
        parts = template(value)
        if parts.whole is not None and parts.whole.form == "param":
            return self._values[parts.whole.name]
        return "".join(
            part.replace("${", "$${") if isinstance(part, str) else self._moved(part)
            for part in parts.parts
        )

    def _moved(self, item: Reference) -> str:
        if item.form == "param":
            return as_text(self._values[item.name])
        if item.step:
            return "${" + item.text.replace(f"steps.{item.step}.", self._prefix(item), 1) + "}"
        return "${" + item.text + "}"

    def _prefix(self, item: Reference) -> str:
        return f"steps.{self._new(item.step)}."

    def _condition(self, inner: str | None) -> str | None:
        parts = [self._when] if self._when is not None else []
        if inner is not None:
            text = ast.unparse(_Names(self).visit(ast.parse(inner.strip(), mode="eval")))
            try:
                conditions.parse(text)
            except (
                ValueError
            ):  # perhaps since it names nothing any more: then it still is what it says
                text = f"({text}) or {_NEVER}"
                conditions.parse(text)
            parts.append(text)
        if len(parts) == 2:
            return f"({parts[0]}) and ({parts[1]})"
        return parts[0] if parts else None

    def named(self, item: Reference) -> ast.expr:
        """What a condition has instead of a name. Raises ValueError."""
        if item.form == "param":
            value = self._values[item.name]
            parts = template(value)
            if parts.whole is not None:
                return _expression(parts.whole.text)
            if parts.references:
                raise ValueError(
                    f"{item.name} is compared in a condition; allowed: a value, or one reference"
                )
            return ast.Constant(_plain(value))
        text = item.text
        if item.step:
            text = text.replace(f"steps.{item.step}.", self._prefix(item), 1)
        return _expression(text)


def _expression(text: str) -> ast.expr:
    """Raises ValueError: a name such as `params.from`, which is a word of the language."""
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        raise ValueError(f"{text} cannot be in a condition; allowed: another name") from None


class _Names(ast.NodeTransformer):
    """Puts what `Inlining.named` gives in the place of dotted names."""

    def __init__(self, inlining: Inlining) -> None:
        self._inlining = inlining

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._inlining.named(reference(ast.unparse(node)))


def _escaped(value: Scalar) -> Scalar:
    """Text that refers to nothing."""
    return value.replace("${", "$${") if isinstance(value, str) else value


def expanded(needs: Any, inlined: Mapping[str, list[str]]) -> Any:
    """`needs` of a step with the steps of a file in place of the step that uses it."""
    words = [needs] if isinstance(needs, str) else needs
    if not isinstance(words, list):
        return needs
    found: list[Any] = []
    for word in words:
        found += inlined.get(word, [word]) if isinstance(word, str) else [word]
    return found
