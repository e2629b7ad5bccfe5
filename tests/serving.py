"""A small service, and callers that count what it answers."""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections import Counter
from typing import Any

SERVER = """
import http.server, os, sys, time
name, status, slow = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        ready = self.path == "/ready"
        time.sleep(0 if ready else slow)
        body = f"{name} {os.getpid()}".encode()
        head = f"HTTP/1.1 {200 if ready else status} x\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
        self.wfile.write(head.encode() + body)
    do_POST = do_GET
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def service(version: str, *, status: int = 200, slow: float = 0, **fields: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", SERVER, version, str(status), str(slow)]
    return {
        "name": "hello", "version": version, "command": command, "ready": "/ready",
        "resources": {"cpu": 0.25}, "rest": 0, "least": 20, **fields,
    }  # fmt: skip


class Callers:
    """Threads that ask without end; `told` counts who answered, or why nobody did."""

    def __init__(self, port: int, callers: int = 2) -> None:
        self.told: Counter[str] = Counter()
        self._port, self._going = port, True
        self._threads = [threading.Thread(target=self._run) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while self._going:
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                name = answer.read().decode().split()[0]
                self.told[f"{name} {answer.status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.told[f"failed: {error!r}"] += 1
                connection.close()
            time.sleep(0.002)
        connection.close()

    def close(self) -> Counter[str]:
        self._going = False
        for thread in self._threads:
            thread.join()
        return self.told
