from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from console.client import Client, Cut, Stream, socket_here
from jobs import __version__
from jobs.base.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    QuarterdeckError,
    Unreachable,
)
from jobs.base.places import places
from jobs.wire.version import API, HEADER
from tests.console.fake_controller import CUT, FakeController, Reply, Request


@pytest.fixture
def client(controller: FakeController) -> Client:
    return Client.from_environment()


def test_the_machines_own_service_serves_who_has_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = places({"QD_HOME": str(tmp_path / "system")})
    mine = places({"QD_HOME": str(tmp_path / "mine")})
    monkeypatch.setattr("console.client.SYSTEM", system)
    assert socket_here(mine) == mine.socket, "there is no service"
    for here in (system, mine):
        here.runtime.mkdir(parents=True)
    system.socket.touch()
    assert socket_here(mine) == system.socket
    mine.socket.touch()
    assert socket_here(mine) == mine.socket


def test_get_sends_what_was_given_and_nothing_else(
    client: Client, controller: FakeController
) -> None:
    controller.on("GET /v1/jobs", {"jobs": []})
    page = client.get("/v1/jobs", state=["QUEUED", "RUNNING"], user=None, follow=True, q="a b&c")
    assert page == {"jobs": []}
    [request] = controller.requests
    assert request.query == {"state": ["QUEUED", "RUNNING"], "follow": ["1"], "q": ["a b&c"]}


def test_post_sends_json(client: Client, controller: FakeController) -> None:
    controller.on("POST /v1/jobs/j1/cancel", lambda request: request.json)
    assert client.post("/v1/jobs/j1/cancel", {"grace": 2}) == {"grace": 2}
    assert client.post("/v1/jobs/j1/cancel") == {}
    assert controller.requests[0].headers["content-type"] == "application/json"


def test_an_error_arrives_as_what_it_was(client: Client, controller: FakeController) -> None:
    controller.on("GET /v1/jobs/j9", NotFound("no job j9", "See `qd jobs`.", id="j9"))
    with pytest.raises(NotFound) as caught:
        client.get("/v1/jobs/j9")
    error = caught.value
    assert (error.message, error.hint, error.details) == (
        "no job j9",
        "See `qd jobs`.",
        {"id": "j9"},
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (409, Conflict), (500, QuarterdeckError), (418, QuarterdeckError)],
)
def test_an_error_in_another_form_keeps_its_kind(
    client: Client, controller: FakeController, status: int, kind: type[QuarterdeckError]
) -> None:
    controller.on("GET /v1/x", Reply(b"<h1>oops</h1>", status))
    with pytest.raises(kind, match=str(status)) as caught:
        client.get("/v1/x")
    assert type(caught.value) is kind


def test_no_control_plane(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="is not running") as caught:
        Client(tmp_path / "api.sock").get("/v1/status")
    assert "qd up" in caught.value.hint


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(Unreachable, match="is not running"):
        Client(path).get("/v1/status")


def test_a_socket_of_someone_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("console.client.dial", refuse)
    with pytest.raises(NotAllowed, match="no permission"):
        Client(tmp_path / "api.sock").get("/v1/status")


