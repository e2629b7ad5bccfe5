"""Frames, batches and credit of a tunnel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.wire import tunnel
from jobs.wire.tunnel import Batches, Frames, Stream


@given(
    st.lists(st.tuples(st.sampled_from([b"d", b"e"]), st.integers(0, 9), st.binary(max_size=50))),
    st.integers(1, 30),
)
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[bytes, int, bytes]], size: int
) -> None:
    sent = b"".join(tunnel.frame(*one) for one in frames)
    parser = Frames()
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    assert [found for piece in pieces for found in parser.feed(piece)] == frames


def test_a_batch_that_comes_again_counts_once() -> None:
    batches = Batches()
    first, second = tunnel.batch(1, b"one"), tunnel.batch(2, b"two")
    assert list(batches.feed(first + first[:5])) == [b"one"]
    assert list(batches.feed(first[5:] + second + first + second)) == [b"two"]


def test_a_frame_without_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        list(Frames().feed(tunnel.FRAME.pack(b"d", 1, 1 << 30)))


def test_no_more_is_read_than_the_other_end_takes() -> None:
    near, far = Stream(1), Stream(1)
    sent = 0
    while near.room:
        ((kind, _, data),) = Frames().feed(near.read(bytes(near.room)))
        far.take(kind, data)
        sent += len(data)
    assert sent == tunnel.CREDIT == len(far.pending)
    with pytest.raises(ValueError, match="credit"):
        far.take(tunnel.DATA, b"x")
    ((kind, _, more),) = Frames().feed(far.written(tunnel.CREDIT // 2))
    near.take(kind, more)
    assert near.room == tunnel.PIECE


def test_each_direction_ends_by_itself() -> None:
    near = Stream(1)
    assert near.read(b"") == tunnel.frame(tunnel.END, 1)
    assert (near.room, near.over) == (0, False)
    near.take(tunnel.DATA, b"late")
    near.take(tunnel.END, b"")
    assert not near.over
    near.written(4)
    assert near.over
    with pytest.raises(ValueError, match="does not fit"):
        near.take(tunnel.DATA, b"after the end")
