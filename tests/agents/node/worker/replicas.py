"""A server that a front can have before it."""

from __future__ import annotations

import contextlib
import http.server
import threading
from typing import Any


class Replica(http.server.ThreadingHTTPServer):
    """Answers with its name; `/ready` with 200 once `up`, all else with `status`."""

    daemon_threads = True

    def __init__(self, name: str, *, status: int = 200, up: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.status, self.up = name, status, up
        self.release: threading.Event | None = None  # what is no question for /ready waits for it
        self.heard: list[dict[str, str]] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        replica = self.server
        assert isinstance(replica, Replica)
        headers = {name.lower(): value for name, value in self.headers.items()}
        replica.heard.append({"path": self.path, **headers})
        self.rfile.read(int(headers.get("content-length", 0)))
        if self.path != "/ready" and replica.release is not None:
            replica.release.wait(20)
        ready = 200 if replica.up else 503
        self.send_response(ready if self.path == "/ready" else replica.status)
        body = replica.name.encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass
