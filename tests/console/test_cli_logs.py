from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.cli.copy import SafeText
from console.cli.follow import LogCursor
from console.cli.main import main
from console.text import last_state, neutralise
from jobs.base.errors import InvalidInput
from jobs.wire.views import LogLine
from tests.console.fake_controller import CUT, FakeController, Reply, Request
from tests.console.sample_views import detail, job, line

LOGS = "GET /v1/jobs/j1/logs"


@pytest.fixture
def logs(controller: FakeController) -> FakeController:
    controller.on("GET /v1/jobs/j1", detail())
    controller.on(LOGS, Reply.stream([line("one"), line("two", rank=1, at=1)]))
    controller.on("GET /v1/jobs/j1/wait", job(1, "SUCCEEDED"))
    return controller


def test_ranks_are_named_when_there_are_several(qd: Any, logs: FakeController) -> None:
    assert qd("logs", "j1").out == "[r0] one\n[r1] two\n"
    logs.on(LOGS, Reply.stream([line("two", rank=1)]))
    assert qd("logs", "j1", "--rank", "1", "--tail", "1").out == "two\n"
    assert logs.requests[-1].one("rank") == "1"
    logs.on("GET /v1/jobs/j1/logs/1/raw", disk(b"two\n"))
    assert qd("logs", "j1", "--rank", "1").out == "two\n"


def test_last_and_runs(qd: Any, logs: FakeController) -> None:
    logs.on("GET /v1/jobs/last", detail())
    assert qd("logs", "last").code == 0
    assert qd("logs", "j1.2/r1", "--tail", "9").code == 0
    request = logs.requests[-1]
    assert (request.path, request.one("attempt"), request.one("rank")) == (
        "/v1/jobs/j1/logs",
        "2",
        "1",
    )


def test_options_reach_the_control_plane(qd: Any, logs: FakeController) -> None:
    qd("logs", "j1", "--grep", "loss=.*", "--tail", "5", "--since", "2026-01-01T00:00:00Z")
    request = logs.requests[-1]
    assert (request.one("grep"), request.one("tail")) == ("loss=.*", "5")
    assert request.one("since") == "2026-01-01T00:00:00.000Z"
    assert request.one("follow") is None


def test_bad_options(qd: Any, logs: FakeController) -> None:
    assert "has no rank 2" in qd("logs", "j1", "--rank", "2").err
    assert qd("logs", "j1", "--since", "yesterday").code == 2
    assert qd("logs", "j1", "--raw", "--grep", "x").code == 2
    logs.on(LOGS, InvalidInput("--grep: unbalanced parenthesis"))
    assert qd("logs", "j1", "--grep", "(").code == 2


def test_control_characters_are_made_visible(qd: Any, logs: FakeController) -> None:
    text = "\x1b[2Jgone\x9b31m \u202eback\tand tab"
    logs.on(LOGS, Reply.stream([line(text)]))
    assert qd("logs", "j1").out == "[r0] ␛[2Jgone\\x9b31m \\u202eback\tand tab\n"
    assert json.loads(qd("logs", "j1", "--json").out)["line"] == text


def test_json_has_the_fields_of_the_contract(qd: Any, logs: FakeController) -> None:
    documents = [json.loads(text) for text in qd("logs", "j1", "--json").out.splitlines()]
    assert all({"rank", "offset", "at", "line"} <= set(d) for d in documents)


def test_a_log_that_is_cut_short_is_not_taken_for_whole(qd: Any, logs: FakeController) -> None:
    logs.on(LOGS, Reply.stream([line("one")], cut=True))
    result = qd("logs", "j1")
    assert (result.code, result.out) == (5, "[r0] one\n")


