"""Looking for a text through a whole log, compared with looking through its lines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from console.tui.core.base import scan


def reader(log: bytes) -> scan.Read:
    return lambda offset, limit: log[offset : offset + limit]


def lines(log: bytes) -> list[tuple[int, bytes]]:
    out = []
    at = 0
    for one in log.split(b"\n"):
        out.append((at, one))
        at += len(one) + 1
    return out


logs = st.lists(st.text("abN", max_size=6), max_size=12).map(lambda x: "\n".join(x).encode())
needles = st.text("abn", min_size=1, max_size=4).map(str.encode)


@settings(max_examples=300, deadline=None)
@given(logs, needles, st.integers(1, 9), st.data())
def test_it_finds_what_a_look_at_every_line_finds(
    log: bytes, needle: bytes, chunk: int, data: st.DataObject
) -> None:
    starts = [at for at, _ in lines(log)]
    begin = data.draw(st.sampled_from(starts))
    end = data.draw(st.sampled_from([at for at in starts if at >= begin] + [len(log)]))
    hits = [at for at, one in lines(log) if begin <= at < end and needle in one.lower()]
    assert scan.forwards(reader(log), needle, begin, end, chunk) == (hits[0] if hits else None)
    assert scan.backwards(reader(log), needle, begin, end, chunk) == (hits[-1] if hits else None)


def test_a_line_far_longer_than_a_chunk_is_found_at_its_beginning() -> None:
    log = b"first\n" + b"x" * 10_000 + b"needle" + b"y" * 10_000 + b"\nlast\n"
    assert scan.forwards(reader(log), b"NEEDLE", 0, len(log), 64) == 6
    assert scan.backwards(reader(log), b"NEEDLE", 0, len(log), 64) == 6
