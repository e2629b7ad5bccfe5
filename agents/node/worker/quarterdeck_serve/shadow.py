"""The process that asks a shadow: standard library only, told its task as JSON (`mirror.Mirror`).

Each copy comes as a message with a descriptor of memory that holds the request and this version's answer.
It is sent to the other version, both answers are compared, and the sums are written to a file for the
controller. Several threads take from one socket: what they cannot keep up with waits there, and is dropped
by `mirror` when that is full.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

_WORKER = str(Path(__file__).resolve().parent.parent)
if (
    _WORKER not in sys.path
):  # isolated (-I), so that no file of the user's is imported in place of ours
    sys.path.append(_WORKER)

from quarterdeck_serve.logwriter import WHOLE, tensors_of  # noqa: E402

THREADS = 4
"""Copies that are under way at the same time."""
PATIENCE = 10.0
"""Seconds that an answer may take; then it counts as one that failed."""
SHOW_EVERY = 0.3
"""Seconds between two writings of what was counted, and two looks for other addresses."""
CLOSE = 1e-3
"""How far apart, of their size, two numbers may be and still say the same."""
FIRST, GROWTH = 50.0, 1.1
"""Microseconds up to which all are one, and by how much each bucket of the histogram is wider: a front's."""
HEAD = "inference-header-content-length"

Tensors = dict[str, dict[str, Any]]


def bucket(microseconds: float) -> int:
    """The place in the histogram (`quarterdeck_front/counts.py`)."""
    if microseconds <= FIRST:
        return 0
    return math.ceil(math.log(microseconds / FIRST) / math.log(GROWTH))


class Seen:
    """Requests of one version, as `quarterdeck_front.counts` counts them."""

    def __init__(self) -> None:
        self.seen = self.bad = 0
        self.times: Counter[int] = Counter()

    def add(self, microseconds: float, *, bad: bool) -> None:
        self.seen += 1
        self.bad += bad
        self.times[bucket(microseconds)] += 1

    def to_json(self) -> dict[str, Any]:
        times = {str(place): count for place, count in self.times.items()}
        return {"seen": self.seen, "bad": self.bad, "times": times}


class Tally:
    """What became of all copies. Its numbers only grow."""

    def __init__(self) -> None:
        self.old, self.new = Seen(), Seen()
        self.lost = 0  # copies that nobody could take
        self.refused = 0  # copies that `mirror` could not hand over
        self.outputs: dict[str, dict[str, float]] = {}

    def compare(self, old: Tensors, new: Tensors) -> None:
        for name in sorted(old.keys() | new.keys()):
            found = compared(old.get(name), new.get(name))
            sums = self.outputs.setdefault(name, dict.fromkeys(found, 0))
            for key, value in found.items():
                sums[key] = max(sums[key], value) if key == "most" else sums[key] + value

    def to_json(self) -> dict[str, Any]:
        both = {"old": self.old.to_json(), "new": self.new.to_json()}
        outputs = {name: dict(sums) for name, sums in self.outputs.items()}
        return {**both, "dropped": self.lost + self.refused, "outputs": outputs}


def compared(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, float]:
    """One output of one request, row by row. Of one that is missing, or of another shape, no row is the
    same."""
    shape = (old or new or {"s": []})["s"]
    rows = shape[0] if shape else 1
    found: dict[str, float] = {"rows": rows, "same": 0, "numbers": 0, "apart": 0.0, "most": 0.0}
    if old is None or new is None or old["s"] != new["s"]:
        return found
    if not old["d"]:  # rows with nothing in them
        return {**found, "rows": 0}
    width = len(old["d"]) // rows
    for at in range(0, rows * width, width):
        a, b = old["d"][at : at + width], new["d"][at : at + width]
        found["same"] += _alike(a, b)
        for x, y in zip(a, b, strict=True):
            if _is_number(x) and _is_number(y):
                distance = abs(x - y)
                found["numbers"] += 1
                found["apart"] += distance
                found["most"] = max(found["most"], distance)
    return found


