"""Evaluations: what is asked of a version on a hold-out version of a data set, and the evidence it makes.

The job that measures writes a report. Together with which bytes were measured on which data it becomes a
document whose digest is the evidence. `Evaluated` is how gates see it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.base.errors import InvalidInput
from jobs.models.digests import digest_of
from jobs.spec import fields, problems
from jobs.spec.job import JobSpec

TASK = "task.json"
REQUIREMENTS = "requirements.txt"
FOLDER = "model"
"""Where the job finds what it is asked, what an environment of its own has, and the model's files."""
_ARRAYS = {"numpy": "numpy>=2.4"}
FORMATS: Mapping[str, Mapping[str, str]] = {
    "onnx": _ARRAYS | {"onnxruntime": "onnxruntime>=1.32"},
    "skops": _ARRAYS
    | {"pandas": "pandas>=3.1", "sklearn": "scikit-learn>=1.9", "skops": "skops>=0.16"},
}
"""Formats that can be evaluated, and the modules that the job needs for them, with what installs each."""
EXPLAINING = {"shap": "shap>=0.51"}
PARQUET = {"pyarrow": "pyarrow>=26"}
METRICS = ("accuracy", "macro_f1", "log_loss", "roc_auc", "ece", "rmse", "mae", "r2")
"""What evaluations measure; of slices all but ROC AUC."""
FAIRNESS = "fairness."
GROUPED = (
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
    "accuracy_difference",
    "accuracy_ratio",
    "mae_difference",
    "mae_ratio",
)
"""What they measure between the groups of a column, as Fairlearn defines it."""
TIMEOUT = 4 * 3600.0
MAX_SAMPLES = 5000
"""Numbers of resamples of a metric that are stored at most."""

Samples = Mapping[str, Sequence[float | None]]
"""A metric in each of the resamples, by the metric's name."""

_Column = Annotated[str, Field(min_length=1, max_length=256)]
_Columns = Annotated[tuple[_Column, ...], Field(strict=False, max_length=10_000)]


class Measuring(BaseModel):
    """How a version is measured. What is not given is found out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    target: _Column | None = Field(None, description="the column of the truth")
    task: Literal["classification", "regression"] | None = None
    output: _Column | None = Field(None, description="the model's output that is the prediction")
    classes: _Columns = Field((), description="in the order of the model's scores")
    positive: _Column | None = Field(None, description="the class that counts as a yes")
    features: _Columns = Field((), description="columns of the model's one input, in order")
    groups: Annotated[_Columns, Field(max_length=10)] = Field(
        (), description="columns whose groups fairness is measured between; slices too"
    )
    slices: Annotated[_Columns, Field(max_length=20)] = Field((), description="columns to slice by")
    allow_nan: bool = Field(False, description="pass values that are not finite to the model")
    explain: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="explain the model, and so many rows one by one"
    )
    python: fields.LocalPath | None = Field(None, description="an interpreter with what is needed")
    isolated: bool = Field(False, description="in an environment of its own, built on the node")
    cpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    gpus: Annotated[float, Field(ge=0, le=1024)] = 0.0


class Evaluation(Measuring):
    """What a person asks for."""

    data: Annotated[str, Field(min_length=1, max_length=200, description="digits-test@2")]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """Raises InvalidInput."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "evaluation") from None

    def asked(self) -> dict[str, Any]:
        """What is measured, as the evidence says it: nothing of where."""
        where = {"python", "isolated", "cpus", "gpus"}
        return self.model_dump(mode="json", exclude_defaults=True, exclude=where)

    def task_file(self, kind: str, main: str) -> bytes:
        """What the job is asked. `main`: the file to load."""
        asked = {name: value for name, value in self.asked().items() if name != "data"}
        return json.dumps({"format": kind, "main": main, **asked}, sort_keys=True).encode()

    def requirements(self, kind: str, *, parquet: bool) -> bytes:
        """What the job's own environment is made of, as pip reads it."""
        explaining = EXPLAINING if self.explain is not None else {}
        wanted = {**FORMATS[kind], **explaining, **(PARQUET if parquet else {})}
        return "".join(f"{one}\n" for one in sorted(wanted.values())).encode()

    def job(self, model: str, number: int, data: str, python: str | None) -> JobSpec:
        """The job that measures. `data`: the exact version. `python`: the interpreter; None for an
        environment of its own. Raises InvalidInput."""
        runs = {"requirements": REQUIREMENTS} if python is None else {"python": python}
        return JobSpec.from_json(
            {
                "name": f"evaluate-{_plain(model)}"[:63].rstrip("-"),
                "command": ["python", "-m", "quarterdeck_serve.evaluate"],
                **runs,
                "launch": "plain",
                "resources": {"cpu": self.cpus, "gpu": self.gpus},
                "timeout": TIMEOUT,
                "outputs": {
                    "report": {"path": "report.json", "required": True},
                    "samples": {"path": "samples.json", "required": True},
                },
                "tags": {"evaluate": f"{model}:{number}"},
                "data": {"holdout": data},
            }
        )


