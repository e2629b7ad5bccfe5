"""Who gets in, and what else a connection may not do."""

from __future__ import annotations

import asyncio
import random
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from typing import Any

import asyncssh
import paramiko
import psutil
import pytest

from tests.console.gateway.conftest import Served, answers, until


async def test_a_key_that_nobody_knows_is_refused_and_written_down(served: Served) -> None:
    key = served.add("eve")
    (served.keys / "eve").unlink()
    assert key.exists()
    said = await served.ssh("eve", "jobs")
    assert said.code == 255
    assert b"Permission denied (publickey)" in said.err
    await until(lambda: [line for line in served.journal if line["what"] == "refused"])
    refused = [line for line in served.journal if line["what"] == "refused"]
    assert [(line["address"], line["keys"]) for line in refused] == [("127.0.0.1", 1)]


async def test_a_key_that_is_taken_away_ends_what_it_had_and_is_refused(served: Served) -> None:
    job = await served.plane.submit("sleep 60")
    client = await served.client("vic", "logs", "-f", job)
    await until(lambda: served.programs)
    (served.keys / "vic").unlink()
    assert (await served.ssh("vic", "jobs")).code == 255  # at once, for who comes now
    await asyncio.wait_for(client.communicate(), 15)
    assert client.returncode == 255
    await until(lambda: not served.programs)
    assert [line["user"] for line in served.journal if line["what"] == "revoked"] == ["vic"]
    assert (await served.ssh("mira", "jobs")).code == 0


async def test_another_role_counts_from_the_next_login_on(served: Served) -> None:
    job = await served.plane.submit("sleep 60")
    path = served.keys / "vic"
    path.write_text(f'role="operator" {path.read_text()}')
    assert (await served.ssh("vic", "cancel", job)).code == 0


async def test_a_certificate_is_its_principals_and_no_one_elses(served: Served) -> None:
    authority, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    public = authority.export_public_key().decode()
    (served.keys / "carl").write_text(
        f'cert-authority,principals="carl",role="operator" {public}'
        f'cert-authority,role="admin" {public}'  # for everybody: left out
    )
    private = served.held / "cert"
    private.write_bytes(user.export_private_key())
    private.chmod(0o600)
    for principals, code in ((["carl"], 0), (["dora"], 255), ([], 255)):
        made = authority.generate_user_certificate(user, "a person", principals=principals)
        (served.held / "cert-cert.pub").write_bytes(made.export_certificate())
        said = await served.ssh("cert", "submit", "--", "true")
        assert said.code == code, (principals, said)
    assert (await served.plane.get("/v1/jobs/j1"))["user"] == "carl"
    (served.held / "cert-cert.pub").unlink()
    assert (await served.ssh("cert", "jobs")).code == 255  # the bare key


async def test_a_connection_may_offer_six_keys(served: Served) -> None:
    offered = 0

    class Client(asyncssh.SSHClient):
        def public_key_auth_requested(self) -> Any:
            nonlocal offered
            offered += 1
            return asyncssh.generate_private_key("ssh-ed25519")

    with pytest.raises((asyncssh.DisconnectError, asyncssh.PermissionDenied, OSError)):
        await asyncssh.connect(
            "127.0.0.1", served.port, known_hosts=None, client_factory=Client, config=None,
            agent_path=None,
        )  # fmt: skip
    assert offered <= 7


async def test_an_address_that_fails_again_and_again_has_to_wait(served: Served) -> None:
    served.add("eve")
    (served.keys / "eve").unlink()
    for _ in range(30):
        said = await served.ssh("eve", "jobs")
        if b"Permission denied" not in said.err:
            break
    else:
        pytest.fail("thirty wrong keys were looked at")
    assert b"Connection" in said.err


async def test_there_is_no_other_way_in(served: Served) -> None:
    said = await served.ssh(
        "mira", "jobs", options=("-o", "PreferredAuthentications=password,keyboard-interactive")
    )
    assert b"Permission denied (publickey)" in said.err


