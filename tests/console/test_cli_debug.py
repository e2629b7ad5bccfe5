"""`qd debug`: whole where it can be, and without secrets."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from console.cli.debug import Bundle
from jobs.base.errors import Unreachable
from jobs.base.places import places
from tests.console.fake_controller import FakeController, Reply
from tests.console.sample_views import attempt, detail, event, line


@pytest.fixture
def job(controller: FakeController, monkeypatch: pytest.MonkeyPatch, home: Path) -> FakeController:
    monkeypatch.chdir(home)
    spec = {
        "command": ["train", "--api-key", "abc123"],
        "env": {"WANDB_API_KEY": "s3cr3t", "LR": "1"},
    }
    git = {"commit": "c", "branch": "b", "dirty": True, "diff": "+password = 'x'"}
    shown = detail(3, "FAILED", spec=spec, git=git, attempts=[attempt()])
    controller.on("GET /v1/jobs/j3", shown)
    controller.on("GET /v1/jobs/j3/explain", {"summary": "mysql://me:hidden@db/x did not answer"})
    controller.on("GET /v1/events", Reply.stream([event(1, "placed")]))
    controller.on("GET /v1/jobs/j3/logs", Reply.stream([line("export HF_TOKEN=hf_abc; go")]))
    controller.on("GET /v1/status", {"state": "ok"})
    controller.on("GET /v1/nodes", Unreachable("no answer"))
    controller.on("GET /v1/doctor", [])
    return controller


def unpacked(file: Path) -> dict[str, str]:
    with tarfile.open(file) as tar:
        return {
            member.name.partition("/")[2]: (tar.extractfile(member) or tar).read().decode()  # type: ignore[union-attr]
            for member in tar
        }


def test_all_of_it_but_secrets(job: FakeController, qd: Any) -> None:
    logs = places().daemon_logs
    logs.mkdir(parents=True)
    (logs / "controller.log").write_text("j3 placed\n" + "noise\n" * 200 + "j31 placed\nend\n")
    result = qd("debug", "j3")
    assert result.code == 0, result.err
    file = Path(result.out.strip())
    assert file.stat().st_mode & 0o077 == 0, "logs are nobody else's"
    files = unpacked(file)
    told = json.loads(files["job.json"])
    assert told["spec"]["env"] == {"WANDB_API_KEY": "[removed]", "LR": "1"}
    assert told["git"]["diff"] == "(left out)"
    whole = "".join(files.values())
    for secret in ("s3cr3t", "abc123", "hidden", "hf_abc", "password = 'x'"):
        assert secret not in whole
    assert "no answer" in files["cluster/nodes.json.failed"], "half of it is better than none"
    assert files["daemon/controller.log"].startswith("1: j3 placed\n")
    assert len(files["daemon/controller.log"].splitlines()) == 51
    assert "stacks.json" not in files


def test_a_file_that_is_there_is_left_alone(job: FakeController, qd: Any) -> None:
    Path("mine").write_text("x")
    assert qd("debug", "j3", "-o", "mine").code == 6
    assert Path("mine").read_text() == "x"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("max_tokens: 5, tokens_per_s: 1e3", "max_tokens: 5, tokens_per_s: 1e3"),
        ("QD_TOKEN_FILE=/x/y z", "QD_TOKEN_FILE=[removed] z"),
        ('{"password": "a b"}', '{"password": "[removed]"}'),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("tokenizer loss 3", "tokenizer loss 3"),
    ],
)
def test_what_is_removed(text: str, left: str) -> None:
    bundle = Bundle("x")
    bundle.add("f", text)
    assert bundle.files["f"] == left