def test_a_control_plane_that_hangs(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(Unreachable, match=r"did not answer within 0\.05 s"):
            Client(path, timeout=0.05).get("/v1/status")


def test_a_control_plane_that_takes_no_more_callers(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(Unreachable, match="did not answer"):
            Client(path, timeout=0.05).get("/v1/status")


def test_a_socket_below_a_very_long_path(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / ("e" * 100) / "api.sock"
    with FakeController(path) as fake:
        fake.on("GET /v1/status", {"state": "ok"})
        assert Client(path).get("/v1/status") == {"state": "ok"}


def test_a_cut_call_is_told_from_one_that_never_was(
    client: Client, controller: FakeController
) -> None:
    controller.on("GET /v1/status", CUT)
    with pytest.raises(Cut, match="was cut"):
        client.get("/v1/status")


def test_half_an_answer_is_a_cut(client: Client, controller: FakeController) -> None:
    controller.on("GET /v1/status", Reply(b"{", headers={"Content-Length": "10"}))
    with pytest.raises(Cut):
        client.get("/v1/status")


def test_act_asks_again_with_the_same_body(
    client: Client, controller: FakeController, clock: object
) -> None:
    controller.on("POST /v1/jobs", CUT, CUT, {"id": "j1"})
    assert Client.from_environment().act("/v1/jobs", {"key": "k"}) == {"id": "j1"}
    assert [request.json for request in controller.requests] == [{"key": "k"}] * 3


def test_act_gives_up_in_the_end(controller: FakeController, clock: object) -> None:
    controller.on("POST /v1/jobs", CUT)
    with pytest.raises(Cut):
        Client.from_environment().act("/v1/jobs", {}, patience=2.0)
    assert len(controller.requests) == 9  # at once, and then each quarter of a second


def test_act_asks_again_where_no_answer_comes(home: Path, controller: FakeController) -> None:
    """A registry that is locked: what was asked is still on its way, and its key makes it one."""
    free = threading.Event()

    def slow(request: Request) -> Reply:
        free.wait(10)
        return Reply.of({"id": "late"})

    controller.on("POST /v1/jobs", slow, {"id": "j1"})
    overdue: list[str] = []
    client = Client(controller.socket, timeout=0.1)
    try:
        answer = client.act("/v1/jobs", {"key": "k"}, late=lambda: overdue.append("once"))
    finally:
        free.set()
    assert answer == {"id": "j1"}
    assert overdue == ["once"]
    assert [request.json for request in controller.requests] == [{"key": "k"}] * 2


def test_another_api_is_said_so(client: Client, controller: FakeController) -> None:
    controller.on("GET /v1/status", Reply(b"{}", headers={HEADER: f"{API + 1} 9.0.0"}))
    with pytest.raises(Unreachable, match=rf"control plane is 9\.0\.0 with API {API + 1}"):
        client.get("/v1/status")
    controller.on("GET /v1/logs", Reply(b"{}\n", headers={HEADER: f"{API + 1} 9.0.0"}))
    with pytest.raises(Unreachable, match="API"), client.stream("/v1/logs"):
        pass


def test_a_refusal_names_both_versions(client: Client, controller: FakeController) -> None:
    unknown = InvalidInput("spec.surprise: unknown field")
    reply = Reply.error(unknown)
    reply.headers = {HEADER: f"{API} 0.0.1"}
    controller.on("POST /v1/jobs", reply)
    with pytest.raises(InvalidInput) as caught:
        client.post("/v1/jobs", {})
    assert (
        caught.value.hint == f"The control plane is quarterdeck 0.0.1, and this is {__version__}."
    )


def test_act_does_not_wait_for_what_was_never_there(home: Path, clock: object) -> None:
    with pytest.raises(Unreachable, match="is not running"):
        Client.from_environment().act("/v1/jobs", {})


def test_act_does_not_repeat_a_refusal(controller: FakeController, clock: object) -> None:
    controller.on("POST /v1/jobs", Conflict("no"))
    with pytest.raises(Conflict):
        Client.from_environment().act("/v1/jobs", {})
    assert len(controller.requests) == 1


def test_raw_gives_bytes_and_headers_in_any_case(
    client: Client, controller: FakeController
) -> None:
    controller.on("GET /v1/jobs/j1/logs/0/raw", Reply(b"\xff\x00", headers={"x-size": "2"}))
    data, headers = client.raw("/v1/jobs/j1/logs/0/raw", offset=0)
    assert (data, headers["X-Size"], headers["x-size"]) == (b"\xff\x00", "2", "2")


def test_upload_sends_what_comes(client: Client, controller: FakeController) -> None:
    controller.on("POST /v1/blobs", lambda request: {"stored": len(request.body)})
    chunks = (b"x" * 1000 for _ in range(100))
    assert client.upload("/v1/blobs", chunks, "application/x-tar") == {"stored": 100_000}
    assert controller.requests[0].headers["content-type"] == "application/x-tar"


def test_a_stream_gives_lines_as_they_come(client: Client, controller: FakeController) -> None:
    hold = threading.Event()
    controller.on("GET /v1/events", Reply.stream([{"id": 1}, {"id": "ü"}], hold=hold))
    with client.stream("/v1/events", follow=True) as stream:
        assert next(stream) == {"id": 1}
        assert next(stream) == {"id": "ü"}
        hold.set()
        assert list(stream) == []


def test_a_stream_puts_lines_together(client: Client, controller: FakeController) -> None:
    pieces = [b'{"a"', b': 1}\n\n{"b": 2}\n{"c"', b": 3}"]
    controller.on("GET /v1/events", Reply(lines=pieces))
    with client.stream("/v1/events") as stream:
        assert list(stream) == [{"a": 1}, {"b": 2}, {"c": 3}]


@pytest.mark.parametrize("pieces", [[], [b'{"a": 1}\n'], [b'{"a": 1}\n', b'{"b"']])
def test_a_stream_that_breaks_off_is_no_whole_stream(
    client: Client, controller: FakeController, pieces: list[bytes]
) -> None:
    controller.on("GET /v1/events", Reply(lines=pieces, cut=True))
    got: list[Any] = []
    with client.stream("/v1/events") as stream, pytest.raises(Cut):
        got.extend(stream)
    assert got == [{"a": 1}][: len(pieces)]


def test_a_stream_that_ends_with_an_error(client: Client, controller: FakeController) -> None:
    lines = [{"line": "one"}, InvalidInput("grep: takes too long").to_json()]
    controller.on("GET /v1/events", Reply.stream(lines))
    with client.stream("/v1/events") as stream:
        assert next(stream) == {"line": "one"}
        with pytest.raises(InvalidInput, match="takes too long"):
            next(stream)


def test_a_stream_that_is_refused(client: Client, controller: FakeController) -> None:
    controller.on("GET /v1/jobs/j9/logs", NotFound("no job j9"))
    with pytest.raises(NotFound, match="no job j9"):
        client.stream("/v1/jobs/j9/logs")


def test_a_stream_of_something_else(client: Client, controller: FakeController) -> None:
    controller.on("GET /v1/events", Reply(lines=[b"[1]\n"]))
    with (
        client.stream("/v1/events") as stream,
        pytest.raises(QuarterdeckError, match="JSON object"),
    ):
        next(stream)


def test_silence_counts_as_a_cut_when_asked(client: Client, controller: FakeController) -> None:
    hold = threading.Event()
    controller.on("GET /v1/watch", Reply.stream([{"rev": 1}], hold=hold))
    with client.stream("/v1/watch", idle_timeout=0.05) as stream:
        assert next(stream) == {"rev": 1}
        with pytest.raises(Cut):
            next(stream)
    hold.set()


def test_closing_a_stream_ends_its_reader_in_another_thread(
    client: Client, controller: FakeController
) -> None:
    hold = threading.Event()
    controller.on("GET /v1/watch", Reply.stream([{"rev": 1}], hold=hold))
    stream: Stream = client.stream("/v1/watch")
    got: list[dict[str, object]] = []
    reader = threading.Thread(target=lambda: got.extend(stream))
    reader.start()
    deadline = time.monotonic() + 5
    while not got and time.monotonic() < deadline:
        time.sleep(0.001)
    stream.close()
    reader.join(5)
    hold.set()
    assert not reader.is_alive()
    assert got == [{"rev": 1}]


def test_calls_from_many_threads(client: Client, controller: FakeController) -> None:
    def echo(request: Request) -> dict[str, str | None]:
        return {"n": request.one("n")}

    controller.on("GET /v1/status", echo)
    answers: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda n=n: answers.update({n: client.get("/v1/status", n=n)}))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: {"n": str(n)} for n in range(20)}
