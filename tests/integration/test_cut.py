"""A connection that is cut in the middle of `qd submit`."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.conftest import Cluster

pytestmark = pytest.mark.ray


class Proxy:
    """Stands between a command and the controller, and cuts its first `POST /v1/jobs`.

    Args:
        cut: "asked": after half of the request; "done": when the controller has answered and none of
            the answer was passed on; "half": in the middle of the answer.
    """

    def __init__(self, path: Path, target: Path, cut: str) -> None:
        self.cuts, self._target, self._cut = 0, target, cut
        path.parent.mkdir(parents=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            with ours, socket.socket(socket.AF_UNIX) as theirs, suppress(OSError):
                theirs.connect(str(self._target))
                self._exchange(ours, theirs)

    def _exchange(self, ours: socket.socket, theirs: socket.socket) -> None:
        request = _whole(ours)
        cut = self._cut if request.startswith(b"POST /v1/jobs ") and not self.cuts else ""
        self.cuts += bool(cut)
        if cut == "asked":
            theirs.sendall(request[: len(request) // 2])
            return
        theirs.sendall(request)
        answer = b"".join(iter(lambda: theirs.recv(65536), b""))  # `Connection: close` ends it
        if cut:
            assert b" 201 " in answer.split(b"\r\n")[0], "the job is recorded"
        if cut != "done":
            ours.sendall(answer[: len(answer) // 2] if cut else answer)


def _whole(connection: socket.socket) -> bytes:
    """One request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(headers.get(b"content-length", 0)):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def through(cluster: Cluster) -> Iterator[Callable[[str], tuple[Path, Proxy]]]:
    made: list[tuple[Path, Proxy]] = []

    def make(cut: str) -> tuple[Path, Proxy]:
        home = Path(tempfile.mkdtemp(prefix="qdt-"))
        made.append((home, Proxy(home / "run" / "api.sock", cluster.where.socket, cut)))
        return made[-1]

    yield make
    for home, proxy in made:
        proxy.close()
        shutil.rmtree(home)


@pytest.mark.parametrize("cut", ["asked", "done", "half"])
def test_a_cut_in_the_middle_of_submit_makes_one_job(
    cluster: Cluster, through: Callable[[str], tuple[Path, Proxy]], cut: str
) -> None:
    before = cluster.count()
    home, proxy = through(cut)
    done = cluster.qd("submit", "--no-workdir", "--json", "--", "true", home=home)
    assert (done.code, proxy.cuts) == (0, 1), done.err
    assert cluster.count() == before + 1
    assert done.json["created"] is (cut == "asked"), "the answer is to the second try"
    assert cluster.qd("wait", done.json["id"]).code == 0
