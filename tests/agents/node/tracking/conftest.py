"""A tracker in this process, and a client that knows HTTP alone."""

from __future__ import annotations

import json
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from agents.node.tracking.server import Server, Tracker

KEY = "c-j7-12345678.1-87654321"
API = "/api/2.0/mlflow/"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


class Client:
    """Requests as MLflow's client makes them."""

    def __init__(self, port: int, user: str = "rank-0", password: str = "pw") -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=30)
        self.credential = b64encode(f"{user}:{password}".encode()).decode()

    def raw(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        headers = {"Authorization": f"Basic {self.credential}"}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def call(self, method: str, path: str, **args: Any) -> dict[str, Any]:
        status, body = self.raw(method, API + path, json.dumps(args).encode())
        found: dict[str, Any] = json.loads(body)
        assert status == 200, found
        return found

    def refused(self, method: str, path: str, body: bytes | dict[str, Any]) -> tuple[int, str, str]:
        """Status, code and message of what is not done."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer = self.raw(method, path if path.startswith("/") else API + path, data)
        found = json.loads(answer)
        assert status >= 400
        return status, found["error_code"], found["message"]

    def run(self, **args: Any) -> str:
        """A new run's id."""
        return str(
            self.call("POST", "runs/create", experiment_id="0", **args)["run"]["info"]["run_id"]
        )


class Home:
    """An attempt's folder, and trackers on it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "work").mkdir()
        self._clients: list[Client] = []
        self._server: Server | None = None
        self.begin()

    def begin(self) -> None:
        """A tracker that knows what is in the folder, and nothing else."""
        self.end()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        tracker = Tracker(self.folder, KEY, self.folder / "work", [0, 1], "pw")
        self._server = Server(listener, tracker)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def end(self) -> None:
        for client in self._clients:
            client.connection.close()
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def client(self, user: str = "rank-0", password: str = "pw") -> Client:
        self._clients.append(Client(self.port, user, password))
        return self._clients[-1]

    def lines(self, rank: int = 0) -> list[dict[str, Any]]:
        path = self.folder / f"metrics-{rank}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def points(self, rank: int = 0) -> list[tuple[str, int, float | None]]:
        """What the registry will have."""
        return [(line["n"], line["s"], line["v"]) for line in self.lines(rank) if "n" in line]

    def facts(self, rank: int = 0) -> list[tuple[str, str, str | None]]:
        return [(line["f"], line["k"], line["x"]) for line in self.lines(rank) if "f" in line]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.end()