def _alike(a: list[Any], b: list[Any]) -> bool:
    floats = any(isinstance(value, float) for value in (*a, *b))
    if not floats or None in a or None in b:
        return a == b
    if len(a) == 1:
        x, y = float(a[0]), float(b[0])
        return abs(x - y) <= CLOSE * max(abs(x), abs(y))
    return a.index(max(a)) == b.index(max(b))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Asker:
    """Asks one of the replicas of the other version. One for each thread: it keeps its connections."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: dict[str, http.client.HTTPConnection] = {}

    def ask(
        self, addresses: list[str], body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, int | None, float]:
        """Status, body, bytes of JSON in front of it, microseconds; status 0 when none answers."""
        began = time.monotonic()
        status, answer, head, took = 0, b"", None, 0.0
        for address in addresses:
            told = self._asked(address, body, headers)
            if told is not None:
                reply, answer = told
                status = reply.status
                length = reply.headers.get(HEAD)
                head = int(length) if length else None
                took = float(reply.headers.get("x-quarterdeck-took") or 0)
                if status != 503:  # it has no room, or is leaving: another one may take it
                    break
        return status, answer, head, took or (time.monotonic() - began) * 1e6

    def _asked(
        self, address: str, body: bytes, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes] | None:
        for attempt in (0, 1):  # a connection that was idle may have been closed
            connection = self._open.pop(address, None)
            fresh = connection is None
            if connection is None:
                host, _, port = address.rpartition(":")
                connection = http.client.HTTPConnection(
                    host.strip("[]"), int(port), timeout=PATIENCE
                )
            try:
                connection.request("POST", self._path, body, headers)
                reply = connection.getresponse()
                told = reply, reply.read()
            except TimeoutError:
                connection.close()
                return None
            except (OSError, http.client.HTTPException):
                connection.close()
                if fresh or attempt:
                    return None
            else:
                self._open[address] = connection
                return told
        return None


class Shadow:
    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        self._incoming = socket.socket(fileno=task["descriptor"])
        self._inbox, self._outbox = Path(task["inbox"]), Path(task["outbox"])
        self._tally, self._lock = Tally(), threading.Lock()
        self._addresses: list[str] = []
        self._turn = 0

    def run(self) -> None:
        self._look()
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(SHOW_EVERY)
            self._look()
            self._show()

    def _look(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            asked = json.loads(self._inbox.read_bytes())["shadow"]
            if asked["id"] == self._task["id"]:
                self._addresses = [str(address) for address in asked["servers"]]

    def _show(self) -> None:
        with self._lock:
            seen = {"id": self._task["id"], "boot": self._task["boot"], **self._tally.to_json()}
        beside = self._outbox.with_suffix(".new")
        with contextlib.suppress(OSError):  # the disk is full: the next one may fit
            beside.write_text(json.dumps({"shadow": seen}))
            beside.replace(self._outbox)

    def _work(self) -> None:
        asker = Asker(self._task["path"])
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._incoming, 4096, 1)
            if not message:
                return
            told = json.loads(message)
            with os.fdopen(descriptors[0], "rb") as memory:
                data = mmap.mmap(memory.fileno(), 0, access=mmap.ACCESS_READ)[:]
            try:
                self._take(asker, told, data)
            except Exception as error:  # one copy that cannot be read is no reason to end
                print(f"a copy was not compared: {error!r}", flush=True)  # noqa: T201 - the replica's log
            with contextlib.suppress(OSError):
                self._incoming.send(str(len(data)).encode())

    def _take(self, asker: Asker, told: dict[str, Any], data: bytes) -> None:
        body, answer = data[: told["size"]], data[told["size"] :]
        headers = {"x-request-id": told["id"], "x-quarterdeck-shadow": "1"}
        if told["head"] is not None:
            headers[HEAD] = str(told["head"])
        self._turn += 1
        addresses, turn = self._addresses, self._turn
        first = turn % len(addresses) if addresses else 0
        status, other, head, took = asker.ask(addresses[first:] + addresses[:first], body, headers)
        tensors: list[Tensors] = []
        if status == told["status"] == 200:
            tensors = [_tensors(answer, told["answer_head"]), _tensors(other, head)]
        with self._lock:
            self._tally.refused = max(self._tally.refused, told["dropped"])
            if not addresses or status == 503:
                self._tally.lost += 1
                return
            self._tally.old.add(told["took"], bad=told["status"] >= 500)
            self._tally.new.add(took, bad=status != 200)
            if tensors:
                self._tally.compare(*tensors)


def _tensors(answer: bytes, head: int | None) -> Tensors:
    found: Tensors = tensors_of(answer, WHOLE if head is None else head, "outputs", set())
    return found


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it ends when the server has nothing more to say
    with contextlib.suppress(OSError):
        os.nice(10)
    Shadow(json.loads(sys.argv[1])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
