"""Scalars from the event files that TensorBoard's writers leave, read as they grow. Nothing in a file is run.

A file is a row of frames (length, checksum of the length, data, checksum) around protobuf messages, of which
a handful of fields matter: tensorboard/compat/proto/{event,summary,tensor}.proto. The checksum of the length
is looked at, since a wrong length would lose the thread; a message that is damaged yields nothing.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_MESSAGE = 16 << 20
"""Bytes of a message that is looked at: images and graphs are larger, scalars some dozen bytes."""
_HEADER = struct.Struct("<QI")
_TRAILER = 4
_FLOAT, _DOUBLE = 1, 2  # tensorflow.DataType


class NotEvents(ValueError):
    """The file is no event file, or is damaged here."""


@dataclass(frozen=True, slots=True)
class Scalar:
    tag: str
    step: int
    at: float  # unix time
    value: float


def scalars(data: bytes) -> tuple[list[Scalar], int, int]:
    """The scalars in the whole frames of `data`.

    Returns:
        They, the bytes of these frames, and how many bytes past those the next one ends if it is too large
        to be looked at (else 0).

    Raises NotEvents with nothing read when `data` does not begin with a frame.
    """
    found: list[Scalar] = []
    at = 0
    while at + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, at)
        if _masked_crc(data[at : at + 8]) != checksum:
            if at == 0:
                raise NotEvents("no frame begins here")
            break
        end = at + _HEADER.size + length + _TRAILER
        if length > MAX_MESSAGE:
            return found, at, end - at
        if end > len(data):
            break
        # What is damaged, or not as anybody writes it, yields nothing.
        with contextlib.suppress(ValueError, IndexError, struct.error):
            found += _event(data[at + _HEADER.size : end - _TRAILER])
        at = end
    return found, at, 0


def _event(message: bytes) -> list[Scalar]:
    at, step = 0.0, 0
    found: list[tuple[str, float]] = []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            (at,) = struct.unpack("<d", value)
        elif number == 2 and isinstance(value, int):
            step = value - (1 << 64) if value >> 63 else value
        elif number == 5 and isinstance(value, bytes):
            for inner, summary in _fields(value):
                if inner == 1 and isinstance(summary, bytes) and (one := _value(summary)):
                    found.append(one)
    if not math.isfinite(at):
        return []
    return [Scalar(tag, step, at, value) for tag, value in found]


def _value(message: bytes) -> tuple[str, float] | None:
    tag, number, plugin = "", None, ""
    for field, value in _fields(message):
        if not isinstance(value, bytes):
            continue
        if field == 1:
            tag = value.decode("utf-8", "replace")
        elif field == 2:
            (number,) = struct.unpack("<f", value)
        elif field == 8:
            number = _tensor(value)
        elif field == 9:
            plugin = _plugin(value)
    if not tag or number is None or plugin not in ("", "scalars"):
        return None
    return tag, number


def _tensor(message: bytes) -> float | None:
    """The number in a tensor of one float or double; None for any other."""
    kind, content = 0, b""
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field in (4, 5, 6) and isinstance(value, bytes):
            content = value
    form = {_FLOAT: "<f", _DOUBLE: "<d"}.get(kind)
    if form is None or len(content) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, content)[0])


def _plugin(message: bytes) -> str:
    for field, value in _fields(message):
        if field == 1 and isinstance(value, bytes):
            for inner, name in _fields(value):
                if inner == 1 and isinstance(name, bytes):
                    return name.decode("utf-8", "replace")
    return ""


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an integer for a varint, bytes for all else. Raises ValueError,
    IndexError for what is no message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            number, at = _varint(message, at)
            yield key >> 3, number
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(message):
            raise ValueError("a field longer than its message")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (2**64 - 1), at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _crc_table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_TABLE = _crc_table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and offset as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
