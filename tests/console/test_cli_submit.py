from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from console.cli.upload import packed
from jobs.base.errors import Conflict, InvalidInput
from jobs.snapshots.pack import read_pack
from tests.console.fake_controller import CUT, FakeController, Reply, Request
from tests.console.sample_views import attempt, detail, event, failure, job, line

ACCEPTED = {"id": "j1", "state": "QUEUED", "created": True, "reason": ""}


class Shop:
    """Takes blobs and jobs as the controller does."""

    def __init__(self, controller: FakeController) -> None:
        self.blobs: dict[str, bytes] = {}
        self.controller = controller
        controller.on("POST /v1/blobs/missing", self._missing)
        controller.on("POST /v1/blobs", self._store)
        controller.on("POST /v1/jobs", ACCEPTED)

    def _missing(self, request: Request) -> dict[str, Any]:
        return {"missing": [d for d in request.json["digests"] if d not in self.blobs]}

    def _store(self, request: Request) -> dict[str, Any]:
        got = dict(read_pack(io.BytesIO(request.body)))
        self.blobs |= got
        return {"stored": len(got)}

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [request.json for request in self.controller.asked("POST /v1/jobs")]

    def files(self, job: dict[str, Any]) -> dict[str, bytes]:
        manifest = json.loads(self.blobs[job["snapshot"].removeprefix("sha256:")])
        return {entry["path"]: self.blobs[entry["sha256"]] for entry in manifest["files"]}


