"""`${steps.train.outputs.model}`: what a step takes from parameters and from other steps.

A value is one reference, which keeps its type, or text with references in it, which is text. `$${` is a
plain `${`. Only what is written in the file is read so: what a reference yields is data, and stays as
it is even if it looks like a reference.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.base.units import show
from jobs.spec.command import Scalar, as_text

Kind = Literal["number", "text", "flag", "file"]
"""What a reference yields. A file is the content of an output."""

_PIECE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
_FORMS: dict[str, re.Pattern[str]] = {
    "param": re.compile(rf"params\.(?P<name>{_NAME})"),
    "matrix": re.compile(rf"matrix\.(?P<name>{_NAME})"),
    "output": re.compile(rf"steps\.(?P<step>{_NAME})\.outputs\.(?P<name>{_NAME})"),
    "metric": re.compile(rf"steps\.(?P<step>{_NAME})\.metrics\.(?P<name>[^\s{{}}]{{1,200}})"),
    "best": re.compile(rf"steps\.(?P<step>{_NAME})\.best\.params\.(?P<name>{_NAME})"),
    "value": re.compile(rf"steps\.(?P<step>{_NAME})\.best\.(?P<name>value)"),
    "state": re.compile(rf"steps\.(?P<step>{_NAME})\.(?P<name>state)"),
    "job": re.compile(rf"steps\.(?P<step>{_NAME})\.(?P<name>job)"),
    "left": re.compile(rf"steps\.(?P<step>{_NAME})\.(?P<name>model|data|evidence|evaluation)"),
    "pipeline": re.compile(r"pipeline\.(?P<name>id|name)"),
}
FORMS = (
    "params.NAME, matrix.NAME, steps.STEP.outputs.NAME, steps.STEP.metrics.NAME, "
    "steps.STEP.best.params.NAME, steps.STEP.best.value, steps.STEP.state, steps.STEP.job, "
    "steps.STEP.model, steps.STEP.data, steps.STEP.evidence, steps.STEP.evaluation, "
    "pipeline.id or pipeline.name"
)
_OF_A_STEP = (
    "outputs",
    "metrics",
    "best",
    "state",
    "job",
    "model",
    "data",
    "evidence",
    "evaluation",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a value comes from. `form` is a key of `_FORMS`; `step` is empty where there is none."""

    text: str
    form: str
    name: str
    step: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A value as written, split: text and references in turn."""

    parts: tuple[str | Reference, ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        return tuple(part for part in self.parts if isinstance(part, Reference))

    @property
    def whole(self) -> Reference | None:
        """The reference, when there is nothing else."""
        one = self.parts[0] if len(self.parts) == 1 else None
        return one if isinstance(one, Reference) else None

    def fill(self, values: Mapping[str, Scalar]) -> Scalar:
        """Args:
        values: by the references' texts.
        """
        if self.whole is not None:
            return values[self.whole.text]
        return "".join(
            part if isinstance(part, str) else as_text(values[part.text]) for part in self.parts
        )


def reference(text: str) -> Reference:
    """Read what stands between the braces. Raises ValueError, in words."""
    for form, pattern in _FORMS.items():
        match = pattern.fullmatch(text.strip())
        if match is not None:
            groups = match.groupdict()
            return Reference(text.strip(), form, groups["name"], groups.get("step") or "")
    words = text.strip().split(".")
    if len(words) >= 3 and words[0] == "steps":
        near = difflib.get_close_matches(words[2], _OF_A_STEP, 1)
        if near and near[0] != words[2]:
            also = ".".join([*words[:2], near[0], *words[3:]])
            raise ValueError(f"found {show(text)} in a reference; did you mean {also}?")
    raise ValueError(f"found {show(text)} in a reference; allowed: {FORMS}")


def template(value: object) -> Template:
    """Split a value; one that is no text has no references. Raises ValueError, in words."""
    if not isinstance(value, str):
        return Template((as_text(value) if isinstance(value, bool | int | float) else "",))
    parts: list[str | Reference] = []
    text, start = "", 0
    for match in _PIECE.finditer(value):
        text += value[start : match.start()]
        start = match.end()
        if match[0] == "$${":
            text += "${"
        elif match[1] is None:
            raise ValueError(
                f"a reference in {show(value)} does not end; allowed: ${{...}} or $${{"
            )
        else:
            if text:
                parts.append(text)
            text = ""
            parts.append(reference(match[1]))
    text += value[start:]
    if text or not parts:
        parts.append(text)
    return Template(tuple(parts))


def filled(value: Scalar, values: Mapping[str, Scalar]) -> Scalar:
    """A value with its references replaced."""
    return template(value).fill(values) if isinstance(value, str) else value
