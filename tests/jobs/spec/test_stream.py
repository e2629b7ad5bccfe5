"""`stream:` of a job: what it may say, and of which jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.base.errors import InvalidInput
from jobs.spec.job import JobSpec, job_in, load_job
from jobs.spec.yamlfile import parse


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("source: {folder: in}", "job.yaml:2: stream.source.folder: found 'in'; allowed: a path"),
        ("source: {}", "stream.source: allowed: folder, or nats"),
        ("source: {nats: 'nats://h'}", "nats and stream go together"),
        ("source: {folder: /in, subject: a}", "subject is for nats"),
        ("source: {nats: 'http://h', stream: s}", "stream.source.nats: found 'http://h'"),
        ("source: {nats: 'nats://h:x', stream: s}", "stream.source.nats: found 'nats://h:x'"),
        ("source: {nats: 'nats://m:geheim@h', stream: s}", "it has a user or a password"),
        ("source: {nats: 'nats://m:geheim@h:x', stream: s}", "it has a user or a password"),
        ("source: {nats: 'nats://h', stream: a.b}", "stream.source.stream: found 'a.b'"),
        ("source: {nats: 'nats://h', stream: s, subject: a..b}", "stream.source.subject: found"),
        ("on_drift: panic", "stream.on_drift: found 'panic'"),
        ("expect: {min_rows: 3}", "stream.expect: min_rows is about a whole table"),
        (
            "expect: {columns: {x: {unique: true}}}",
            "stream.expect: columns.x.unique is about a whole table",
        ),
        ("expect: {columns: {x: {missing: 0}}}", "columns.x.missing is about a whole table"),
        ("expect: {tables: {a: {}, b: {}}}", "stream.expect: 2 tables; allowed: one"),
        ("expect: {columns: {x: {type: float}}}", "stream.expect.columns.x.type"),
        ("expect: other.yaml", "stream.expect: there is no file other.yaml"),
        ("comit: {}", "stream.comit: unknown field; did you mean commit?"),
    ],
)
def test_a_stream_that_cannot_be(more: str, says: str) -> None:
    source = "" if more.startswith("source") else "source: {folder: /in}, "
    with pytest.raises(InvalidInput) as caught:
        job_in(parse(f"command: x\nstream: {{{source}{more}}}", "job.yaml"))
    assert says in caught.value.message
    assert "geheim" not in caught.value.message


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"kind": "service"}, "the kind is service"),
        ({"nodes": 2}, "several ranks"),
        ({"procs_per_node": 2}, "several ranks"),
        (
            {
                "stream": {"source": {"folder": "/in"}, "release": {"model": "m"}},
                "checkpoint": {"copy": "off"},
            },
            "release.model needs copies of all releases",
        ),
        ({"timeout": "1h"}, "timeout is given too; allowed: neither, or end: true"),
    ],
)
def test_a_job_that_cannot_have_one(more: dict[str, Any], says: str) -> None:
    data = {"command": "x", "stream": {"source": {"folder": "/in"}}, **more}
    with pytest.raises(InvalidInput) as caught:
        JobSpec.from_json(data)
    assert says in caught.value.message
    if "timeout" in more:
        data["stream"] = {"source": {"folder": "/in"}, "end": True}
        assert JobSpec.from_json(data).timeout == 3600


def test_expectations_of_a_file(tmp_path: Path) -> None:
    """What `qd data check` reads, from the folder of the job's file and no other."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "expect.yaml").write_text("tables: {a.csv: {columns: {x: {type: integer}}}}\n")
    (folder / "two.yaml").write_text("tables: {a.csv: {}, b.csv: {}}\n")
    (folder / "bad.yaml").write_text("table: {colums: {}}\n")
    (tmp_path / "outside.yaml").write_text("table: {columns: {}}\n")
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")

    def load(name: str) -> JobSpec:
        file = folder / "job.yaml"
        file.write_text(f"command: x\nstream: {{source: {{folder: /in}}, expect: {name}}}\n")
        return load_job(file)[0]

    spec = load("expect.yaml")
    assert spec.stream is not None and spec.stream.expect is not None
    assert spec.stream.expect.columns["x"].type == "integer"
    for name, says in {
        "two.yaml": "2 tables; allowed: one",
        "bad.yaml": "bad.yaml:1: table.colums: unknown field",
        "../outside.yaml": "there is no file ../outside.yaml",
        "link.yaml": "there is no file link.yaml",
        str(tmp_path / "outside.yaml"): "there is no file",
    }.items():
        with pytest.raises(InvalidInput, match=says):
            load(name)


def test_what_becomes_versions_is_copied_whole_and_often() -> None:
    def job(**more: Any) -> JobSpec:
        return JobSpec.from_json({"command": "x", **more})

    stream = {"source": {"folder": "/in"}, "release": {"records": 5, "model": "m"}}
    spec = JobSpec.from_json(job(stream=stream).to_json())
    assert (spec.copying, spec.copying_asked, spec.copying_every) == ("all", True, 60)
    slow = job(stream=stream, checkpoint={"every": "10m"})
    assert (slow.copying, slow.copying_every) == ("all", 600)
    plain = job(stream={"source": {"folder": "/in"}})
    assert (plain.copying, plain.copying_asked, plain.copying_every) == ("latest", False, 600)
