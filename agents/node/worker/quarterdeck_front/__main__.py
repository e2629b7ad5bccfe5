"""The loop: what is asked, what answers, what was counted. On SIGTERM HAProxy finishes what it has."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .config import Asked, backends
from .counts import Tally
from .haproxy import Haproxy, find
from .hold import Holder
from .load import Load

TICK = 0.03
"""Seconds between two looks at what is asked: what a rollback waits for at most."""
SHOW_EVERY = 0.2
"""Seconds between two writings of what was seen."""
LOOK_AGAIN = 0.1
"""Seconds between two questions to a replica whether it is ready."""

KNOWS = ["keys", "tls", "scale"]
"""What a controller may ask that the first fronts did not understand."""


class Prober:
    """Asks replicas whether they are ready, until they are; from then on HAProxy does."""

    def __init__(self) -> None:
        self._wanted: dict[str, str] = {}  # address -> path
        self.ready: set[str] = set()
        threading.Thread(target=self._run, daemon=True).start()

    def want(self, asked: Asked) -> None:
        self._wanted = {
            server["address"]: backend["ready"]
            for backend in backends(asked).values()
            for server in backend["servers"]
        }
        self.ready &= self._wanted.keys()

    def _run(self) -> None:
        while True:
            for address, path in list(self._wanted.items()):
                if address not in self.ready and answers(address, path):
                    self.ready.add(address)
            time.sleep(LOOK_AGAIN)


def answers(address: str, path: str) -> bool:
    """Whether a GET of this path has the status 200."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=1.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Front:
    def __init__(self, haproxy: Haproxy, inbox: Path, outbox: Path) -> None:
        self._haproxy, self._inbox, self._outbox = haproxy, inbox, outbox
        self._boot = secrets.token_hex(4)
        self._prober, self._tally = Prober(), Tally()
        self._asked: Asked = {"services": []}
        self._read = 0
        self._shown = 0.0
        self._applied = ""
        self._servers: dict[str, dict[str, bool]] = {}
        self._load = Load(time.monotonic())
        self._holder = Holder(Path.cwd(), lambda address: address in self._prober.ready)
        self._certificates: dict[str, dict[str, Any]] = {}
        self._said = ""
        self.ending = False

    def run(self) -> None:
        while True:
            # Not woken by each line of the log: on a busy machine that would cost every request.
            time.sleep(TICK)
            with contextlib.suppress(BlockingIOError):
                self._tally.feed(os.read(self._haproxy.log, 1 << 20))
            if self.ending:
                self._haproxy.stop()
                if self._haproxy.finished:
                    self._show()
                    return
                continue
            self._take()
            if self._haproxy.want(self._asked, set(self._prober.ready)):
                self._applied = self._asked.get("revision", "")
            if self._haproxy.error and self._haproxy.error != self._said:
                _say(self._haproxy.error)
            self._said = self._haproxy.error
            if time.monotonic() > self._shown + SHOW_EVERY:
                self._show()

    def _take(self) -> None:
        """Read what is asked, when it has changed."""
        try:
            changed = self._inbox.stat().st_mtime_ns
        except OSError:
            return
        if changed == self._read:
            return
        self._read = changed
        self._asked = json.loads(self._inbox.read_bytes())
        self._prober.want(self._asked)
        self._holder.want(backends(self._asked).values())

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._haproxy.current is not None:
            with contextlib.suppress(OSError, ValueError):
                self._servers = self._haproxy.servers()
                finished = {name: counts.seen for name, counts in self._tally.counts.items()}
                requests, waiting = self._haproxy.load(), self._holder.waiting()
                self._load.look(time.monotonic(), requests, waiting, finished)
                self._certificates = self._haproxy.certificates()
        current = self._haproxy.current
        seen: dict[str, Any] = {
            "boot": self._boot,
            "knows": KNOWS,
            "applied": self._applied,
            "pid": current.pid if current is not None else None,
            "error": self._haproxy.error,
            "servers": self._servers,
            "load": self._load.to_json(),
            "leaving": self._haproxy.leaving(),
            "clock": self._load.looked,
            "certificates": self._certificates,
            "counts": {name: counts.to_json() for name, counts in self._tally.counts.items()},
        }
        beside = self._outbox.with_suffix(".new")
        beside.write_text(json.dumps(seen))
        beside.replace(self._outbox)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the job's log


def main() -> int:
    program = find()
    if program is None:
        _say(
            "there is no HAProxy on this node: pip install 'quarterdeck[serve]', or the system's "
            "package haproxy"
        )
        return 1
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a request that is held takes two
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    inbox, outbox = Path(os.environ["QD_INBOX"]), Path(os.environ["QD_OUTBOX"])
    front = Front(Haproxy(program, Path.cwd()), inbox, outbox)

    def end(*_: object) -> None:
        front.ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    _say(f"{program} in {Path.cwd()}")
    front.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
