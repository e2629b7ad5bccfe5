"""The inference log on the side of the requests: one non-blocking send, and never a wait.

What is chosen goes, as the bytes that came and went, to a process of its own (`logwriter.py`), which reads
them and writes the file. When that is behind, the socket is full: the record is dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import beside
from .oip import Array

FOLDER = "inference-log"
"""Below the work folder, where the controller finds it."""
VARIABLE = "QUARTERDECK_SERVE_LOG"
LARGEST = 64 << 10
"""Bytes of a request and its answer above which only numbers about each tensor are kept: a message must fit
into the socket, beside others."""
BUFFER = 2 << 20
"""Bytes that may wait for the writer; the kernel gives as much of it as it allows."""
AGAIN = 60.0
"""Seconds between two starts of a writer that has died."""
HEAD = struct.Struct("<dHBIII")
"""Unix time, length of the id, kind, length of the request's body, and of the JSON in front of body and
answer (`WHOLE`: all of it is JSON)."""
WHOLE = 0xFFFFFFFF
RAW, SUMMARY = 0, 1
_ID = frozenset(range(0x21, 0x7F))


@dataclass(frozen=True, slots=True)
class Options:
    """`sample`: share of the requests, 0: no log. `max`: bytes on disk. `redact`: tensors (`x`), or places
    in their last axis (`x[3]`), whose values are never written."""

    sample: float = 0.0
    max: int = 256 << 20
    redact: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Options:
        """What the service's `log:` came to. Raises ValueError."""
        text = environ.get(VARIABLE)
        if not text:
            return cls()
        data = json.loads(text)
        return cls(float(data["sample"]), int(data["max"]), tuple(map(str, data["redact"])))


def request_id(header: bytes | None) -> str | None:
    """The caller's own id, if it is one: up to 128 visible ASCII characters. It is sent back."""
    if header is None or not 0 < len(header) <= 128 or not _ID.issuperset(header):
        return None
    return header.decode("ascii")


class Recorder:
    """Chooses, and sends to the writer.

    Args:
        folder: where the log is written.
        dice: uniform in [0, 1).
    """

    def __init__(
        self,
        options: Options,
        folder: Path,
        version: str,
        *,
        dice: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._options, self._folder, self._version = options, folder, version
        self._dice, self._now = dice, now
        self._made, self._count = secrets.token_hex(6), 0
        self._socket: socket.socket | None = None
        self._writer: subprocess.Popen[bytes] | None = None
        self._started = -AGAIN
        self.sent = self.dropped = 0
        if options.sample > 0:
            self._start()

    def new_id(self) -> str:
        """An id for a request that brought none."""
        self._count += 1
        return f"{self._made}-{self._count:x}"

    def offer(
        self,
        identity: str,
        body: bytes,
        head: int | None,
        answer: bytes,
        answer_head: int | None,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> None:
        """Take a request that was answered into the log, if the dice say so. Never waits.

        Args:
            head: bytes of JSON in front of the body, as in `oip.parse`; the same of the answer.
        """
        if self._options.sample <= self._dice():
            return
        kind = RAW
        if len(body) + len(answer) > LARGEST:
            kind, body, answer = SUMMARY, summary(inputs), summary(outputs)
            head = answer_head = None
        name = identity.encode("utf-8", "replace")[:512]
        sizes = [WHOLE if size is None else size for size in (head, answer_head)]
        message = b"".join(
            [HEAD.pack(self._now(), len(name), kind, len(body), *sizes), name, body, answer]
        )
        try:
            if self._socket is None:
                raise ConnectionError
            self._socket.send(message)
            self.sent += 1
        except BlockingIOError:
            self.dropped += 1
        except OSError:  # the writer is gone, or the message is larger than the kernel takes
            self.dropped += 1
            self._start_again()

    def _start(self) -> None:
        self._started = time.monotonic()
        options = self._options
        task = {
            "folder": str(self._folder),
            "version": self._version,
            "max": options.max,
            "redact": list(options.redact),
        }
        try:
            self._writer, self._socket = beside.start("logwriter.py", task, BUFFER)
        except OSError as error:
            print(f"there is no inference log: {error}", flush=True)  # noqa: T201 - the replica's log

    def _start_again(self) -> None:
        writer = self._writer
        if writer is not None and writer.poll() is None:
            return
        if time.monotonic() - self._started >= AGAIN:
            self._drop_socket()
            self._start()

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self, patience: float = 5.0) -> None:
        """Let the writer finish what it was sent; at most so many seconds."""
        self._drop_socket()
        if self._writer is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._writer.wait(patience)
            if self._writer.returncode is None:
                self._writer.kill()
                self._writer.wait()

    def text(self, labels: str) -> str:
        """Its counters, in Prometheus' format."""
        lines = [
            "# HELP qd_log_records_total Records of the inference log, by what became of them.",
            "# TYPE qd_log_records_total counter",
            f'qd_log_records_total{{{labels},outcome="sent"}} {self.sent}',
            f'qd_log_records_total{{{labels},outcome="dropped"}} {self.dropped}',
        ]
        return "\n".join(lines) + "\n"


def summary(tensors: Mapping[str, Array]) -> bytes:
    """Of each tensor its shape, and mean, standard deviation, minimum and maximum where it has numbers."""
    found: dict[str, object] = {}
    for name, array in tensors.items():
        item: dict[str, object] = {"s": list(array.shape)}
        if array.dtype.kind in "biuf" and array.size:
            values = array.astype("f8", copy=False)
            item["m"] = [
                float(value) for value in (values.mean(), values.std(), values.min(), values.max())
            ]
        found[name] = item
    return json.dumps(found).encode()


def options_of_process(sample: float | None, most: int | None, redact: list[str]) -> Options:
    """The service's, with what the command line says over them."""
    given = Options.from_environment(os.environ)
    return Options(
        given.sample if sample is None else sample,
        given.max if most is None else most,
        (*given.redact, *redact),
    )
