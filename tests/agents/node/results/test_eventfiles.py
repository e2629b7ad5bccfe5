"""Event files as the real writer leaves them, and as nobody should."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from agents.node.results.eventfiles import NotEvents, _masked_crc, scalars


def _written(folder: Path) -> bytes:
    (path,) = folder.glob("*tfevents*")
    return path.read_bytes()


def test_scalars_of_the_real_writer(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(50):
            writer.add_scalar("loss", 1 / (step + 1), step, walltime=1000.0 + step)
        writer.add_scalar("bad", float("nan"), 3)
        writer.add_scalar("up", float("inf"), 2**40)
        writer.add_scalar("new/style", 2.5, 1, new_style=True)
        writer.add_scalar("double", 0.1, 1, new_style=True, double_precision=True)
        writer.add_histogram("h", np.arange(10.0), 1)
        writer.add_image("i", np.zeros((3, 4, 4), dtype=np.uint8), 1)
        writer.add_text("t", "words", 1)
    data = _written(tmp_path)
    found, length, skip = scalars(data)
    assert (length, skip) == (len(data), 0)
    losses = [(s.step, s.at, s.value) for s in found if s.tag == "loss"]
    assert [(step, at) for step, at, _ in losses] == [(n, 1000.0 + n) for n in range(50)]
    assert all(math.isclose(value, 1 / (step + 1), rel_tol=1e-6) for step, _, value in losses)
    rest = {s.tag: (s.step, s.value) for s in found if s.tag != "loss"}
    assert set(rest) == {"bad", "up", "new/style", "double"}
    assert math.isnan(rest["bad"][1])
    assert (rest["up"], rest["new/style"], rest["double"]) == (
        (2**40, math.inf),
        (1, 2.5),
        (1, 0.1),
    )


def _frame(message: bytes) -> bytes:
    head = struct.pack("<Q", len(message))
    return head + struct.pack("<I", _masked_crc(head)) + message + b"crc!"


def test_keras_writes_tensors(tmp_path: Path) -> None:
    value = Summary.Value(tag="epoch_loss", tensor=make_tensor_proto(0.75, dtype="float32"))
    value.metadata.plugin_data.plugin_name = "scalars"
    many = Summary.Value(tag="many", tensor=make_tensor_proto([1.0, 2.0], dtype="float32"))
    event = Event(wall_time=5.0, step=7, summary=Summary(value=[value, many]))
    found, _, _ = scalars(_frame(event.SerializeToString()))
    assert [(s.tag, s.step, s.at, s.value) for s in found] == [("epoch_loss", 7, 5.0, 0.75)]


def test_a_file_that_grows_is_read_by_whole_frames(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(20):
            writer.add_scalar("loss", step, step)
    data = _written(tmp_path)
    steps: list[int] = []
    offset = 0
    for end in range(0, len(data) + 1, 7):
        found, length, _ = scalars(data[offset:end])
        steps += [s.step for s in found]
        offset += length
    found, _, _ = scalars(data[offset:])
    assert steps + [s.step for s in found] == list(range(20))


def test_what_is_no_event_file_is_refused() -> None:
    with pytest.raises(NotEvents):
        scalars(b"epoch,loss\n1,2.0\n3,4.0\n")
    assert scalars(b"") == ([], 0, 0)


def test_a_message_that_is_too_large_is_passed_over() -> None:
    head = struct.pack("<Q", 1 << 30)
    found, length, skip = scalars(head + struct.pack("<I", _masked_crc(head)) + b"x" * 100)
    assert (found, length, skip) == ([], 0, 12 + (1 << 30) + 4)


def test_damage_never_raises_and_never_loops() -> None:
    good = Event(
        wall_time=5.0, step=7, summary=Summary(value=[Summary.Value(tag="a", simple_value=1.0)])
    ).SerializeToString()
    chance = random.Random(7)
    for _ in range(3000):
        message = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            message[chance.randrange(len(message))] = chance.randrange(256)
        found, length, _ = scalars(_frame(bytes(message)))
        assert length == len(message) + 16
        assert len(found) <= 3