@pytest.fixture
def work(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = home / "work"
    folder.mkdir()
    (folder / "train.py").write_text("print('hi')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shop(controller: FakeController, work: Path) -> Shop:
    return Shop(controller)


def test_a_command(qd: Any, shop: Shop) -> None:
    result = qd("submit", "--", "python", "train.py", "--json", "-h")
    assert (result.code, result.out) == (0, "j1\n")
    [sent] = shop.jobs
    assert sent["spec"]["command"] == ["python", "train.py", "--json", "-h"]
    assert "python" not in sent["spec"]
    assert shop.files(sent) == {"train.py": b"print('hi')\n"}
    assert len(sent["key"]) == 36


def test_options(qd: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    words = """submit --name n --nodes 2 --procs-per-node 4 --gpus 8 --cpus 16 --memory 8GiB
        --accelerator H100 --env A=1 --env B=x=y --secret HF_TOKEN --priority 70 --timeout 2h
        --max-restarts 3 --seed 7 --tag team=vision --output model=out/m.onnx --key k --no-workdir
        --json -- true"""
    result = qd(*words.split())
    assert json.loads(result.out) == ACCEPTED
    [sent] = shop.jobs
    spec = sent["spec"]
    assert (spec["name"], spec["nodes"], spec["procs_per_node"]) == ("n", 2, 4)
    assert spec["resources"] == {
        "gpu": 8.0,
        "cpu": 16.0,
        "memory": 8 << 30,
        "accelerator": "H100",
    }
    assert spec["env"] == {"A": "1", "B": "x=y"}
    assert (spec["priority"], spec["timeout"], spec["max_restarts"]) == (70, 7200.0, 3)
    assert (spec["seed"], spec["tags"], spec["outputs"]) == (
        7,
        {"team": "vision"},
        {"model": "out/m.onnx"},
    )
    assert sent["secrets"] == {"HF_TOKEN": "s3cret"}
    assert sent["key"] == "k"
    assert "snapshot" not in sent


def test_a_file_and_its_folder(qd: Any, shop: Shop, home: Path, work: Path) -> None:
    code = home / "project"
    (code / "src").mkdir(parents=True)
    (code / "src" / "model.py").write_text("x = 1\n")
    (code / "job.yaml").write_text(
        "command: python model.py\nworkdir: src\npriority: 10\nsecrets: []\nname: from-file\n"
    )
    assert qd("submit", "../project/job.yaml", "--priority", "90").code == 0
    [sent] = shop.jobs
    assert (sent["spec"]["priority"], sent["spec"]["name"]) == (90, "from-file")
    assert shop.files(sent) == {"model.py": b"x = 1\n"}
    assert qd("submit", "../project/job.yaml", "--workdir", ".").code == 0
    assert shop.files(shop.jobs[1]) == {"train.py": b"print('hi')\n"}


def test_only_what_is_missing_is_sent(qd: Any, shop: Shop, work: Path) -> None:
    qd("submit", "--", "true")
    assert len(shop.blobs) == 2
    (work / "more.py").write_text("y = 2\n")
    qd("submit", "--", "true")
    assert len(shop.blobs) == 4
    packs = shop.controller.asked("POST /v1/blobs")
    assert [len(list(read_pack(io.BytesIO(pack.body)))) for pack in packs] == [2, 2]
    qd("submit", "--", "true")
    assert len(shop.controller.asked("POST /v1/blobs")) == 2


def test_an_empty_folder_sends_nothing(qd: Any, shop: Shop, work: Path) -> None:
    (work / "train.py").unlink()
    assert qd("submit", "--", "echo", "hi").code == 0
    assert [request.path for request in shop.controller.requests] == ["/v1/jobs"]


def test_a_lost_answer_makes_no_second_job(qd: Any, shop: Shop, clock: Any) -> None:
    shop.controller.on("POST /v1/jobs", CUT, {**ACCEPTED, "created": False})
    result = qd("submit", "--no-workdir", "--", "true")
    assert (result.code, result.out) == (0, "j1\n")
    first, second = shop.jobs
    assert first == second


def test_what_may_have_been_taken_is_said_with_its_key(shop: Shop, qd: Any, clock: object) -> None:
    shop.controller.on("POST /v1/jobs", CUT)
    result = qd("submit", "--key", "mine", "--", "true")
    assert result.code == 5
    assert "may have been taken" in result.err
    assert "--key mine" in result.err


def test_what_was_not_asked_for_is_not_sent(shop: Shop, qd: Any) -> None:
    """A controller of an earlier version refuses fields that it does not know."""
    assert qd("submit", "--gpus", "2", "--", "python", "train.py").code == 0
    (job,) = shop.jobs
    assert job["spec"].keys() == {"name", "command", "resources"}


def test_an_upload_that_is_cut_is_taken_up_again(qd: Any, shop: Shop, clock: Any) -> None:
    shop.controller.on("POST /v1/blobs", CUT, shop._store)
    result = qd("submit", "--", "true")
    assert result.code == 0
    assert shop.files(shop.jobs[0])
    assert "connection lost" in result.err


def test_an_upload_that_is_refused(qd: Any, shop: Shop) -> None:
    shop.controller.on("POST /v1/blobs", Conflict("no room"))
    assert qd("submit", "--", "true").code == 6
    assert not shop.jobs


def test_dry_run_checks_and_sends_no_code(qd: Any, shop: Shop) -> None:
    result = qd("submit", "--dry-run", "--watch", "--", "true")
    assert (result.code, result.out) == (0, "")
    assert "with 1 file; nothing was submitted" in result.err
    assert shop.jobs[0]["dry_run"] is True
    assert not shop.blobs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["submit"], "nothing to submit"),
        (["submit", "--"], "nothing to submit"),
        (["submit", "no.yaml"], "`qd submit -- no.yaml`"),
        (["submit", "echo", "hi"], "hi"),
        (["submit", "train.py", "--", "true"], "both a file"),
        (["submit", "--nodes", "0", "--", "true"], "--nodes"),
        (["submit", "--env", "X", "--", "true"], "--env"),
        (["submit", "--timeout", "soon", "--", "true"], "--timeout"),
        (["submit", "--secret", "NOT_SET_ANYWHERE", "--", "true"], "NOT_SET_ANYWHERE"),
        (["submit", "--workdir", ".", "--no-workdir", "--", "true"], "exclude"),
        (["submit", "--workdir", "nowhere", "--", "true"], "nowhere"),
    ],
)
def test_wrong_usage_submits_nothing(qd: Any, shop: Shop, words: list[str], told: str) -> None:
    result = qd(*words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert not shop.controller.requests


def test_a_bad_file_names_the_line(qd: Any, shop: Shop, work: Path) -> None:
    (work / "job.yaml").write_text("command: true.sh\nprioriti: 3\n")
    result = qd("submit", "job.yaml")
    assert result.code == 2
    assert "job.yaml:2" in result.err
    assert "priority" in result.err


def test_the_active_environment_is_the_interpreter(
    qd: Any, shop: Shop, home: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (home / "venv", work / ".venv"):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to("/bin/true")
        (folder / "pyvenv.cfg").touch()
    monkeypatch.setenv("VIRTUAL_ENV", str(home / "venv"))
    qd("submit", "--", "true")
    qd("submit", "--python", ".venv/bin/python", "--", "true")
    shop.controller.on("GET /v1/nodes", [{}, {}])
    qd("submit", "--python", "/opt/elsewhere/python", "--", "true")
    qd("submit", "--python", "../venv", "--", "true")
    assert [sent["spec"]["python"] for sent in shop.jobs] == [
        str(home / "venv" / "bin" / "python"),
        str(work / ".venv" / "bin" / "python"),
        "/opt/elsewhere/python",
        str(home / "venv" / "bin" / "python"),
    ]


@pytest.mark.parametrize("python", ["3.1", "nothing-like-it", "bin/python", "/opt/python", "."])
def test_an_interpreter_that_is_not_there_is_refused(qd: Any, shop: Shop, python: str) -> None:
    shop.controller.on("GET /v1/nodes", [{}])
    result = qd("submit", "--python", python, "--", "true")
    assert (result.code, shop.jobs) == (2, [])
    assert "there is no " in result.err or "a folder without bin/python" in result.err


def test_wait_ends_as_the_job_does(qd: Any, shop: Shop) -> None:
    shop.controller.on("GET /v1/jobs/j1/wait", job(1, "FAILED", exit_code=42))
    shop.controller.on(
        "GET /v1/jobs/j1", detail(1, "FAILED", attempts=[attempt(first_failure=failure())])
    )
    result = qd("submit", "--wait", "--json", "--", "true")
    assert result.code == 42
    assert json.loads(result.out) == ACCEPTED
    assert "j1 FAILED after 3m12s" in result.err
    assert "first failure: rank 1 on n1: exit code 3" in result.err


@pytest.fixture
def running(shop: Shop) -> FakeController:
    """A job of two ranks that succeeds."""
    controller = shop.controller
    logs = [line("one"), line("two", rank=1, at=1)]
    controller.on("GET /v1/jobs/j1/logs", Reply.stream(logs, cut=True), Reply.stream(logs))
    controller.on("GET /v1/events", Reply.stream([event(1, "j1 is RUNNING on n1")]))
    controller.on("GET /v1/jobs/j1/wait", job(1, "SUCCEEDED"))
    objective = {"metric": "val_acc", "goal": "maximize"}
    controller.on("GET /v1/jobs/j1", detail(1, "SUCCEEDED", spec={"objective": objective}))
    return controller


def test_watch(qd: Any, running: FakeController, clock: Any) -> None:
    result = qd("submit", "--watch", "--procs", "2", "--", "true")
    assert result.code == 0
    assert result.out == "j1\n[r0] one\n[r1] two\n"
    assert "j1 SUCCEEDED after 3m12s" in result.err
    assert "val_acc = 0.975 at step 5" in result.err
    assert "model: out/model.onnx (4KiB)" in result.err


def test_watch_as_json_is_a_stream(qd: Any, running: FakeController, clock: Any) -> None:
    result = qd("submit", "--watch", "--procs", "2", "--json", "--", "true")
    first, *lines = [json.loads(text) for text in result.out.splitlines()]
    assert first == ACCEPTED
    assert [x["line"] for x in lines] == ["one", "two"]


def test_leaving_a_watch_leaves_the_job(
    qd: Any, running: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("console.cli.watch.print_lines", interrupt)
    result = qd("submit", "--watch", "--", "true")
    assert (result.code, result.out) == (130, "j1\n")
    assert "j1 runs on" in result.err
    assert "qd cancel j1" in result.err


def test_a_pack_streams_and_its_errors_arrive(tmp_path: Path) -> None:
    import hashlib

    content = os.urandom(1 << 20)
    file = tmp_path / "weights"
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert list(read_pack(io.BytesIO(b"".join(packed([(digest, file)]))))) == [(digest, content)]
    file.write_bytes(b"changed")
    with pytest.raises(InvalidInput, match="changed"):
        list(packed([(digest, file)]))


def test_a_pack_that_nobody_reads_leaves_no_thread(tmp_path: Path) -> None:
    import hashlib
    import threading

    content = bytes(1 << 20)
    before = threading.active_count()
    chunks = packed([(hashlib.sha256(content).hexdigest(), content)])
    next(chunks)
    assert isinstance(chunks, Generator)
    chunks.close()
    assert threading.active_count() == before


def test_a_line_says_what_travels_and_patterns_bring_more(qd: Any, shop: Shop, work: Path) -> None:
    (work / ".qdignore").write_text("data/\n")
    (work / "data").mkdir()
    (work / "data/x.bin").write_bytes(b"x" * 3000)
    assert "the work folder: 2 files" in qd("submit", "--", "true").err
    result = qd("submit", "--include", "data/**", "--", "true")
    assert "the work folder: 3 files, 2.95KiB, the heaviest data/x.bin 2.93KiB" in result.err
    assert shop.files(shop.jobs[-1])["data/x.bin"] == b"x" * 3000


def test_a_line_says_what_git_leaves_here(qd: Any, shop: Shop, work: Path) -> None:
    (work / ".gitignore").write_text("/data 1/\n*.pt\n")
    (work / "data 1").mkdir()
    (work / "data 1/x.bin").write_bytes(b"x" * 3000)
    told = qd("submit", "--", "true").err
    assert (
        "git's rules leave 1 file here, 2.93KiB, data 1/; `--include 'data 1/**'` sends it" in told
    )
    (work / "m.pt").touch()
    told = qd("submit", "--", "true").err
    assert "git's rules leave 2 files here, 2.93KiB, the heaviest data 1/ 2.93KiB; " in told
    assert (
        "git's rules"
        not in qd("submit", "--include", "data 1", "--include", "*.pt", "--", "true").err
    )


@pytest.mark.parametrize("times", [2, 3])
def test_a_folder_that_changes_is_looked_at_again(
    qd: Any, shop: Shop, work: Path, times: int
) -> None:
    """An editor that saves while the folder is sent; and a file that is never at rest."""
    left = iter(range(times))

    def missing(request: Request) -> dict[str, Any]:
        if (number := next(left, None)) is not None:
            (work / "train.py").write_text(f"print({number})\n")
        return shop._missing(request)

    shop.controller.on("POST /v1/blobs/missing", missing)
    result = qd("submit", "--", "true")
    if times == 2:
        assert shop.files(shop.jobs[-1])["train.py"] == b"print(1)\n"
    else:
        assert (result.code, "train.py changed after it was read" in result.err) == (2, True)


def test_what_this_command_prints_may_go_into_the_folder(shop: Shop, work: Path) -> None:
    def missing(request: Request) -> dict[str, Any]:
        with (work / "x.log").open("a") as file:
            file.write("as another program would print\n")
        return shop._missing(request)

    shop.controller.on("POST /v1/blobs/missing", missing)
    command = [sys.executable, "-m", "console.cli.main", "submit", "--", "true"]
    with (work / "x.log").open("w") as log:
        done = subprocess.run(command, env=os.environ, stdout=log, stderr=log, check=False)
    assert done.returncode == 0, (work / "x.log").read_text()
    assert b"j1" not in shop.files(shop.jobs[-1])["x.log"]
    assert "j1\n" in (work / "x.log").read_text()


def test_a_current_folder_that_was_removed(qd: Any, shop: Shop, work: Path) -> None:
    (work / "train.py").unlink()
    work.rmdir()
    result = qd("submit", "--", "true")
    assert (result.code, "the current folder was removed" in result.err) == (2, True)
    assert qd("submit", "--no-workdir", "--", "true").code == 0


def test_a_variable_without_a_value_is_taken_from_here(
    qd: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENS", "7")
    assert qd("submit", "--env", "TOKENS", "--launch", "torchrun", "--", "true").code == 0
    assert shop.jobs[-1]["spec"]["env"] == {"TOKENS": "7"}
    assert shop.jobs[-1]["spec"]["launch"] == "torchrun"
    result = qd("submit", "--env", "NOT_SET", "--", "true")
    assert (result.code, "does not have this variable" in result.err) == (2, True)
