"""A cluster on another host behind OpenSSH's own server, as heads have it."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from console.client import Client
from jobs.base.errors import NotAllowed, Unreachable
from tests.console import terminals
from tests.console.fake_controller import FakeController, Reply
from tests.console.sample_views import status
from tests.console.ssh_head import end_carriers
from tests.waiting import until

pytestmark = pytest.mark.skipif(bool(terminals.sshd_missing()), reason=terminals.sshd_missing())

Serve = Callable[..., AbstractContextManager[int]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Starts a server with some settings, and makes it known as `head` and as `hop`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QD_HOME", str(tmp_path / "here"))
    for name in ("SSH_AUTH_SOCK", "QD_CONTEXT", "QD_HOST"):
        monkeypatch.delenv(name, raising=False)
    keys, ssh = tmp_path / "keys", tmp_path / ".ssh"

    @contextmanager
    def started(*settings: str, config: str = "") -> Iterator[int]:
        keys.mkdir()
        ssh.mkdir(mode=0o700)
        with terminals.ssh_server(keys, *settings) as login:
            port = int(login[login.index("-p") + 1])
            (ssh / "config").write_text(
                f"{config}\nHost head hop\n  HostName 127.0.0.1\n  Port {port}\n"
                f"  HostKeyAlias %s\n  User {getpass.getuser()}\n  IdentityFile {keys}/user\n"
                "  ConnectTimeout 5\n".replace("%s", "the-head")
            )
            kind, key, *_ = (keys / "host.pub").read_text().split()
            (ssh / "known_hosts").write_text(f"[the-head]:{port} {kind} {key}\n")
            try:
                yield port
            finally:
                end_carriers(tmp_path / "here" / "run")

    return started


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FakeController]:
    with FakeController(tmp_path / "there" / "run" / "api.sock") as fake:
        fake.on("GET /v1/status", status())
        yield fake


def client(tmp_path: Path, socket_path: Path, host: str = "head") -> Client:
    """Of a context, for the socket is in no usual place there."""
    config = tmp_path / "here" / "config" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f'context = "lab"\n[contexts.lab]\nhost = "{host}"\nsocket = "{socket_path}"\n'
    )
    return Client.from_environment()


BIG = os.urandom(1 << 23)


@pytest.mark.parametrize("allowed", ["yes", "no"])
def test_it_works_whether_sockets_are_forwarded_or_not(
    serve: Serve, far: FakeController, tmp_path: Path, allowed: str
) -> None:
    far.on("GET /v1/big", Reply(BIG))
    with serve(f"AllowStreamLocalForwarding {allowed}"):
        qd = client(tmp_path, far.socket)
        assert qd.get("/v1/status")["state"] == "ok"
        data, _ = qd.raw("/v1/big")
        assert data == BIG
        assert qd.link is not None
        assert ("forwarded" in qd.link.told["way"]) == (allowed == "yes")


def test_more_streams_than_an_sshd_has_sessions(
    serve: Serve, far: FakeController, tmp_path: Path
) -> None:
    hold = threading.Event()
    far.on("GET /v1/watch", Reply.stream([{"n": 1}], hold=hold))
    with serve("AllowStreamLocalForwarding no", "MaxSessions 1"):
        qd = client(tmp_path, far.socket)
        streams = [qd.stream("/v1/watch") for _ in range(2)]
        assert [next(stream) for stream in streams] == [{"n": 1}] * 2
        assert qd.get("/v1/status")["state"] == "ok"
        for stream in streams:
            stream.close()
        hold.set()


def test_a_jump_host_is_gone_through_and_trusted_no_more_than_others(
    serve: Serve, far: FakeController, tmp_path: Path
) -> None:
    with serve(config="Host head\n  ProxyJump hop\n"):
        qd = client(tmp_path, far.socket)
        assert qd.get("/v1/status")["state"] == "ok"
        end_carriers(tmp_path / "here" / "run")
        known = tmp_path / ".ssh" / "known_hosts"
        known.write_text(known.read_text().replace("the-head", "elsewhere"))
        with pytest.raises(NotAllowed, match="the host key of hop is not known here"):
            qd.get("/v1/status")


def test_every_host_may_jump_over_one_that_is_a_host_itself(
    serve: Serve, far: FakeController, tmp_path: Path
) -> None:
    with serve(config="Host *\n  ProxyJump hop\n"):
        assert client(tmp_path, far.socket).get("/v1/status")["state"] == "ok"


def test_keys_that_are_not_there_or_have_a_passphrase_are_passed_over(
    serve: Serve, far: FakeController, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "a secret", "-f", str(locked)]
    subprocess.run(words, check=True, timeout=20)
    config = f"Host *\n  IdentityFile {tmp_path}/none\n  IdentityFile {locked}\n"
    for only in ("no", "yes"):
        with serve(config=f"{config}  IdentitiesOnly {only}\n"):
            assert client(tmp_path, far.socket).get("/v1/status")["state"] == "ok"
        shutil.rmtree(tmp_path / "keys")
        shutil.rmtree(tmp_path / ".ssh")


@pytest.mark.parametrize("named", ["there", "beside", "gone"])
def test_a_key_that_the_agent_holds_is_used(
    serve: Serve, far: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    with serve(config="Host head\n  IdentitiesOnly yes\n"):
        place, key = tmp_path / "agent", tmp_path / "keys" / "user"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
        try:
            until(place.exists, "the agent")
            monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
            subprocess.run(["ssh-add", "-q", str(key)], check=True, timeout=20)
            if named == "there":
                words = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a secret", "-f", str(key)]
                subprocess.run(words, check=True, timeout=20, stdout=subprocess.DEVNULL)
            else:
                key.unlink()
            if named == "gone":
                (tmp_path / "keys" / "user.pub").unlink()
                config = tmp_path / ".ssh" / "config"
                config.write_text(config.read_text().replace("IdentitiesOnly yes", ""))
            assert client(tmp_path, far.socket).get("/v1/status")["state"] == "ok"
        finally:
            process.terminate()
            process.wait()


def test_a_proxy_command_is_used(serve: Serve, far: FakeController, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "far = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def back():\n    while data := far.recv(65536): os.write(1, data)\n    os._exit(0)\n"
        "threading.Thread(target=back).start()\n"
        "while data := os.read(0, 65536): far.sendall(data)\nos._exit(0)\n"
    )
    with serve(config=f"Host head\n  ProxyCommand {sys.executable} {relay} %h %p\n"):
        assert client(tmp_path, far.socket).get("/v1/status")["state"] == "ok"
        end_carriers(tmp_path / "here" / "run")
        relay.write_text("")
        with pytest.raises(Unreachable):
            client(tmp_path, far.socket).get("/v1/status")


@pytest.mark.skipif(os.geteuid() != 0, reason="to log in as someone else needs root")
def test_the_control_plane_sees_the_account_of_the_login(serve: Serve, tmp_path: Path) -> None:
    """The caller is who the kernel says: sshd connects as the account that has logged in."""
    callers: list[int] = []
    with serve("AuthorizedKeysFile /%k".replace("/%k", str(tmp_path / "keys" / "authorized"))):
        _open_to_all(tmp_path)
        place = tmp_path / "public.sock"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place))
            place.chmod(0o777)
            listening.listen()

            def answer() -> None:
                for _ in range(2):
                    peer, _ = listening.accept()
                    with peer:
                        packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                        callers.append(struct.unpack("3i", packed)[1])
                        peer.recv(65536)
                        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            assert client(tmp_path, place, "nobody@head").get("/v1/x") == {}
            assert client(tmp_path, place, "root@head").get("/v1/x") == {}
            thread.join(5)
    assert callers == [pwd.getpwnam("nobody").pw_uid, 0]


def _open_to_all(folder: Path) -> None:
    """sshd reads a login's keys as the account that logs in."""
    for place in (folder, *folder.parents[:-2], folder / "keys"):
        place.chmod(place.stat().st_mode | 0o011)
    (folder / "keys" / "authorized").chmod(0o644)
