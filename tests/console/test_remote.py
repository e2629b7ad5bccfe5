"""Commands for a cluster on another host, over real SSH to a server that can be told to misbehave."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from console.client import Client, Cut
from console.remote.link import Link
from console.remote.target import parse
from jobs.base.errors import NotAllowed, QuarterdeckError, Unreachable
from tests.console.fake_controller import FakeController, Reply
from tests.console.sample_views import detail, job, status
from tests.console.ssh_head import SshHead, end_carriers
from tests.console.terminals import environment, tmux

BIG = b"".join(b"%063d\n" % number for number in range(200_000))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the kernel allows a socket's path 107 bytes only."""
    with tempfile.TemporaryDirectory(prefix="qdt-") as name:
        yield Path(name)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FakeController]:
    """The control plane on the head, in the home of the account there."""
    with FakeController(tmp_path / "there/.local/state/quarterdeck/run/api.sock") as fake:
        fake.on("GET /v1/status", status())
        yield fake


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshHead]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QD_HOME", str(tmp_path / "here"))
    monkeypatch.setenv("QD_HOST", "head")
    for name in ("SSH_AUTH_SOCK", "QD_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    with SshHead(tmp_path) as started:
        yield started
        end_carriers(tmp_path / "here" / "run")


@pytest.fixture
def client(head: SshHead, far: FakeController) -> Client:
    return Client.from_environment()


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def refused(client: Client, kind: type[QuarterdeckError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        client.get("/v1/status")
    assert type(caught.value) is kind
    said = f"{caught.value.message}\n{caught.value.hint}"
    for word in words:
        assert word in said, said


# What works.


def test_one_login_serves_many_commands(client: Client, head: SshHead, far: FakeController) -> None:
    assert client.remote == parse("head")
    for _ in range(3):
        assert client.get("/v1/status")["state"] == "ok"
    assert Client.from_environment().get("/v1/status")["state"] == "ok"
    assert head.logins == 1
    assert client.link is not None
    assert client.link.told["socket"] == str(far.socket)
    assert client.link.told["account"] == "mira"
    mode = client.socket.stat().st_mode | client.socket.parent.stat().st_mode
    assert mode & 0o077 == 0


def test_clients_at_once_start_one_carrier(client: Client, head: SshHead) -> None:
    said: list[Any] = []

    def ask() -> None:
        said.append(Client.from_environment().get("/v1/status")["state"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["ok"] * 8
    assert head.logins == 1


@pytest.mark.parametrize("forwards", [True, False], ids=["forwarded", "program"])
def test_large_bodies_pass_whole_both_ways(
    client: Client, head: SshHead, far: FakeController, forwards: bool
) -> None:
    head.forwards = forwards
    far.on("GET /v1/big", Reply(BIG))
    far.on("POST /v1/blobs", lambda request: {"same": request.body == BIG})
    got: list[bytes] = []
    client.copy("/v1/big", got.append)
    assert b"".join(got) == BIG
    pieces = (BIG[at : at + 65536] for at in range(0, len(BIG), 65536))
    assert client.upload("/v1/blobs", pieces, "application/x-tar") == {"same": True}
    assert bool(head.commands[1:]) is not forwards


def test_a_slow_reader_loses_nothing(client: Client, far: FakeController) -> None:
    far.on("GET /v1/big", Reply(BIG * 3))
    got = 0

    def slowly(piece: bytes) -> None:
        nonlocal got
        if got < 1 << 20:
            time.sleep(0.05)  # the rest is there, and the channel closed, long before it is read
        got += len(piece)

    client.copy("/v1/big", slowly)
    assert got == 3 * len(BIG)


def test_a_reader_that_leaves_is_noticed_on_the_head(client: Client, far: FakeController) -> None:
    hold = threading.Event()
    far.on("GET /v1/watch", Reply.stream([{"n": 1}], hold=hold))
    with client.stream("/v1/watch") as stream:
        assert next(stream) == {"n": 1}
    hold.set()
    assert client.get("/v1/status")["state"] == "ok"


def test_its_socket_is_found_as_the_login_there_says(
    client: Client, head: SshHead, far: FakeController, tmp_path: Path
) -> None:
    other = tmp_path / "it's a home"
    head.environ["QD_HOME"] = str(other)
    with FakeController(other / "run" / "api.sock") as second:
        second.on("GET /v1/status", {"state": "degraded"})
        assert client.get("/v1/status")["state"] == "degraded"


# What is refused.


def test_a_host_that_is_not_known_is_not_trusted(client: Client, head: SshHead) -> None:
    (head.home / ".ssh" / "known_hosts").unlink()
    refused(client, NotAllowed, "host key of head is not known here", "`ssh head`")
    assert head.tries == 0, "no key was shown to it"


def test_a_config_cannot_switch_trust_off(client: Client, head: SshHead) -> None:
    (head.home / ".ssh" / "known_hosts").unlink()
    with (head.home / ".ssh" / "config").open("a") as file:
        file.write("  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")
    refused(client, NotAllowed, "is not known here")


def test_a_host_whose_key_changed_is_not_trusted(client: Client, head: SshHead) -> None:
    head.know(asyncssh.generate_private_key("ssh-ed25519"))
    refused(client, NotAllowed, "not the one that is known here")
    assert head.tries == 0


def test_a_login_that_is_refused_is_tried_once(client: Client, head: SshHead) -> None:
    head.lets_in = False
    for _ in range(3):
        refused(client, NotAllowed, "head does not let you in", "ssh-add")
    assert head.tries <= 2  # the key is offered, then signed for


def test_nobody_there(client: Client, head: SshHead) -> None:
    head.close()
    refused(client, Unreachable, "head cannot be reached", "refused")
    head.listen()  # for the fixture, and for the next try
    until(lambda: _answers(client), "it is reached again")


def _answers(client: Client) -> bool:
    try:
        return bool(client.get("/v1/status"))
    except Unreachable:
        return False


def test_no_such_host(client: Client, head: SshHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QD_HOST", "nowhere.invalid")
    refused(Client.from_environment(), Unreachable, "no host nowhere.invalid")


def test_a_host_that_says_nothing(head: SshHead, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("QD_HOST", f"head:{mute.getsockname()[1]}")
        began = time.monotonic()
        refused(Client.from_environment(), Unreachable, "head did not answer within 2 s")
        assert time.monotonic() - began < 5


def test_a_config_that_cannot_be_read(client: Client, head: SshHead) -> None:
    (head.home / ".ssh" / "config").write_text("Host head\n  Port many\n")
    with pytest.raises(QuarterdeckError) as caught:
        client.get("/v1/status")
    assert (caught.value.code, "your SSH config" in caught.value.message) == ("invalid", True)


@pytest.mark.parametrize("forwards", [True, False], ids=["forwarded", "program"])
def test_no_control_plane_there(head: SshHead, forwards: bool, tmp_path: Path) -> None:
    head.forwards = forwards
    path = tmp_path / "a.sock"
    if forwards:  # one that was killed leaves its socket
        with socket.socket(socket.AF_UNIX) as once:
            once.bind(str(path))
    link = Link(parse("head", socket=str(path)))
    client = Client(link.carrier, link=link)
    refused(client, Unreachable, "is not running", str(path), "ssh head qd up")


def test_nothing_in_the_usual_places(head: SshHead) -> None:
    refused(Client.from_environment(), Unreachable, "no control plane was found", "qd up")


def test_a_head_that_lets_nothing_through(head: SshHead, far: FakeController) -> None:
    head.runs = False
    refused(Client.from_environment(), Unreachable, "runs no commands", "--socket")
    head.forwards = False
    link = Link(parse("head", socket=str(far.socket)))
    refused(Client(link.carrier, link=link), Unreachable, "AllowStreamLocalForwarding")
    head.forwards = True
    assert Client(link.carrier, link=link).get("/v1/status")["state"] == "ok"


def test_a_runtime_folder_that_others_may_write_to(client: Client, tmp_path: Path) -> None:
    (tmp_path / "here" / "run").mkdir(parents=True)
    (tmp_path / "here" / "run").chmod(0o777)
    refused(client, NotAllowed, "others may write to", "chmod 700")


# What breaks.


def test_a_cut_in_a_stream_is_no_end_of_it(
    client: Client, head: SshHead, far: FakeController
) -> None:
    hold = threading.Event()
    far.on("GET /v1/watch", Reply.stream([{"n": 1}], hold=hold))
    with client.stream("/v1/watch") as stream:
        assert next(stream) == {"n": 1}
        head.cut()
        with pytest.raises(Cut):
            next(stream)
    hold.set()
    assert client.get("/v1/status")["state"] == "ok"
    assert head.logins == 2


def test_logs_are_followed_through_a_cut(
    qd: Any, head: SshHead, far: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QD_HOME", str(tmp_path / "here"))
    hold = threading.Event()
    offsets: list[str | None] = []

    def raw(request: Any) -> Reply:
        offsets.append(request.one("offset"))
        if len(offsets) == 1:
            return Reply(b"one\n")
        if len(offsets) == 2:
            threading.Thread(target=head.cut).start()
            return Reply.stream([], hold=hold)
        hold.set()
        return Reply(b"two\n" if len(offsets) == 3 else b"")

    far.on("GET /v1/jobs/j1", detail(state="SUCCEEDED", ranks=1))
    far.on("GET /v1/jobs/j1/logs/0/raw", raw)
    result = qd("logs", "j1", "--rank", "0", "--raw", "-f")
    assert (result.code, result.out) == (0, "one\ntwo\n")
    assert "connection lost" in result.err
    assert offsets == ["0", "4", "4", "8"]


def test_a_dead_connection_that_nobody_closed(client: Client, head: SshHead) -> None:
    """As after a laptop slept: the next command finds out, connects anew, and works."""
    with (head.home / ".ssh" / "config").open("a") as file:
        file.write("  ServerAliveInterval 1\n")
    assert client.get("/v1/status")
    (connection,) = head.connections
    head.call(_pause(connection._transport))  # what it gets is read by nobody from here on
    assert client.with_timeout(30).get("/v1/status")["state"] == "ok"
    assert head.logins == 2


async def _pause(transport: Any) -> None:
    transport.pause_reading()


def test_a_killed_carrier_is_replaced(client: Client, head: SshHead) -> None:
    assert client.get("/v1/status")
    lock = client.socket.with_suffix(".lock")
    os.kill(int(lock.read_text()), 9)
    assert client.get("/v1/status")["state"] == "ok"
    assert head.logins == 2


def test_a_carrier_ends_when_nobody_needs_it_or_its_socket_goes(
    head: SshHead, far: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QD_SSH_IDLE", "0.3")
    hold = threading.Event()
    far.on("GET /v1/watch", Reply.stream([{"n": 1}], hold=hold))
    client = Client.from_environment()
    with client.stream("/v1/watch") as stream:
        next(stream)
        time.sleep(0.5)
        assert client.socket.exists(), "it is needed"
    until(lambda: not client.socket.exists(), "it ends")
    with client.stream("/v1/watch") as stream:
        next(stream)
        pid = int(client.socket.with_suffix(".lock").read_text())
        client.socket.unlink()
        until(lambda: not Path(f"/proc/{pid}").exists(), "it ends")
    hold.set()


def test_another_agent_is_another_carrier(
    client: Client, head: SshHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    assert Client.from_environment().socket != client.socket


# Commands.


def test_commands_for_a_context(qd: Any, head: SshHead, far: FakeController, home: Path) -> None:
    far.on("GET /v1/jobs", {"jobs": [job()], "next": None, "total": 1})
    far.on("GET /v1/doctor", [])
    os.environ.pop("QD_HOST")
    qd("context", "add", "lab", "head", "--use")
    assert "j1" in qd("jobs").out
    shown = qd("status")
    assert "lab (head)" in shown.out
    document = qd("status", "--json").out
    assert str(far.socket) in document
    checks = qd("doctor").out
    assert "lab (head), as mira, socket forwarded" in checks
    assert "gpu driver" not in checks
    assert qd("--context", "local", "jobs").code == 5
    end_carriers(home / "qd" / "run")


def test_a_submission_names_no_interpreter_of_this_machine(
    qd: Any, head: SshHead, far: FakeController, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QD_HOME", str(tmp_path / "here"))
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.chdir(tmp_path)
    far.on("POST /v1/jobs", {"id": "j1", "state": "QUEUED", "reason": "", "created": True})
    assert qd("submit", "--no-workdir", "--", "true").code == 0
    assert qd("submit", "--no-workdir", "--python", sys.executable, "--", "true").code == 0
    specs = [request.json["spec"] for request in far.asked("POST /v1/jobs")]
    assert [spec.get("python") for spec in specs] == [None, sys.executable]


def test_local_commands_import_no_ssh(home: Path) -> None:
    program = (
        "import sys\nfrom console.cli.main import main\nmain(['jobs'])\n"
        "assert not {'asyncssh', 'console.remote.link', 'tomllib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=20)


def test_a_remote_command_imports_no_ssh_either(client: Client) -> None:
    program = (
        "import sys\nfrom console.cli.main import main\nassert main(['status']) == 0\n"
        "assert not {'asyncssh', 'asyncio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=20)


def test_completion_is_quick_and_silent_without_a_connection(
    head: SshHead, far: FakeController
) -> None:
    from console.cli.options import complete_job

    far.on("GET /v1/jobs", {"jobs": [job()], "next": None, "total": 1})
    head.lets_in = False
    assert complete_job("j") == []
    head.lets_in = True
    until(lambda: bool(complete_job("j")), "the connection is there")


# The console.


def _deltas(over: threading.Event) -> Iterator[bytes]:
    """What a control plane with one job tells a console."""
    told: list[dict[str, Any]] = [
        {"rev": 1, "op": "reset", "topic": "jobs"},
        {"rev": 1, "op": "put", "topic": "jobs", "key": "j1", "value": job()},
    ]
    for topic in ("jobs", "events", "nodes"):
        told.append({"rev": 1, "op": "ready", "topic": topic, "boot": "b"})
    for delta in told:
        yield json.dumps(delta).encode() + b"\n"
    while not over.wait(0.5):
        yield b'{"rev": 1, "op": "ping", "topic": "jobs", "boot": "b"}\n'


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed here")
def test_the_console_names_the_host_and_lives_through_a_cut(
    head: SshHead, far: FakeController, tmp_path: Path
) -> None:
    over = threading.Event()
    far.on("GET /v1/watch", lambda _: Reply(lines=_deltas(over)))
    far.on("GET /v1/nodes", [])
    command = [sys.executable, "-m", "console.cli.main", "--context", "lab", "--screen", "jobs"]
    config = tmp_path / "here" / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[contexts.lab]\nhost = "head"\n')
    environ = environment(QD_HOST=None)
    with tmux(tmp_path, command, environ, (120, 36)) as seen:
        seen.wait_for("digits")
        assert seen.wait_for("live")[0].startswith(" qd  lab ")
        head.close()
        head.cut()
        seen.wait_for("reconnecting")
        assert any("digits" in row for row in seen.shown), "what is known stays"
        head.listen()
        seen.wait_for("live")
        over.set()
    assert not (tmp_path / "here" / "state" / "console.json").exists()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed here")
def test_the_console_says_why_it_cannot_log_in(head: SshHead, tmp_path: Path) -> None:
    head.lets_in = False
    command = [sys.executable, "-m", "console.cli.main", "--host", "head", "--screen", "jobs"]
    with tmux(tmp_path, command, environment(QD_HOST=None), (120, 36)) as seen:
        seen.wait_for("refused")
        seen.wait_for("head does not let you in")
