"""Log rings: bounded, never doubled, never lying about where they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from console.tui.core.jobs.logs import LONGEST_LINE, MergedLog, Quiet, RankLog, readable, search
from jobs.wire.views import LogLine


def lines(log: RankLog | MergedLog) -> list[str]:
    return [log.text(index) for index in range(log.first, log.end)]


def merged(rank: int, offset: int, text: str) -> LogLine:
    at = "2026-01-01T00:00:00Z"
    return {"attempt": 1, "rank": rank, "offset": offset, "at": at, "line": text}


def test_a_line_cannot_act_on_the_terminal() -> None:
    hostile = b"\x1b]0;title\x07 \x1b[2J \x9b1m \xe2\x80\xaetxt \x1b[31mred\x1b[0m"
    shown = readable(hostile)
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "\u202e" not in shown
    assert shown.endswith("red")


def test_tabs_carriage_returns_bad_bytes_and_long_lines() -> None:
    assert readable(b"a\tb") == "a       b"
    assert readable("长\tb".encode()) == "长      b"
    assert readable(b" 10%\r 50%\r100%\r") == "100%"
    assert readable(b"\xff\xfe") == "\\xff\\xfe"
    assert readable(b"x" * (LONGEST_LINE + 7)).endswith("x [7 more bytes]")


@given(
    st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=30), st.data()
)
def test_however_it_arrives_a_log_is_the_same(content: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join(content)
    log = RankLog()
    at = 0
    while at < len(whole):
        step = data.draw(st.integers(1, 40))
        log.extend(at, whole[at : at + step], len(whole))
        at = min(len(whole), at + step)
    expected = content[:-1] + ([content[-1]] if content and content[-1] else [])
    assert lines(log) == [readable(one) for one in expected]


def test_bytes_that_do_not_connect_are_ignored() -> None:
    log = RankLog()
    log.extend(0, b"one\n", 8)
    log.extend(0, b"one\n", 8)
    log.extend(6, b"o\n", 8)
    assert lines(log) == ["one"]
    assert log.tail == 4


def test_a_tail_starts_at_a_whole_line_and_grows_backwards() -> None:
    whole = b"".join(b"line %d\n" % i for i in range(100))
    log = RankLog()
    log.begin(600)
    log.extend(600, whole[600:], len(whole))
    first = log.text(log.first)
    assert first == "line 77"
    start = log.start
    assert log.prepend(0, whole[:start]) == 77
    assert lines(log) == [f"line {i}" for i in range(100)]
    assert log.first == -77
    assert log.prepend(5, b"nonsense") == 0


def test_earlier_lines_drop_a_halved_first_one() -> None:
    whole = b"aaaa\nbbbb\ncccc\n"
    log = RankLog()
    log.begin(10)
    log.extend(10, whole[10:], 15)  # the first line is taken for a halved one
    assert lines(log) == []
    assert log.start == 15
    assert log.prepend(2, whole[2:15]) == 2
    assert lines(log) == ["bbbb", "cccc"]


def test_memory_is_bounded_and_numbers_stay_true() -> None:
    log = RankLog(budget=1000)
    at = 0
    for i in range(2000):
        data = b"line %06d\n" % i
        log.extend(at, data, at + len(data))
        at += len(data)
        assert log.held <= 1250 + 12
    assert log.text(log.end - 1) == "line 001999"
    assert log.text(log.first) == f"line {log.first:06d}"
    assert log.start == log.first * 12


def test_merged_lines_are_never_doubled_after_a_cut() -> None:
    log = MergedLog()
    told = [merged(r, i * 4, f"{r}:{i}") for i in range(3) for r in (0, 1)]
    assert log.extend(told) == 6
    assert log.extend([*told, merged(1, 12, "1:3")]) == 1
    assert lines(log) == ["0:0", "1:0", "0:1", "1:1", "0:2", "1:2", "1:3"]
    assert log.rank(log.end - 1) == 1


def test_a_gap_in_merged_lines_is_told() -> None:
    log = MergedLog()
    log.extend([merged(0, 0, "one"), merged(0, 104, "two")])
    assert lines(log) == ["one", "[100 bytes of r0 are not here; its own log has them]", "two"]


def test_merged_memory_is_bounded() -> None:
    log = MergedLog(limit=100)
    for i in range(1000):
        log.extend([merged(0, i * 4, f"{i:03d}")])
        assert log.end - log.first <= 125
    assert lines(log)[-1] == "999"
    assert log.text(log.first) == f"{log.first:03d}"


def test_search_goes_round_once_either_way() -> None:
    log = MergedLog()
    log.extend([merged(r, 0, text) for r, text in enumerate(["x", "Needle", "y", "needle"])])
    assert search(log, "needle", 1) == 3
    assert search(log, "needle", 3) == 1
    assert search(log, "needle", 1, backwards=True) == 3
    assert search(log, "absent", 0) is None
    assert search(log, "", 0) is None
    assert search(MergedLog(), "x", 0) is None


def test_quiet_is_dated_only_by_what_was_seen() -> None:
    quiet = Quiet()
    quiet.look([(0, 100), (1, 100)], 10.0)
    assert quiet.since(0, 20.0) is None
    quiet.look([(0, 150), (1, 100)], 20.0)
    assert quiet.since(0, 25.0) == 5.0
    assert quiet.since(1, 25.0) is None
    quiet.wrote(1, 22.0)
    quiet.wrote(1, 21.0)
    assert quiet.since(1, 25.0) == 3.0