class Ranks:
    """A log that is served as docs/api.md says, and breaks off after so many lines."""

    def __init__(self, lines: list[dict[str, Any]], cuts: list[int]) -> None:
        self.lines = lines
        self.cuts = cuts

    def _asked(self, request: Request, x: dict[str, Any]) -> bool:
        rank, since = request.one("rank"), request.one("since")
        attempt, offset = request.one("attempt"), request.one("offset")
        assert offset is None or rank is not None
        return (
            (rank is None or x["rank"] == int(rank))
            and (since is None or x["at"] >= since)
            and (attempt is None or x["attempt"] == int(attempt))
            and (offset is None or x["offset"] >= int(offset))
        )

    def __call__(self, request: Request) -> Reply:
        if self.cuts and self.cuts[0] < 0:
            self.cuts.pop(0)
            return CUT
        assert request.one("follow") == "1"
        told = [x for x in self.lines if self._asked(request, x)]
        tail = request.one("tail")
        if tail is not None:
            told = told[-int(tail) :]
        if self.cuts:
            return Reply.stream(told[: self.cuts.pop(0)], cut=True)
        return Reply.stream(told)


def test_following_survives_restarts_without_loss_or_doubles(
    qd: Any, logs: FakeController, clock: Any
) -> None:
    lines = [line(f"{n}", rank=n % 2, offset=n * 10, at=n) for n in range(40)]
    logs.on(LOGS, Ranks(lines, [7, -1, -1, 5, 12]))
    result = qd("logs", "j1", "-f")
    assert result.code == 0
    assert result.out == "".join(f"[r{n % 2}] {n}\n" for n in range(40))
    assert result.err.count("connection lost") == 3
    assert result.err.count("connected again") == 3


def test_following_one_rank_reads_on_from_its_offset(
    qd: Any, logs: FakeController, clock: Any
) -> None:
    lines = [line(f"{n}", offset=n * 10, at=n) for n in range(9)]
    logs.on(LOGS, Ranks(lines, [4, 2]))
    assert qd("logs", "j1", "-f", "--rank", "0", "-t").out.split()[1::2] == [*"012345678"]
    asked = [request.one("offset") for request in logs.asked(LOGS)]
    assert asked == [None, "30", "40"]


def test_following_a_restarted_job_reads_every_attempt(
    qd: Any, logs: FakeController, clock: Any
) -> None:
    """Also when the control plane was away while one attempt ended and others followed."""
    lines = [
        line(f"a{attempt}-{n}", offset=n * 10, at=attempt * 10 + n, attempt=attempt)
        for attempt in (1, 2, 3)
        for n in range(3)
    ]
    logs.on(LOGS, Ranks(lines, [2]))
    between = job(1, "QUEUED", attempt=1)
    logs.on("GET /v1/jobs/j1/wait", between, job(1, attempt=3), job(1, "SUCCEEDED", attempt=3))
    result = qd("logs", "j1", "-f")
    assert result.out == "".join(f"[r0] {x['line']}\n" for x in lines)
    assert "attempt 2 starts" in result.err
    assert [request.one("attempt") for request in logs.asked(LOGS)] == [None, "1", "2", "3"]


