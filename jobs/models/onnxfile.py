"""Inputs and outputs of an ONNX file, read without the library that made it.

An ONNX file is a protocol buffer; only the few fields that name inputs and outputs are read, and weights
are stepped over, so a file of gigabytes costs some kilobytes. Field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Read = Callable[[int, int], bytes]
"""`read(offset, size)`: that many bytes of the file, fewer at its end."""

_GRAPH = 7  # of ModelProto
_INITIALIZER, _INPUT, _OUTPUT = 5, 11, 12  # of GraphProto
_NAME, _TYPE = 1, 2  # of ValueInfoProto
_TENSOR_NAME = 8  # of TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VALUE = 1 << 20
"""Bytes that one description of an input may have."""
_MAX_FIELDS = 1_000_000
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip


class NotOnnx(ValueError):
    """The bytes are no ONNX file, or one that was cut."""


def signature(read: Read, size: int) -> dict[str, list[dict[str, Any]]]:
    """`{"inputs": [{"name", "dtype", "shape"}], "outputs": [...]}` of a file of `size` bytes.

    A dimension is a number, a name, or None when it is open. Raises NotOnnx.
    """
    inputs: list[dict[str, Any]] = []
    outputs: list[dict[str, Any]] = []
    weights: set[str] = set()
    graphs = 0
    for number, start, end in _fields(read, 0, size):
        if number != _GRAPH:
            continue
        graphs += 1
        for inner, at, to in _fields(read, start, end):
            if inner == _INITIALIZER:
                weights.add(_text(read, at, to, _TENSOR_NAME))
            elif inner in (_INPUT, _OUTPUT):
                (inputs if inner == _INPUT else outputs).append(_value(read, at, to))
    if graphs != 1 or not outputs:
        raise NotOnnx("it has no graph with outputs")
    # Before IR version 4 weights were listed among the inputs.
    return {"inputs": [i for i in inputs if i["name"] not in weights], "outputs": outputs}


def _fields(read: Read, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, first byte, byte behind the last) of the fields with a length, in order."""
    at = start
    for _ in range(_MAX_FIELDS):
        if at == end:
            return
        tag, at = _varint(read, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(read, at, end)
        elif kind == _BYTES:
            length, at = _varint(read, at, end)
            if at + length > end:
                raise NotOnnx("it ends in the middle of a field")
            yield number, at, at + length
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise NotOnnx(f"it has a field of the unknown kind {kind}")
        if at > end:
            raise NotOnnx("it ends in the middle of a field")
    raise NotOnnx("it has too many fields")


def _varint(read: Read, at: int, end: int) -> tuple[int, int]:
    """A number, and the offset behind it."""
    value = shift = 0
    for byte in read(at, min(10, end - at)):
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
    raise NotOnnx("it ends in the middle of a number")


def _value(read: Read, start: int, end: int) -> dict[str, Any]:
    """Name, dtype and shape of one input or output."""
    if end - start > _MAX_VALUE:
        raise NotOnnx("the description of an input is too long")
    dtype, shape = "", []
    for number, at, to in _fields(read, start, end):
        if number != _TYPE:
            continue
        for kind, first, last in _fields(read, at, to):
            if kind == 1:  # tensor_type
                dtype = _DTYPES.get(_number(read, first, last, 1) or 0, "unknown")
                shape = _shape(read, first, last)
    return {"name": _text(read, start, end, _NAME), "dtype": dtype or "unknown", "shape": shape}


def _shape(read: Read, start: int, end: int) -> list[int | str | None]:
    dims: list[int | str | None] = []
    for number, at, to in _fields(read, start, end):
        if number != 2:  # shape
            continue
        for inner, first, last in _fields(read, at, to):
            if inner == 1:  # dim
                size = _number(read, first, last, 1)
                dims.append(size if size is not None else _text(read, first, last, 2) or None)
    return dims


def _text(read: Read, start: int, end: int, wanted: int) -> str:
    for number, at, to in _fields(read, start, end):
        if number == wanted:
            return read(at, min(to - at, 4096)).decode("utf-8", "replace")
    return ""


def _number(read: Read, start: int, end: int, wanted: int) -> int | None:
    """The value of a field that is a number; `_fields` gives only those with a length."""
    at = start
    while at < end:
        tag, at = _varint(read, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(read, at, end)
            if number == wanted:
                return value
        elif kind == _BYTES:
            length, at = _varint(read, at, end)
            at += length
        else:
            at += 8 if kind == _FIXED64 else 4
    return None
