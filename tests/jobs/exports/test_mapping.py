"""Each field has been thought of, and none is lost in silence."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.base.errors import InvalidInput
from jobs.exports import mapping
from jobs.exports.workload import Workload
from jobs.services.spec import ServiceSpec
from jobs.spec.job import JobSpec


@pytest.mark.parametrize(("form", "noun"), mapping.FIELDS)
def test_every_field_has_its_line(form: mapping.Form, noun: Any) -> None:
    spec = JobSpec if noun == "job" else ServiceSpec
    assert mapping.FIELDS[form, noun].keys() == spec.model_fields.keys()


def test_what_is_not_carried_is_refused_once_somebody_set_it() -> None:
    asked = Workload.of_job(
        JobSpec.from_json({"command": "x", "lease": 30, "outputs": {"a": "a"}, "env": {"B": None}})
    )
    with pytest.raises(InvalidInput) as caught:
        mapping.check(asked, "kubernetes")
    for name in ("lease", "outputs", "env.B"):
        assert f"{name}: " in caught.value.message
    assert caught.value.hint.endswith("--without lease,outputs,env.B.")
    mapping.check(asked.leaving_out(["lease", "outputs", "env.B"]), "kubernetes")
    # A default is no wish: saying it again changes nothing.
    mapping.check(Workload.of_job(JobSpec.from_json({"command": "x", "lease": 90})), "kubernetes")


def test_a_service_is_no_job() -> None:
    with pytest.raises(InvalidInput, match="found service, in a job"):
        Workload.of_job(JobSpec.from_json({"command": "x", "kind": "service"}))


@pytest.mark.parametrize(
    ("name", "plain"),
    [("Digits_DDP.v2", "digits-ddp-v2"), ("9lives", "q-9lives"), ("a" * 63, "a" * 50)],
)
def test_names_are_those_of_kubernetes(name: str, plain: str) -> None:
    assert Workload.of_job(JobSpec.from_json({"command": "x", "name": name})).name == plain
