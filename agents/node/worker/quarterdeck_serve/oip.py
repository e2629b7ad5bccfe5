"""The Open Inference Protocol v2: requests to tensors, tensors to replies, JSON and binary.

A request may carry a tensor's data in its JSON or, raw, after it: the header
`Inference-Header-Content-Length` then says how long the JSON is, and each input how many bytes are its.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
HEADER = b"inference-header-content-length"
MAX_DIMENSIONS = 32


class BadRequest(Exception):
    """What is wrong with a request, in words for whoever sent it."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A model's input or output. In `shape` -1 is free. `missing`: it may have NaN, null in JSON, or empty
    text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    missing: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was asked: `outputs` by name, True where the caller wants it binary."""

    id: str | None
    inputs: dict[str, Array]
    outputs: dict[str, bool]


def parse(
    body: bytes,
    json_length: int | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    allow_nan: bool = False,
) -> Request:
    """Read a request and check it against a model's signature.

    Args:
        json_length: bytes of JSON at the front of the body; None when it is all of it.

    Raises:
        BadRequest: naming what was found and what was wanted.
    """
    if json_length is not None and not 0 <= json_length <= len(body):
        raise BadRequest(f"the JSON is said to take {json_length} bytes of {len(body)}")
    head = body if json_length is None else body[:json_length]
    rest = memoryview(b"" if json_length is None else body[json_length:])
    document = _document(head)
    tensors, used = _tensors(document, rest, {spec.name: spec for spec in inputs}, allow_nan)
    if used != len(rest):
        raise BadRequest(f"{len(rest) - used} bytes are left over after the last binary tensor")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise BadRequest("id: text is wanted")
    return Request(identity, tensors, _wanted(document, [spec.name for spec in outputs]))


def _document(head: bytes) -> dict[str, Any]:
    def refuse(name: str) -> Any:
        raise BadRequest(f"{name} is not JSON")

    try:
        document = json.loads(head, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise BadRequest("the request has no list 'inputs'")
    return document


def _tensors(
    document: dict[str, Any], rest: memoryview, specs: Mapping[str, TensorSpec], allow_nan: bool
) -> tuple[dict[str, Array], int]:
    found: dict[str, Array] = {}
    used = 0
    for item in document["inputs"]:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise BadRequest("an input has no name")
        name = item["name"]
        spec = specs.get(name)
        if spec is None:
            raise BadRequest(f"there is no input '{name[:80]}'; wanted: {', '.join(specs)}")
        if name in found:
            raise BadRequest(f"input '{name}' comes twice")
        shape = _shape(item, spec)
        size = (item.get("parameters") or {}).get("binary_data_size")
        if size is None:
            found[name] = _from_json(item, spec, shape)
        else:
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise BadRequest(f"input '{name}': binary_data_size is no number of bytes")
            if used + size > len(rest):
                raise BadRequest(f"input '{name}': {size} bytes of data are missing after the JSON")
            found[name] = _from_bytes(rest[used : used + size], spec, shape)
            used += size
        if not allow_nan and found[name].dtype.kind == "f":
            bad = np.isinf(found[name]) if spec.missing else ~np.isfinite(found[name])
            if bad.any():
                raise BadRequest(f"input '{name}' has values that are not finite")
    missing = [name for name in specs if name not in found]
    if missing:
        raise BadRequest(f"input '{missing[0]}' is missing")
    return found, used


def _shape(item: dict[str, Any], spec: TensorSpec) -> tuple[int, ...]:
    if item.get("datatype") != spec.datatype:
        raise BadRequest(
            f"input '{spec.name}': datatype {str(item.get('datatype'))[:40]} was sent, "
            f"{spec.datatype} is wanted"
        )
    shape = item.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    ):
        raise BadRequest(f"input '{spec.name}': shape is a list of whole numbers")
    fits = len(shape) == len(spec.shape) and all(
        want in (-1, have) for have, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise BadRequest(
            f"input '{spec.name}': shape {shape} was sent, {list(spec.shape)} is wanted"
        )
    return tuple(shape)


def _from_json(item: dict[str, Any], spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    if spec.datatype == "FP16":
        raise BadRequest(f"input '{spec.name}': FP16 is sent as binary data only")
    data = item.get("data")
    if not isinstance(data, list):
        raise BadRequest(f"input '{spec.name}' has no data")
    if spec.missing and None in data:
        nothing = "" if spec.datatype == "BYTES" else float("nan")
        data = [nothing if value is None else value for value in data]
    try:
        if spec.datatype == "BYTES":
            array = np.array(_flat(data), dtype=np.object_)
            if not all(isinstance(text, str) for text in array):
                raise BadRequest(f"input '{spec.name}': BYTES are text in JSON")
        else:
            array = _numbers(data, spec)
        return array.reshape(shape)
    except (ValueError, TypeError, OverflowError):
        count = 1
        for n in shape:
            count *= n
        raise BadRequest(
            f"input '{spec.name}': {count} values of {spec.datatype} are wanted"
        ) from None


def _numbers(data: list[Any], spec: TensorSpec) -> Array:
    raw = np.array(data)
    wanted = np.dtype(DTYPES[spec.datatype])
    # `1.5` for an integer, `true` for a number, text for anything: said, not guessed.
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[wanted.kind]
    if raw.size and raw.dtype.kind not in allowed:
        raise BadRequest(f"input '{spec.name}': the data are not all {spec.datatype}")
    if wanted.kind in "iu" and raw.size:
        limits = np.iinfo(wanted)
        if raw.min() < limits.min or raw.max() > limits.max:
            raise BadRequest(f"input '{spec.name}': a value does not fit into {spec.datatype}")
    return raw.astype(wanted)


def _flat(data: list[Any]) -> list[Any]:
    while data and all(isinstance(item, list) for item in data):
        data = [value for item in data for value in item]
    return data


def _from_bytes(data: memoryview, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    if spec.datatype == "BYTES":
        texts: list[bytes] = []
        at = 0
        while at < len(data):
            if at + 4 > len(data):
                raise BadRequest(f"input '{spec.name}': the BYTES end in the middle of a length")
            (size,) = struct.unpack_from("<I", data, at)
            at += 4
            if at + size > len(data):
                raise BadRequest(f"input '{spec.name}': the BYTES end in the middle of a text")
            texts.append(bytes(data[at : at + size]))
            at += size
        array = np.array([text.decode(errors="replace") for text in texts], dtype=np.object_)
    else:
        kind = np.dtype(DTYPES[spec.datatype]).newbyteorder("<")
        if len(data) % kind.itemsize:
            raise BadRequest(f"input '{spec.name}': {len(data)} bytes are no whole {spec.datatype}")
        array = np.frombuffer(data, dtype=kind)
    try:
        return array.reshape(shape)
    except ValueError:
        raise BadRequest(
            f"input '{spec.name}': {array.size} values were sent for shape {list(shape)}"
        ) from None


def _wanted(document: dict[str, Any], names: Sequence[str]) -> dict[str, bool]:
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest("parameters: an object is wanted")
    binary = parameters.get("binary_data_output") is True
    asked = document.get("outputs")
    if not asked:
        return dict.fromkeys(names, binary)
    if not isinstance(asked, list):
        raise BadRequest("outputs: a list is wanted")
    wanted: dict[str, bool] = {}
    for item in asked:
        name = item.get("name") if isinstance(item, dict) else None
        if name not in names:
            raise BadRequest(
                f"there is no output '{str(name)[:80]}'; there are: {', '.join(names)}"
            )
        own = (item.get("parameters") or {}).get("binary_data", binary)
        wanted[str(name)] = own is True
    return wanted


def reply(
    model: str, version: str, request: Request, outputs: Mapping[str, Array]
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of an answer."""
    told: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, array in outputs.items():
        datatype = datatype_of(array)
        item: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if request.outputs[name] or datatype == "FP16":
            data = _to_bytes(array)
            raw.append(data)
            item["parameters"] = {"binary_data_size": len(data)}
        elif datatype == "BYTES":
            item["data"] = [str(text) for text in array.ravel()]
        else:
            item["data"] = array.ravel().tolist()
        told.append(item)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": told}
    if request.id is not None:
        document["id"] = request.id
    head = json.dumps(document, separators=(",", ":")).encode()
    if not raw:
        return [(b"content-type", b"application/json")], head
    headers = [
        (b"content-type", b"application/octet-stream"),
        (HEADER, str(len(head)).encode()),
    ]
    return headers, b"".join([head, *raw])


def datatype_of(array: Array) -> str:
    if array.dtype.kind in "OUS":
        return "BYTES"
    return next(name for name, kind in DTYPES.items() if np.dtype(kind) == array.dtype)


def _to_bytes(array: Array) -> bytes:
    if array.dtype.kind not in "OUS":
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    parts = []
    for text in array.ravel():
        data = text if isinstance(text, bytes) else str(text).encode()
        parts += [struct.pack("<I", len(data)), data]
    return b"".join(parts)
