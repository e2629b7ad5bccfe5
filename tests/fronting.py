"""A front of services without its job, before servers of a test's own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.node.staging.environment import WORKER_FOLDER


class Front:
    """A front in a folder of its own, as its job starts it."""

    def __init__(self, folder: Path) -> None:
        (folder / "work").mkdir()
        self._inbox, self._outbox = folder / "inbox.json", folder / "outbox.json"
        environ = os.environ | {
            "PYTHONPATH": str(WORKER_FOLDER),
            "QD_INBOX": str(self._inbox),
            "QD_OUTBOX": str(self._outbox),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quarterdeck_front"],
            cwd=folder / "work",
            env=environ,
            stdout=subprocess.DEVNULL,
        )
        self._revision = 0
        self.ready = "/ready"
        self.hold: dict[str, float] | None = None
        self.port = free_port()

    def want(
        self, old: Sequence[str], new: Sequence[str], share: float, **more: Any
    ) -> Callable[[], Any]:
        """Ask for a split; gives what is truthy once it is so."""
        self._revision += 1
        revision = str(self._revision)
        service = {
            "name": "d1",
            "bind": "127.0.0.1",
            "port": self.port,
            "stable": "d1r1",
            "candidate": "d1r2" if new else "",
            "share": share,
            "backends": [
                {
                    "name": name,
                    "ready": self.ready,
                    "hold": self.hold,
                    "servers": [
                        {"name": f"e{n}", "address": address} for n, address in enumerate(addresses)
                    ],
                }
                for name, addresses in (("d1r1", old), ("d1r2", new))
            ],
        }
        beside = self._inbox.with_suffix(".new")
        beside.write_text(json.dumps({"revision": revision, "services": [service | more]}))
        beside.replace(self._inbox)
        return lambda: self.seen().get("applied") == revision

    def seen(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            found: dict[str, Any] = json.loads(self._outbox.read_text())
            return found
        return {}

    def up(self, name: str) -> int:
        return sum(self.seen().get("servers", {}).get(name, {}).values())

    def get(self, key: str | None = None, headers: Mapping[str, str] | None = None) -> str:
        """Who answers, or the status that the front gives itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        session = {"x-session-id": key} if key else {}
        try:
            connection.request("GET", "/", headers={**session, **(headers or {})})
            answer = connection.getresponse()
            body = answer.read().decode()
        except OSError:
            return "refused"
        finally:
            connection.close()
        return body if answer.status in (200, 500) else str(answer.status)

    def close(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(look: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s"
        time.sleep(0.01)
    return found


def answers(port: int, path: str) -> bool:
    """Whether a GET has the status 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
