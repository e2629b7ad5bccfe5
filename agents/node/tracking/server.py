"""The tracker: MLflow's protocol on the guard's listener, for the ranks of one attempt on this node.

    python -I -S server.py FACTS        (from `agents/node/guard/tracking.py`; descriptor 3 listens)

Standard library only, since it runs beside the job for as long as that does, whatever becomes of agent,
controller or this installation's packages. FACTS is JSON: `key`, `work` and `ranks` of the attempt, whose
folder it runs in. It may be killed at any moment: all that was acknowledged is in files.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import socket
import sys
import threading
from base64 import b64decode
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import IO, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

if __name__ == "__main__":  # isolated mode knows no folder but the standard library's
    sys.path.append(str(Path(__file__).absolute().parents[3]))

from agents.node.tracking import api, modelapi
from agents.node.tracking.artifacts import FOLDER, Artifacts
from agents.node.tracking.errors import Refused, invalid, missing, no_endpoint, not_stored
from agents.node.tracking.models import Models
from agents.node.tracking.runs import Runs

MAX_BODY = 16 << 20
"""Bytes of a request's JSON. A batch has at most a thousand entries, and a data set's profile is text."""
IDLE = 3600.0
"""Seconds that a connection may be silent."""
MAX_CONNECTIONS = 512
_DRAINED = 1 << 20
"""Bytes of a refused body that are read, so that the client hears why."""

_API = "/api/2.0/mlflow/"
_FILES = "/api/2.0/mlflow-artifacts/artifacts"
_READ = 1 << 20


class Tracker:
    """What answers requests. One at a time, but for the bytes of artifacts."""

    def __init__(self, folder: Path, key: str, work: Path, ranks: Sequence[int], password: str):
        self.runs = Runs(folder, key, ranks)
        self.models = Models(self.runs)
        self.artifacts = Artifacts(work)
        self.ranks, self._password = tuple(ranks), password.encode()
        self._lock = threading.Lock()

    def caller(self, authorization: str) -> int:
        """The rank that asks. Raises Refused."""
        scheme, _, given = authorization.partition(" ")
        user, password = "", given.strip().encode()
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                user, _, secret = b64decode(given, validate=True).decode().partition(":")
                password = secret.encode()
        if not hmac.compare_digest(password, self._password):
            raise Refused(
                401,
                "UNAUTHENTICATED",
                "This endpoint is for the ranks of one job: it takes the MLFLOW_TRACKING_USERNAME and"
                " MLFLOW_TRACKING_PASSWORD of their environment. A .netrc entry takes precedence over them",
            )
        number = user.removeprefix("rank-")
        rank = int(number) if number.isdecimal() and len(number) < 10 else self.ranks[0]
        return rank if rank in self.ranks else self.ranks[0]

    def answer(self, method: str, path: str, rank: int, args: Any, body: bytes) -> dict[str, Any]:
        """What a route of the JSON API gives. Raises Refused."""
        name = path.removeprefix(_API)
        route = f"{method} {name}"
        handler = api.ROUTES.get(route) or modelapi.ROUTES.get(route)
        handler = handler or modelapi.of_model(method, name)
        if handler is None or not path.startswith(_API):
            raise no_endpoint(path)
        with self._lock:
            return handler(api.Call(rank, args, body, self.runs, self.models, self.artifacts))

    def place(self, rank: int, path: str) -> str:
        """Where an artifact is, below the work folder: `EXPERIMENT/RUN/artifacts/…`. Raises Refused."""
        _, _, rest = path.strip("/").partition("/")
        owner, _, inner = rest.partition("/")
        with self._lock:
            if owner == "models":
                number, _, inner = inner.partition("/")
                folder = f"{FOLDER}/{self.models.get(number)['folder']}"
            else:
                folder = api.folder_of(self.runs.run(rank, owner))
        word, _, rest = inner.partition("/")
        if word != "artifacts":
            raise missing(f"No such artifact: '{path[:200]}'")
        return f"{folder}/{rest}".strip("/")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "quarterdeck", ""
    timeout = IDLE
    tracker: ClassVar[Tracker]

    def _handle(self) -> None:
        self._left = 0
        try:
            self._act()
        except Refused as error:
            self._refuse(error)
        except ConnectionError:
            self.close_connection = True
        except OSError as error:
            self._refuse(not_stored(error))
        except Exception as error:
            self.log_error("%r", error)
            self._refuse(Refused(500, "INTERNAL_ERROR", f"Quarterdeck failed: {error!r:.300}"))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _act(self) -> None:
        self._left = self._length()
        target = urlsplit(self.path)
        if target.path == "/health":
            return self._give(b"OK", "text/plain")
        rank = self.tracker.caller(self.headers.get("Authorization", ""))
        if target.path == _FILES or target.path.startswith(f"{_FILES}/"):
            return self._artifact(rank, unquote(target.path[len(_FILES) :]), target.query)
        if self._left > MAX_BODY:
            raise Refused(413, "INVALID_PARAMETER_VALUE", f"A request has {MAX_BODY} bytes at most")
        body = self._read(self._left)
        args = self._args(body, target.query)
        answer = self.tracker.answer(self.command, target.path, rank, args, body)
        return self._give(json.dumps(answer).encode(), "application/json")

    def _length(self) -> int:
        given = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not given.isdecimal() or len(given) > 15:
            self.close_connection = True
            raise Refused(411, "INVALID_PARAMETER_VALUE", "A request says its length")
        return int(given)

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        self._left -= len(data)
        if len(data) < size:
            raise ConnectionError("cut off")
        return data

    @staticmethod
    def _args(body: bytes, query: str) -> dict[str, Any]:
        """The body's object and the query's values; a name that is there often is a list."""
        try:
            args = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError):
            raise Refused(400, "MALFORMED_REQUEST", "The request's body is no JSON") from None
        if not isinstance(args, dict):
            raise Refused(400, "MALFORMED_REQUEST", "The request's body is no JSON object")
        try:
            found = parse_qs(query, keep_blank_values=True, max_num_fields=1000)
        except ValueError:
            raise invalid("The query has too many fields") from None
        return {**{k: v[0] if len(v) == 1 else v for k, v in found.items()}, **args}

    def _artifact(self, rank: int, path: str, query: str) -> None:
        tracker = self.tracker
        if self.command == "GET" and not path.strip("/"):
            asked = parse_qs(query, max_num_fields=10).get("path", [""])[0]
            files = tracker.artifacts.list(tracker.place(rank, asked))
            return self._give(json.dumps({"files": files}).encode(), "application/json")
        place = tracker.place(rank, path)
        if self.command == "GET":
            with tracker.artifacts.open(place) as file:
                return self._send_file(file)
        if self.command == "PUT":
            size, self._left = self._left, -1  # how much of it is read is not known from here on
            tracker.artifacts.put(place, size, self.rfile)  # type: ignore[arg-type]
            self._left = 0
        elif self.command == "DELETE":
            tracker.artifacts.delete(place)
        else:
            raise no_endpoint(self.path)
        return self._give(b"{}", "application/json")

    def _send_file(self, file: IO[bytes]) -> None:
        size = os.fstat(file.fileno()).st_size
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        while size and (data := file.read(min(size, _READ))):
            self.wfile.write(data)
            size -= len(data)
        if size:  # it was cut meanwhile
            self.close_connection = True

    def _refuse(self, error: Refused) -> None:
        """Answer with an error, after what is left of the request where that is little."""
        with contextlib.suppress(OSError):
            if 0 < self._left <= _DRAINED:
                self.rfile.read(self._left)
            elif self._left:
                self.close_connection = True
            words = {"error_code": error.code, "message": error.message}
            self._give(json.dumps(words).encode(), "application/json", error.status)

    def _give(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        # In one packet with the head, for which a client would else wait until it acknowledged the latter.
        self._headers_buffer.append(b"\r\n" + body)  # type: ignore[attr-defined]
        self.flush_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing of what goes well."""


class Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, tracker: Tracker) -> None:
        handler = type("BoundHandler", (Handler,), {"tracker": tracker})
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._room.acquire()  # those above it wait in the listener's queue
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


def main(facts: dict[str, Any], password: str, listener: socket.socket) -> None:
    tracker = Tracker(Path(), facts["key"], Path(facts["work"]), facts["ranks"], password)
    Server(listener, tracker).serve_forever(poll_interval=3600)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), os.environ.pop("QD_TRACKING_PASSWORD"), socket.socket(fileno=3))
