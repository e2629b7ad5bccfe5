"""A controller that says what a test tells it to, over a real unix socket.

It speaks the wire format of docs/api.md (JSON, NDJSON in chunks, errors) and can cut a connection
at any point, as a controller does that is killed.
"""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from jobs.base.errors import QuarterdeckError


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def one(self, name: str) -> str | None:
        """The value of a query parameter that is given at most once."""
        values = self.query.get(name, [])
        assert len(values) <= 1, values
        return values[0] if values else None


@dataclass
class Reply:
    """One answer. With `lines` it is a stream, else one body."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    lines: Iterable[bytes] | None = None
    cut: bool = False  # break off: before anything is sent, or after the lines
    hold: threading.Event | None = None  # end the stream when it is set

    @classmethod
    def of(cls, document: Any, status: int = 200) -> Reply:
        return cls(json.dumps(document).encode(), status)

    @classmethod
    def error(cls, error: QuarterdeckError) -> Reply:
        return cls.of(error.to_json(), error.http_status)

    @classmethod
    def stream(cls, documents: Iterable[Any], *, cut: bool = False, hold: Any = None) -> Reply:
        lines = [json.dumps(document).encode() + b"\n" for document in documents]
        return cls(lines=lines, cut=cut, hold=hold)


Handler = Callable[[Request], Reply]
CUT = Reply(cut=True)


class FakeController:
    """Start it in a `with`; program it with `on`, read what was asked in `requests`."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.requests: list[Request] = []
        self._scripts: dict[tuple[str, str], list[Any]] = {}
        self._lock = threading.Lock()

    def on(self, call: str, *replies: Any) -> None:
        """Answer `"GET /v1/..."` with these replies in turn; the last one stays.

        A reply is a Reply, an error, a function of the request, or a document.
        """
        method, _, path = call.partition(" ")
        self._scripts[method, path] = list(replies)

    def asked(self, call: str) -> list[Request]:
        method, _, path = call.partition(" ")
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    def answer(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            script = self._scripts.get((request.method, request.path))
            if not script:
                name = f"{request.method} {request.path}"
                return Reply.of({"error": {"code": "not_found", "message": f"no {name}"}}, 404)
            reply = script.pop(0) if len(script) > 1 else script[0]
        if callable(reply):
            reply = reply(request)
        if isinstance(reply, QuarterdeckError):
            return Reply.error(reply)
        return reply if isinstance(reply, Reply) else Reply.of(reply)

    def __enter__(self) -> FakeController:
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        # The folder's descriptor keeps the path within what a socket's name may have.
        folder = os.open(self.socket.parent, os.O_PATH)
        try:
            self._server = _Server(f"/proc/self/fd/{folder}/{self.socket.name}", _Handler)
        finally:
            os.close(folder)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.socket.unlink()


class _Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 64  # of five connections at once, as is usual, one may be refused
    fake: FakeController


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.close_connection = True
        url = urlsplit(self.path)
        body = self._body()
        if body is None:
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, unquote(url.path), parse_qs(url.query), body, headers)
        reply = self.server.fake.answer(request)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client left
            self._send(reply)

    def _body(self) -> bytes | None:
        """The request's body; None when the client left in the middle of it."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts: list[bytes] = []
        while True:
            line = self.rfile.readline()
            if not line:
                return None
            size = int(line, 16)
            part = self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return b"".join(parts)
            parts.append(part)

    def _send(self, reply: Reply) -> None:
        if reply.cut and reply.lines is None:
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.lines is None:
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in reply.lines:
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        if reply.hold is not None:
            reply.hold.wait(10)
        if not reply.cut:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Tests say what they need to know."""
