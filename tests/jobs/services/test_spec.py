"""A service's file: what may be in it, and the job that each replica is."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.base.errors import InvalidInput
from jobs.services.spec import ServiceSpec, load_service


def test_a_file_becomes_a_job_for_each_replica(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(
        "name: digits\nversion: 1.10\ncommand: python server.py\nready: /health\nreplicas: 2\n"
        "resources: {gpu: 1}\nenv: {LEVEL: 1.0}\ncanary: [5, 25.5]\nrest: 2m\n"
    )
    spec = load_service(file)
    assert (spec.version, spec.replicas, spec.plan().steps, spec.plan().rest) == (
        "1.10", 2, (5, 25.5), 120,
    )  # fmt: skip
    assert ServiceSpec.from_json(spec.to_json()) == spec
    job = spec.job("1.10")
    assert (job.kind, job.resources.gpu, job.resources.cpu) == ("service", 1, 1)
    assert job.env == {"LEVEL": "1.0"}
    assert job.tags == {"service": "digits", "version": "1.10"}


def test_our_model_server_is_told_of_its_log_and_no_other_program() -> None:
    def variables(command: str, **fields: object) -> dict[str, str | None]:
        spec = ServiceSpec.from_json({"name": "a", "command": command, **fields})
        assert ServiceSpec.from_json(spec.to_json()) == spec
        return dict(spec.job("1").env)

    ours = "python -m quarterdeck_serve m.onnx"
    told = variables(ours)["QUARTERDECK_SERVE_LOG"]
    assert told == '{"sample": 0.1, "max": 268435456, "redact": []}'
    assert '"sample": 0.0' in str(variables(ours, log=False))
    assert '"sample": 0.0' in str(variables(ours, log="off"))
    log = {"sample": 1, "max": "2MiB", "redact": ["x[3]"]}
    both = variables(ours, log=log, env={"A": "1"})
    assert both["A"] == "1"
    assert '"max": 2097152, "redact": ["x[3]"]' in str(both["QUARTERDECK_SERVE_LOG"])
    assert variables("python app.py", log={"sample": 1}) == {}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("command: x", "name: missing"),
        ("name: a\ncommand: x\ncanary: [50, 5]", "rising numbers below 100"),
        ("name: a\ncommand: x\ncanary: [100]", "canary"),
        ("name: a\ncommand: x\nready: health", "a path such as /health"),
        ("name: a\ncommand: x\nbind: 'a b'", "an address such as 127.0.0.1"),
        ("name: a\ncommand: x\nenv: {PORT: '1'}", "where a service listens"),
        ("name: a\ncommand: x\nport: 0", "port"),
        ("name: a\ncommand: x\nlog: {sample: 2}", "log.sample"),
        ("name: a\ncommand: x\nlog: {max: 10KiB}", "log.max"),
        ("[]", "at least name and command"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, lines: str, says: str) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(lines + "\n")
    with pytest.raises(InvalidInput) as error:
        load_service(file)
    assert says in error.value.message + error.value.hint
