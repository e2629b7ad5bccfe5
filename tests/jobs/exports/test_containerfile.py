"""The Containerfile: what is pinned, what is quoted, what a container begins with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.base.errors import InvalidInput
from jobs.exports.containerfile import Plan, check_pinned, containerfile, is_pinned, unpinned
from jobs.exports.workload import Workload
from jobs.services.spec import ServiceSpec
from jobs.spec.job import JobSpec

BASE = "docker.io/library/python@sha256:" + "b" * 64


def lines(asked: dict[str, Any], requires: str | None = None) -> list[str]:
    if "ready" in asked:
        workload = Workload.of_service(ServiceSpec.from_json(asked))
    else:
        workload = Workload.of_job(JobSpec.from_json(asked))
    return containerfile(workload, Plan(BASE, requires, {"a.b": 'x "y"'})).splitlines()


def test_a_service() -> None:
    found = lines({"name": "app", "command": ["serve", "a b"], "ready": "/ok", "start_within": 30})
    assert found[0] == f"FROM {BASE}"
    assert 'LABEL a.b="x \\"y\\""' in found
    assert "USER 10001:10001" in found
    (check,) = [line for line in found if line.startswith("HEALTHCHECK")]
    assert '"--ready", "/ok"' in check and "--start-period=30s" in check
    assert found[-1] == 'CMD ["serve", "a b"]'
    assert not any("pip" in line for line in found)


def test_ranks_are_started_by_our_program() -> None:
    found = lines({"command": "train", "procs_per_node": 2, "launch": "mpi"}, "x==1\n")
    words = json.loads(found[-1].removeprefix("CMD "))
    assert words[:2] == ["python3", "/opt/quarterdeck/quarterdeck_ranks.py"]
    assert words[words.index("--") :] == ["--", "/bin/sh", "-c", "exec train"]
    assert not any(line.startswith(("HEALTHCHECK", "EXPOSE")) for line in found)
    install = next(n for n, line in enumerate(found) if line.startswith("RUN"))
    assert install < found.index("COPY --chown=10001:10001 app/ /app/"), "layers are kept"


def test_variables_are_what_they_would_be_in_a_rank() -> None:
    env = {"A": 'a "b" $C \\', "PATH": "/x:$PATH", "PYTHONPATH": "lib"}
    found = lines({"command": "x", "env": env, "params": {"lr": 0.1}, "seed": 7})
    assert 'ENV A="a \\"b\\" \\$C \\\\"' in found
    assert 'ENV PATH="/x:${PATH}"' in found
    first = found.index('ENV PYTHONPATH="/opt/quarterdeck${PYTHONPATH:+:${PYTHONPATH}}"')
    assert first < found.index('ENV PYTHONPATH="lib:${PYTHONPATH}"')
    assert 'ENV QD_PARAMS="{\\"lr\\": 0.1}"' in found
    assert 'ENV QD_SEED="7"' in found


def test_a_model_is_where_its_variable_says() -> None:
    found = lines({"command": "x", "models": {"base": "llm:3"}})
    assert "COPY models/ /opt/models/" in found
    assert 'ENV QD_MODEL_BASE="/opt/models/base"' in found
    assert 'ENV QD_MODEL="/opt/models/base"' in found


@pytest.mark.parametrize(
    "line",
    ["a==1.0", "A.b-c[x,y] == 1 ; python_version > '3'", "# all", "--index-url https://x", "",
     "a @ https://x/a.whl#sha256=" + "0" * 64, "a==1 \\\n  --hash=sha256:" + "0" * 64, "./w/a-1-py3.whl",
     "a==1  # why"],
)  # fmt: skip
def test_exact(line: str) -> None:
    assert unpinned(line) == []


@pytest.mark.parametrize(
    "line",
    ["a", "a>=1", "a==1.*", "a~=1.0", "a==1,<2", "a @ https://x/a.whl", "-r more.txt", "-e .",
     "git+https://x/y"],
)  # fmt: skip
def test_not_exact(line: str) -> None:
    assert unpinned(f"b==2\n{line}\n") == [line]


def test_a_base_needs_its_digest() -> None:
    assert is_pinned(BASE) and not is_pinned("python:3.11")
    check_pinned(BASE, "a==1\n")
    with pytest.raises(InvalidInput, match="no digest"):
        check_pinned("python:3.11", None)
    with pytest.raises(InvalidInput, match="not pinned: a>=1"):
        check_pinned(BASE, "a>=1\n")