async def test_nothing_but_ports_of_jobs_is_forwarded(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        there = f"127.0.0.1:{target.getsockname()[1]}"
        said = await served.ssh("mira", "jobs", options=("-R", f"0:{there}"))
        assert b"remote port forwarding failed" in said.err
        said = await served.ssh("mira", options=("-W", there))
        assert said.code == 255
        async with asyncssh.connect(
            "127.0.0.1", served.port, known_hosts=None, config=None, agent_path=None,
            client_keys=[str(served.held / "mira")],
        ) as connection:  # fmt: skip
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_unix_connection(str(served.plane.gateway_socket))
        target.settimeout(0)
        with pytest.raises(BlockingIOError):
            target.accept()


async def test_there_are_no_files(served: Served) -> None:
    done = await asyncio.create_subprocess_exec(
        "sftp", "-b", "-", "-P", str(served.port),
        *[word for word in served.command("mira")[1:-3] if word not in ("-p",)],
        "127.0.0.1",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    await done.communicate(b"ls /\n")
    assert done.returncode != 0
    said = await served.ssh("mira", "netconf", options=("-s",))
    assert said.code == 4
    assert b"there is no netconf here" in said.err


async def test_the_host_key_is_made_once_and_is_private(served: Served) -> None:
    path = served.plane.root / "state" / "gateway" / "host_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = asyncssh.read_private_key(path)
    served.process.terminate()
    assert await served.process.wait() == 0
    from console.gateway.server import host_key

    assert host_key(path) == before
    path.chmod(0o640)
    with pytest.raises(Exception, match="others may read"):
        host_key(path)


async def test_a_second_gateway_is_refused(served: Served) -> None:
    from tests.console.terminals import environment

    done = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "console.cli.main", "gateway", "--listen", "0"],
        stderr=subprocess.PIPE,
        env=environment(QD_HOME=str(served.plane.root)),
    )
    _, err = await done.communicate()
    assert done.returncode == 6
    assert b"running already" in err


async def test_limits_of_sessions(serve: Any) -> None:
    served: Served = await serve("--max-sessions-per-key", "1")
    served.add("mira")
    job = await served.plane.submit("sleep 60")
    client = await served.client("mira", "logs", "-f", job)
    await until(lambda: served.programs)
    said = await served.ssh("mira", "jobs")
    assert said.code == 4
    assert b"all that it may have" in said.err
    client.kill()
    await client.communicate()
    await until(lambda: not served.programs)
    await until(lambda: [line for line in served.journal if line["what"] == "end"])
    assert (await served.ssh("mira", "jobs")).code == 0


async def test_another_client(served: Served) -> None:
    """paramiko: a command with its exit code, and one that writes on both streams."""

    def use() -> tuple[int, bytes, int, bytes]:
        with paramiko.SSHClient() as client:
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            client.connect(
                "127.0.0.1", served.port, username="whoever", look_for_keys=False,
                allow_agent=False, key_filename=str(served.held / "mira"),
            )  # fmt: skip
            stdin, out, _ = client.exec_command("submit --wait", timeout=30)
            stdin.write("command: exit 3\n")
            stdin.channel.shutdown_write()
            first = out.read()
            code = out.channel.recv_exit_status()
            _, out, err = client.exec_command("nonsense", timeout=30)
            return code, first, out.channel.recv_exit_status(), err.read()

    code, out, wrong, err = await asyncio.to_thread(use)
    assert (code, out, wrong) == (3, b"j1\n", 2)
    assert b"there is no command" in err


async def test_malformed_packets_end_their_connection_and_no_other(served: Served) -> None:
    chance = random.Random(7)
    garbage = [
        b"",
        b"\x00" * 40,
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n" + b"\xff" * 4000,  # a packet of four gigabytes
        b"SSH-2.0-x\r\n" + b"\x00\x00\x00\x01\x00" * 100,
        b"SSH-1.5-x\r\n",
        b"x" * 100_000,
        *(b"SSH-2.0-x\r\n" + chance.randbytes(chance.randrange(2000)) for _ in range(60)),
    ]

    def throw(data: bytes) -> None:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", served.port), timeout=10) as held,
        ):
            held.sendall(data)
            held.shutdown(socket.SHUT_WR)
            while held.recv(65536):
                pass

    for data in garbage:
        await asyncio.to_thread(throw, data)
    assert await answers(served.port)
    assert (await served.ssh("mira", "jobs")).code == 0
    assert psutil.Process(served.process.pid).memory_info().rss < 200 << 20