def _plain(name: str) -> str:
    """A model's name as a job's name takes it."""
    return (
        "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name) or "model"
    )


def evaluation_name(number: int) -> str:
    return f"e{number}"


def evaluation_number(text: str) -> int:
    """`e3` is 3. Raises InvalidInput."""
    digits = text.removeprefix("e")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
        raise InvalidInput(
            f"'{text[:40]}' is not an evaluation", "Such as e3; `qd evaluations` lists them."
        )
    return int(digits)


# -- what the job has measured --------------------------------------------------------------------


def checked_report(data: bytes) -> dict[str, Any]:
    """The report of a job, with everything that gates and screens read. Raises ValueError."""
    try:
        report = json.loads(data, parse_constant=_refuse)
        measured = [
            report["metrics"],
            *(one["metrics"] for one in (*report["slices"], *report["fairness"])),
        ]
        for one in (*report["slices"], *report["fairness"]):
            _is(one["column"], str)
        for one in report["slices"]:
            _is(one["value"], str)
        for metrics in measured:
            for interval in metrics.values():
                for end in ("value", "low", "high"):
                    if interval[end] is not None:
                        _is(interval[end], int | float)
        for name in ("pairing", "task", "target", "samples"):
            _is(report[name], str)
        _is(report["rows"], int)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its report is not one: {error!r}") from None
    assert isinstance(report, dict)
    return report


def checked_samples(data: bytes, report: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """The samples that a report speaks of. Raises ValueError when they are others."""
    if "sha256:" + hashlib.sha256(data).hexdigest() != report["samples"]:
        raise ValueError("its samples are not those that its report names")
    try:
        samples = json.loads(data, parse_constant=_refuse)["metrics"]
        for values in samples.values():
            if len(values) > MAX_SAMPLES or not all(
                one is None or (isinstance(one, int | float) and math.isfinite(one))
                for one in values
            ):
                raise ValueError("its samples are no numbers")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its samples are none: {error!r}") from None
    assert isinstance(samples, dict)
    return samples


def _is(value: object, kind: Any) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"found {value!r:.40}")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def document(
    *,
    name: str,
    version: str,
    digest: str,
    data: str,
    data_digest: str,
    job: str,
    command: Any,
    asked: Mapping[str, Any],
    report: Mapping[str, Any],
    samples: Samples,
    at: str,
    by: str,
) -> dict[str, Any]:
    """The evidence: what was measured, of which bytes, on which data, by which job."""
    return {
        "evaluation": name,
        "version": version,
        "digest": digest,
        "data": data,
        "data_digest": data_digest,
        "job": job,
        "command": command,
        "asked": dict(asked),
        "report": dict(report),
        "samples": {metric: digest_of(list(values)) for metric, values in samples.items()},
        "at": at,
        "by": by,
    }


# -- how gates look it up -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation of a version as gates see it. `samples` has only what the gate speaks of."""

    name: str
    version: str
    digest: str
    data: str
    data_digest: str
    evidence: str
    report: Mapping[str, Any]
    samples: Samples

    def pairs_with(self, other: Evaluated) -> bool:
        """Whether both were measured on the same rows with the same resamples."""
        return (
            self.data_digest == other.data_digest
            and self.report["pairing"] == other.report["pairing"]
        )


def intervals(report: Mapping[str, Any]) -> dict[str, Mapping[str, float | None]]:
    """Everything that a report has measured, by what its samples are called: `accuracy`,
    `accuracy[sex=f]`, `fairness.demographic_parity_difference[sex]`."""
    found = dict(report["metrics"])
    for one in report["slices"]:
        for name, value in one["metrics"].items():
            found[f"{name}[{one['column']}={one['value']}]"] = value
    for one in report["fairness"]:
        for name, value in one["metrics"].items():
            found[f"{FAIRNESS}{name}[{one['column']}]"] = value
    return found