def test_following_one_attempt_ends_with_it(qd: Any, logs: FakeController, clock: Any) -> None:
    lines = [line(f"{n}", offset=n, at=n, attempt=n // 2 + 1) for n in range(4)]
    logs.on(LOGS, Ranks(lines, [1]))
    assert qd("logs", "j1.1", "-f").out == "[r0] 0\n[r0] 1\n"


def test_following_gives_up_in_the_end(qd: Any, logs: FakeController, clock: Any) -> None:
    logs.on(LOGS, Reply.stream([line("one")], cut=True), CUT)
    result = qd("logs", "j1", "-f")
    assert (result.code, result.out) == (5, "[r0] one\n")


def test_following_a_tail_shows_nothing_older_after_a_restart(
    qd: Any, logs: FakeController, clock: Any
) -> None:
    old = [line("old", rank=1, offset=0, at=0)]
    new = [line(f"{n}", rank=0, offset=n * 10, at=60 + n) for n in range(4)]
    logs.on(LOGS, Ranks([*old, *new], [1]))
    out = qd("logs", "j1", "-f", "--tail", "2").out
    assert out == "[r0] 2\n[r0] 3\n"


@st.composite
def merged_logs(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[int]]:
    """Lines of up to three ranks in the order they are told, and where connections break."""
    at, offsets, lines = 0, [0, 0, 0], []
    for n in range(draw(st.integers(0, 30))):
        rank = draw(st.integers(0, 2))
        at += draw(st.integers(0, 3))
        lines.append(line(str(n), rank=rank, offset=offsets[rank], at=at))
        offsets[rank] += draw(st.integers(1, 5))
    return lines, draw(st.lists(st.integers(0, 30), max_size=4))


@given(merged_logs())
def test_any_cuts_leave_every_line_once(log: tuple[list[dict[str, Any]], list[int]]) -> None:
    lines, cuts = log
    query: dict[str, Any] = {"since": None, "tail": None}
    cursor = LogCursor(query, [0, 1, 2])
    taken = []
    for cut in [*cuts, None]:
        since = query["since"]
        told = [x for x in lines if since is None or x["at"] >= since]
        taken += [x["line"] for x in told[:cut] if cursor.take(cast(LogLine, x))]
        query = cursor.resume()
    assert taken == [x["line"] for x in lines]


RAW = "GET /v1/jobs/j1/logs/0/raw"


def disk(data: bytes, piece: int = 1 << 20) -> Any:
    def serve(request: Request) -> Reply:
        offset = int(request.one("offset") or 0)
        part = data[offset : offset + min(piece, int(request.one("limit") or piece))]
        return Reply(part, headers={"X-Size": str(len(data))})

    return serve


def test_raw_is_what_lies_on_disk(
    logs: FakeController, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = b"\x1b[31m\xff\x00no newline" * 1000
    logs.on(RAW, disk(data, 2**62))
    assert main(["logs", "j1", "--raw", "--rank", "0"]) == 0
    assert capfdbinary.readouterr().out == data


def test_raw_of_several_ranks_asks_for_one(qd: Any, logs: FakeController) -> None:
    result = qd("logs", "j1", "--raw")
    assert result.code == 2
    assert "--rank" in result.err


def cut_after(data: bytes) -> Any:
    """A log that grows to `data`, and a controller that is killed then."""

    def serve(request: Request) -> Reply:
        return Reply(lines=[data[int(request.one("offset") or 0) :]], cut=True)

    return serve


def test_raw_followed_through_a_restart(
    logs: FakeController, clock: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    first, rest = disk(b"a"), disk(b"abcdef")
    logs.on(RAW, first, cut_after(b"ab"), CUT, cut_after(b"abcd"), rest, rest)
    assert main(["logs", "j1", "--raw", "--rank", "0", "-f"]) == 0
    assert capfdbinary.readouterr().out == b"abcdef"
    asked = [(request.one("offset"), request.one("follow")) for request in logs.asked(RAW)]
    assert asked == [("0", None), ("1", "1"), ("2", None), ("2", None), ("4", None), ("6", "1")]


def test_raw_that_is_cut_short_is_not_taken_for_whole(qd: Any, logs: FakeController) -> None:
    logs.on(RAW, cut_after(b"ab"))
    assert qd("logs", "j1", "--raw", "--rank", "0").code == 5


def test_one_rank_is_followed_into_its_next_attempt(
    logs: FakeController, clock: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    logs.on("GET /v1/jobs/j1", {**detail(), "attempt": 1})
    waits = [{**job(1), "attempt": 1}, {**job(1), "attempt": 2}]
    logs.on("GET /v1/jobs/j1/wait", *waits, {**job(1, "SUCCEEDED"), "attempt": 2})
    one, two = disk(b"one\nhalf"), disk(b"\x1btwo\r\n")
    logs.on(RAW, one, one, two)
    assert main(["logs", "j1", "--rank", "0", "-f"]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out == "one\nhalf\n␛two\n".encode()
    assert captured.err == b"attempt 2 starts\n"
    assert [request.one("attempt") for request in logs.asked(RAW)] == ["1", "1", "2", "2"]


@given(
    st.lists(st.sampled_from(["loss 0.5", "é\t1", "\x1b[2J", "a\r", "", "\u202e", "\x00"])),
    st.lists(st.integers(1, 9)),
)
def test_text_is_the_same_however_it_is_cut(texts: list[str], sizes: list[int]) -> None:
    data = "\n".join(texts).encode()
    wanted = "".join(neutralise(last_state(text)) + "\n" for text in texts)
    written: list[bytes] = []
    safe = SafeText(written.append, clock=lambda: 0.0)
    at = 0
    for size in [*sizes, len(data)]:
        if data[at : at + size]:
            safe.feed(data[at : at + size])
        at += size
    safe.end()
    # An empty last line is none: the log ended with a newline.
    assert b"".join(written).decode() == (wanted if not texts or texts[-1] else wanted[:-1])


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (10, "first\n  0%|\r\x1b[K 40%|###…\r\x1b[K100%|####\nlast\n"),
        (None, "first\n 40%|######\n100%|####\nlast\n"),
    ],
)
def test_a_progress_bar_shows_its_state_while_it_goes_on(columns: int | None, wanted: str) -> None:
    """In place on a terminal; a line now and then in a pipe; in the end its last state."""
    written: list[bytes] = []
    moments = iter((0.0, 1.0, 12.0, 12.0))
    safe = SafeText(written.append, columns, lambda: next(moments))
    safe.feed(b"first\n\r  0%|")
    safe.feed(b"\r 40%|######")
    safe.feed(b"\r100%|######\r100%|####\x1b[K\nlast\n")
    safe.end()
    assert b"".join(written).decode() == wanted


def test_metrics(qd: Any, controller: FakeController) -> None:
    points = [
        {"name": "loss", "step": n, "at": "2026-01-01T10:00:00.000Z", "value": v, "rank": r}
        for n, v, r in ((1, 8.0, 1), (1, 2.5, 0), (2, None, 0), (3, 0.5, 0), (3, 9.0, 1))
    ]
    controller.on("GET /v1/jobs/j1/metrics", lambda _: Reply.stream(points))
    controller.on("GET /v1/jobs/j1", detail())
    rows = qd("metrics", "j1").out.splitlines()
    assert rows[0].split() == ["METRIC", "LAST", "STEP", "MIN", "MAX", "POINTS"]
    assert rows[1].split() == ["loss", "0.5", "3", "0.5", "2.5", "3"], "of the lowest rank"
    assert [json.loads(x) for x in qd("metrics", "j1", "--json").out.splitlines()] == points
    assert "loss nan" in qd("metrics", "j1", "--points", "--name", "loss").out
    assert controller.requests[-1].one("name") == "loss"


def test_infinite_metrics(qd: Any, controller: FakeController) -> None:
    points = [
        {"name": "loss", "step": n, "at": "2026-01-01T10:00:00.000Z", "value": v, "rank": 0}
        for n, v in ((1, "-inf"), (2, 1.5), (3, "inf"))
    ]
    controller.on("GET /v1/jobs/j1/metrics", lambda _: Reply.stream(points))
    controller.on("GET /v1/jobs/j1", detail())
    rows = qd("metrics", "j1").out.splitlines()
    assert rows[1].split() == ["loss", "inf", "3", "-inf", "inf", "3"]
    assert [json.loads(x) for x in qd("metrics", "j1", "--json").out.splitlines()] == points
    assert "loss -inf" in qd("metrics", "j1", "--points").out


def test_no_metrics_teach(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/jobs/j1/metrics", Reply.stream([]))
    controller.on("GET /v1/jobs/j1", detail())
    result = qd("metrics", "j1")
    assert result.out == ""
    assert "quarterdeck.log" in result.err


def test_lines_are_written_as_they_come(
    logs: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe sees a followed line before the next one exists."""
    hold = threading.Event()
    logs.on(LOGS, Reply.stream([line("first")], hold=hold))
    command = [sys.executable, "-m", "console.cli.main", "logs", "j1", "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"[r0] first\n"
        hold.set()
        assert process.wait(10) == 0
