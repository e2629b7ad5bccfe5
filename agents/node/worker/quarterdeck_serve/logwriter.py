"""The inference log's writer: a process of its own, standard library only, told its task as JSON.

It reads what `inferlog.Recorder` sends until that closes its end, and writes JSON lines:

    {"id": "a1-7", "at": 1764417600.125, "v": "3", "i": {"x": {"s": [1, 2], "d": [1, 2.5]}}, "o": {...}}

`s` is a tensor's shape, `d` its values, flat, null where there is none or it is redacted; `m` in the place
of `d`: mean, standard deviation, minimum and maximum of one that is too large. Segments are named by the
time of their first line, and the oldest go when all of them together are larger than allowed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from array import array
from pathlib import Path
from typing import Any

HEAD = struct.Struct("<dHBIII")
WHOLE = 0xFFFFFFFF
SUMMARY = 1
LONGEST = 1 << 20
"""Bytes that a message may have; what is sent is far smaller."""
FLUSH_SIZE, FLUSH_AFTER = 64 << 10, 0.5
"""Bytes, and seconds, that lines may wait before they are written."""
_CODES = {
    "BOOL": "B", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP32": "f", "FP64": "d",
}  # fmt: skip
_SHORT = ("FP16", "FP32")


class Segments:
    """Files of lines in a folder, within a bound of bytes; `lost` are lines that the disk refused."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._each = max(16 << 10, min(16 << 20, most // 16))
        self._file: Any = None
        self._size = 0
        self.lost = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, lines: list[str], at: float) -> None:
        """Append whole lines; `at` is the time of the first, unix time."""
        data = "".join(lines).encode()
        try:
            if self._file is None or self._size + len(data) > self._each:
                self._next(at)
            self._file.write(data)
            self._size += len(data)
        except OSError as error:
            if not self.lost:
                print(f"the inference log is not written: {error}", flush=True)  # noqa: T201
            self.lost += len(lines)
            self.close()  # a line may have been cut: the next segment begins whole

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next(self, at: float) -> None:
        self.close()
        name = f"{int(at * 1000):015d}-{os.getpid()}.jsonl"
        self._file = (self._folder / name).open("ab", buffering=0)
        self._size = self._file.tell()
        found = sorted(self._folder.glob("*.jsonl"))
        sizes = {path: path.stat().st_size for path in found}
        for path in found[:-1]:
            if sum(sizes.values()) + self._each <= self._most:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            del sizes[path]


def line(message: bytes, version: str, redact: set[str]) -> str | None:
    """A message as a line; None for one that cannot be read."""
    try:
        at, named, kind, size, head, answer_head = HEAD.unpack_from(message)
        place = HEAD.size + named
        name = message[HEAD.size : place].decode()
        body, answer = message[place : place + size], message[place + size :]
        if kind == SUMMARY:
            inputs, outputs = json.loads(body), json.loads(answer)
            for tensors in (inputs, outputs):
                for tensor in redact & tensors.keys():
                    tensors[tensor].pop("m", None)
        else:
            inputs = tensors_of(body, head, "inputs", redact)
            outputs = tensors_of(answer, answer_head, "outputs", redact)
    except (ValueError, KeyError, TypeError, IndexError, struct.error):
        return None
    told = {"id": name, "at": round(at, 3), "v": version, "i": inputs, "o": outputs}
    return json.dumps(told, separators=(",", ":")) + "\n"


def tensors_of(body: bytes, head: int, key: str, redact: set[str]) -> dict[str, Any]:
    whole = head == WHOLE
    document = json.loads(body if whole else body[:head])
    at, found = 0 if whole else head, {}
    for item in document[key]:
        name, shape = item["name"], item["shape"]
        size = (item.get("parameters") or {}).get("binary_data_size")
        if size is None:
            values = _flat(item["data"])
        else:
            values = _decoded(body[at : at + size], item["datatype"])
            at += size
        if item["datatype"] in _SHORT:
            values = [_short(value) for value in values]
        elif item["datatype"] == "BOOL":
            values = [bool(value) for value in values]
        elif item["datatype"] == "FP64":
            values = [value if value - value == 0 else None for value in values]
        found[name] = {"s": shape, "d": _redacted(values, shape, name, redact)}
    return found


def _short(value: float) -> float | None:
    """A single-precision number as short as it is; null for what JSON has no word for."""
    return float(f"{value:.7g}") if value - value == 0 else None


def _redacted(values: list[Any], shape: list[int], name: str, redact: set[str]) -> list[Any] | None:
    if name in redact:
        return None
    width = shape[-1] if len(shape) > 1 else 1
    hidden = {place for place in range(width) if redact and f"{name}[{place}]" in redact}
    if not hidden:
        return values
    return [None if at % width in hidden else value for at, value in enumerate(values)]


def _flat(data: list[Any]) -> list[Any]:
    while data and isinstance(data[0], list):
        data = [value for item in data for value in item]
    return data


def _decoded(data: bytes, datatype: str) -> list[Any]:
    if datatype == "BYTES":
        texts, at = [], 0
        while at < len(data):
            (size,) = struct.unpack_from("<I", data, at)
            texts.append(data[at + 4 : at + 4 + size].decode(errors="replace"))
            at += 4 + size
        return texts
    if datatype == "FP16":
        return list(struct.unpack(f"<{len(data) // 2}e", data))
    values = array(_CODES[datatype])
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def main() -> int:
    asked = json.loads(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it ends when the server has nothing more to say
    with contextlib.suppress(OSError):
        os.nice(10)
    incoming = socket.socket(fileno=asked["descriptor"])
    segments = Segments(Path(asked["folder"]), asked["max"])
    redact = set(asked["redact"])
    lines: list[str] = []
    size, first, since = 0, 0.0, 0.0
    while True:
        wait = FLUSH_AFTER if not lines else max(0.0, since + FLUSH_AFTER - time.monotonic())
        ready, _, _ = select.select([incoming], [], [], wait)
        if ready:
            message = incoming.recv(LONGEST)
            told = line(message, asked["version"], redact) if message else None
            if told is not None:
                if not lines:
                    since, first = time.monotonic(), HEAD.unpack_from(message)[0]
                lines.append(told)
                size += len(told)
            if not message:
                if lines:
                    segments.write(lines, first)
                segments.close()
                return 0
        if lines and (size >= FLUSH_SIZE or time.monotonic() >= since + FLUSH_AFTER):
            segments.write(lines, first)
            lines, size = [], 0


if __name__ == "__main__":
    sys.exit(main())
