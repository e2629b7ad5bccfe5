"""Tunnels to a port that a rank listens on, and profiles of a rank: the real far ends."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial

import pytest

from console.client import Client
from console.tunnel import Near
from jobs.access.roles import Role
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, NotFound, QuarterdeckError
from tests.agents.controller.api.test_access import introduced
from tests.agents.controller.api.test_shells import running
from tests.agents.controller.conftest import Plane
from tests.console.terminals import ROOT, environment
from tests.waiting import until

SERVER = """
import http.server, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.path.encode() * (20000 if len(self.path) > 8 else 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
# Says how many bytes came, but only once no more come.
COUNTER = """
import socket, sys
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    one, _ = held.accept()
    count = 0
    while data := one.recv(65536): count += len(data)
    one.sendall(b"%d\\n" % count)
    one.close()
"""


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


async def serving(plane: Plane, program: str, *words: str) -> str:
    (plane.root / "server.py").write_text(program)
    line = " ".join([sys.executable, str(plane.root / "server.py"), *words])
    return await running(plane, line)


class Forward:
    """A near end on a thread, and where it listens."""

    def __init__(self, client: Client, job: str, port: int, rank: int = 0) -> None:
        view = client.post(f"/v1/jobs/{job}/tunnels", {"rank": rank, "port": port})
        self.refused: list[str] = []
        self.error: QuarterdeckError | None = None
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()
        path = f"/v1/jobs/{job}/shells/{rank}/{view['id']}"
        self.near = Near(client, path, self.listening, None, self.refused.append)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.near.run()
        except QuarterdeckError as error:
            self.error = error

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.address[1], timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read()

    def close(self) -> None:
        self.near.close()
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.listening.close()


@contextlib.contextmanager
def forwarded(client: Client, job: str, port: int) -> Iterator[Forward]:
    forward = Forward(client, job, port)
    try:
        yield forward
    finally:
        forward.close()


async def test_a_server_of_a_rank_is_reached_by_many_at_once(plane: Plane) -> None:
    port = free()
    job = await serving(plane, SERVER, "127.0.0.1", str(port))

    def use() -> None:
        with forwarded(plane.client, job, port) as forward:
            until(lambda: _answers(forward), "the server to listen")
            found: dict[int, bytes] = {}
            names = {number: f"/n{number:03}" + "x" * (number % 2 * 8) for number in range(30)}
            threads = [
                threading.Thread(target=lambda n=number: found.update({n: forward.get(names[n])}))
                for number in names
            ]
            idle = [socket.create_connection(forward.address) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            for one in idle:
                one.close()
            for number, name in names.items():
                assert found[number] == name.encode() * (20000 if number % 2 else 1)

    await asyncio.to_thread(use)


def _answers(forward: Forward) -> bool:
    assert forward.error is None
    with contextlib.suppress(OSError, http.client.HTTPException):
        return forward.get("/up") == b"/up"
    return False


async def test_one_direction_may_end_before_the_other_and_a_slow_reader_holds_up_nobody(
    plane: Plane,
) -> None:
    port = free()
    job = await serving(plane, COUNTER, str(port))

    def use() -> None:
        with forwarded(plane.client, job, port) as forward:
            piece = b"x" * 100_000

            def send() -> bytes:
                with socket.create_connection(forward.address, timeout=30) as one:
                    for _ in range(50):
                        one.sendall(piece)
                    one.shutdown(socket.SHUT_WR)
                    return one.recv(100)

            def counted() -> bytes:
                with contextlib.suppress(ConnectionError):
                    return send()
                return b""

            assert until(counted, "the server to listen") == b"5000000\n"

    await asyncio.to_thread(use)


async def test_a_reader_that_stops_is_not_drowned_and_others_go_on(plane: Plane) -> None:
    port = free()
    job = await serving(plane, SERVER, "0.0.0.0", str(port))

    def use() -> None:
        with forwarded(plane.client, job, port) as forward:
            until(lambda: _answers(forward), "the server to listen")
            stopped = socket.create_connection(forward.address, timeout=30)
            stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            long = "/" + "long-and-large" * 8
            stopped.sendall(f"GET {long} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            for _ in range(5):
                assert forward.get("/ok") == b"/ok"
            waiting = sum(len(stream.pending) for stream, _ in forward.near._open.values())
            assert waiting <= 256 << 10, "more is kept than there is credit for"
            whole = b""
            while len(whole) < len(long) * 20000:
                whole += stopped.recv(1 << 20)
            stopped.close()

    await asyncio.to_thread(use)


async def test_only_what_the_job_listens_on_is_connected(plane: Plane) -> None:
    job = await running(plane)
    mine = socket.create_server(("127.0.0.1", 0))  # a process of this host that is not the job's

    def use() -> None:
        for port, words in (
            (mine.getsockname()[1], "is not this job's"),
            (1, "nothing listens"),
        ):
            with forwarded(plane.client, job, port) as forward:
                with socket.create_connection(forward.address, timeout=30) as one:
                    assert one.recv(10) == b""
                until(lambda: forward.refused, "the reason")
                assert words in forward.refused[0]

    with contextlib.closing(mine):
        await asyncio.to_thread(use)


async def test_a_tunnel_lives_through_a_restart_of_the_controller_and_ends_with_its_job(
    plane: Plane,
) -> None:
    port = free()
    job = await serving(plane, SERVER, "::1", str(port))  # which only IPv6 reaches
    place = plane.root / "api.sock"
    place.symlink_to(plane.client.socket)
    forward = await asyncio.to_thread(Forward, Client(place), job, port)
    try:
        await asyncio.to_thread(until, partial(_answers, forward), "the server to listen")
        await plane.restart()
        place.unlink()
        place.symlink_to(plane.client.socket)
        found = await asyncio.to_thread(until, partial(_answers, forward), "an answer", 20)
        assert found
        await plane.post(f"/v1/jobs/{job}/cancel", {"grace": 0})
        await plane.wait(job)
        await asyncio.to_thread(until, lambda: forward.error, "the end")
        assert isinstance(forward.error, NotFound | Conflict)
    finally:
        await asyncio.to_thread(forward.close)


async def test_forwards_and_profiles_are_for_a_jobs_owner(plane: Plane) -> None:
    eve = introduced(plane, "eve", Role.OPERATOR)
    job = await running(plane)
    for what, body in (("tunnels", {"port": 80}), ("profiles", {})):
        with pytest.raises(NotAllowed):
            await asyncio.to_thread(eve.post, f"/v1/jobs/{job}/{what}", body)
    with pytest.raises(InvalidInput):
        await asyncio.to_thread(plane.client.post, f"/v1/jobs/{job}/tunnels", {"port": 70000})


BUSY = """
def inner():
    return sum(i * i for i in range(20000))
def outer():
    while True: inner()
outer()
"""


def qd(plane: Plane, *words: str) -> subprocess.Popen[str]:
    """The command itself, with this control plane."""
    place = plane.root / "run" / "api.sock"
    if not place.exists():
        place.symlink_to(plane.client.socket)
    return subprocess.Popen(
        [sys.executable, "-m", "console.cli.main", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(QD_HOME=str(plane.root)),
    )


async def test_the_command_opens_a_port_and_ends_with_the_job_in_words(plane: Plane) -> None:
    port = free()
    job = await serving(plane, SERVER, "127.0.0.1", str(port))
    with qd(plane, "forward", job, f"{port}:0", "--json") as command:
        assert command.stdout is not None
        address = json.loads(await asyncio.to_thread(command.stdout.readline))["address"]

        def answer() -> bytes:
            with contextlib.suppress(OSError):
                return bytes(urllib.request.urlopen(f"http://{address}/up", timeout=10).read())
            return b""

        assert await asyncio.to_thread(until, answer, "an answer") == b"/up"
        await plane.post(f"/v1/jobs/{job}/cancel", {"grace": 0})
        _, words = await asyncio.to_thread(command.communicate, timeout=60)
        assert command.returncode == 0
        assert "so its port is closed" in words or "its port with it" in words


async def test_a_rank_is_profiled_into_files_and_a_list(plane: Plane) -> None:
    (plane.root / "busy.py").write_text(BUSY)
    job = await running(plane, f"{sys.executable} {plane.root / 'busy.py'}")
    svg, shape = plane.root / "flame.svg", plane.root / "shape.json"
    words = ("profile", job, "-d", "1", "--svg", str(svg), "--speedscope", str(shape), "--json")
    with qd(plane, *words) as command:
        out, err = await asyncio.to_thread(command.communicate, timeout=60)
    assert command.returncode == 0, err
    found = json.loads(out)
    assert found["samples"] > 0
    by_name = {one["name"]: one for one in found["functions"]}
    assert by_name["outer (busy.py)"]["total"] == found["samples"]
    assert by_name["inner (busy.py)"]["total"] > 0, by_name
    assert "inner (busy.py:3)" in svg.read_text()
    assert {"name": "outer", "file": "busy.py", "line": 5} in json.loads(shape.read_text())[
        "shared"
    ]["frames"]
    other = await running(plane, "sleep 60")
    with qd(plane, "profile", other) as command:
        _, err = await asyncio.to_thread(command.communicate, timeout=60)
    assert command.returncode == 6
    assert "runs no Python" in err
