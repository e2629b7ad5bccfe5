"""A stand-in for the controller of a large cluster, for figures of the console alone.

It speaks the HTTP API over a unix socket: 125 nodes of 8 GPUs of which every value changes each second,
10,000 jobs, and one log of 1,000,000 lines. Run in a process of its own, so that what it costs is not
counted as the console's: `python -m tests.bench.standin SOCKET`.
"""

from __future__ import annotations

import json
import random
import socketserver
import sys
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

NODES, GPUS, JOBS, LINES = 125, 8, 10_000, 1_000_000
RUNNING = 200

LOG = b"".join(b"%07d step loss 2.3456 tokens/s 31000\n" % n for n in range(LINES))


def now(ago: float = 0.0) -> str:
    return datetime.fromtimestamp(time.time() - ago, UTC).isoformat().replace("+00:00", "Z")


def node(number: int) -> dict[str, Any]:
    """A node whose figures are other ones at each call."""
    load = random.uniform(80, 100)
    job = f"j{JOBS - number % RUNNING}"
    return {
        "name": f"n{number:03d}",
        "address": "10.0.0.1",
        "state": "READY",
        "reason": "",
        "gpus": [
            {
                "index": index,
                "uuid": f"GPU-{number}-{index}",
                "model": "NVIDIA H100 80GB HBM3",
                "simulated": False,
                "util": round(load + random.uniform(-5, 0)),
                "mem_used": 70 << 30,
                "mem_total": 80 << 30,
                "power": round(random.uniform(600, 700)),
                "power_limit": 700.0,
                "temp": round(random.uniform(55, 65)),
                "sm_clock": 1980,
                "mem_clock": 2619,
                "throttle": [],
                "ecc_errors": 0,
                "pcie_rx": random.random() * 1e9,
                "pcie_tx": random.random() * 1e9,
                "processes": [4000 + index],
                "job": job,
                "rank": index,
            }
            for index in range(GPUS)
        ],
        "cpu": {"count": 96.0, "util": round(load), "load": load},
        "memory": {"used": 400 << 30, "total": 1024 << 30},
        "disk": {"used": 2 << 40, "total": 7 << 40},
        "net_rx": random.random() * 1e9,
        "net_tx": random.random() * 1e9,
        "jobs": [job],
        "free_gpus": 0.0,
        "free_cpus": 0.0,
        "seen_at": now(),
        "age": 0.2,
        "labels": {},
    }


def job(number: int) -> dict[str, Any]:
    live = number > JOBS - RUNNING
    return {
        "id": f"j{number}",
        "name": f"train-{number % 97}",
        "user": f"user{number % 11}",
        "state": "RUNNING" if live else "SUCCEEDED" if number % 9 else "FAILED",
        "reason": "" if number % 9 else "rank 3 on n007 exited with code 1",
        "priority": 50,
        "nodes": 1,
        "ranks": 8,
        "gpus": 8.0,
        "cpus": 64.0,
        "kind": "gang",
        "tags": {},
        "attempt": 1,
        "restarts": 0,
        "submitted_at": now(3600 + JOBS - number),
        "started_at": now(3000 + JOBS - number),
        "ended_at": None if live else now(60 + JOBS - number),
        "exit_code": None if live else 0,
        "placed_on": [f"n{number % NODES:03d}"],
        "objective": None,
        "revision": number,
    }


def detail(number: int) -> dict[str, Any]:
    rank = {
        "rank": 0,
        "node": "n001",
        "local_rank": 0,
        "pid": 1,
        "gpus": ["GPU-1-0"],
        "state": "RUNNING",
        "exit_code": None,
        "signal": None,
        "log_bytes": len(LOG),
    }
    attempt = {
        "id": f"j{number}.1",
        "number": 1,
        "state": "RUNNING",
        "reason": "",
        "started_at": now(3000),
        "ended_at": None,
        "first_failure": None,
        "ranks": [rank],
    }
    rest: dict[str, Any] = {
        "spec": {},
        "snapshot": None,
        "git": None,
        "metrics": {},
        "artifacts": [],
    }
    return {**job(number), **rest, "attempts": [attempt]}


def history(seconds: float, points: int) -> list[dict[str, float]]:
    start = time.time() - seconds
    each = seconds / points
    return [
        {"at": start + i * each, "mean": 90.0, "low": 80.0 + i % 7, "high": 99.0}
        for i in range(points)
    ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # the end of a reply is the end of its connection

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        """A figure is no place for an access log."""

    def do_GET(self) -> None:
        url = urlparse(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            self._answer(url.path, query)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, path: str, query: dict[str, str]) -> None:
        if path == "/v1/watch":
            self._begin()
            self._watch(query["topics"].split(","))
        elif path.endswith("/raw"):
            offset = int(query.get("offset", 0))
            data = LOG[offset : offset + int(query.get("limit", 1 << 16))]
            self._begin(("X-Size", str(len(LOG))), ("Content-Length", str(len(data))))
            self.wfile.write(data)
        elif path.endswith("/history"):
            self._json(history(float(query["seconds"]), int(query["points"])))
        elif path == "/v1/maintenance":
            self._json(None)
        elif path.startswith("/v1/nodes/"):
            self._json(node(1))
        else:
            self._json({})

    def _begin(self, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self._begin(("Content-Length", str(len(data))))
        self.wfile.write(data)

    def _tell(self, *deltas: dict[str, Any]) -> None:
        self.wfile.write(b"".join(json.dumps(delta).encode() + b"\n" for delta in deltas))

    def _watch(self, topics: list[str]) -> None:
        rev = 1
        for topic in topics:
            self._tell({"rev": rev, "op": "reset", "topic": topic})
            for key, value in state(topic):
                self._tell(put(rev, topic, key, value))
            self._tell({"rev": rev, "op": "ready", "topic": topic, "boot": "b"})
        while True:
            time.sleep(1.0)
            rev += 1
            if "nodes" in topics:
                self._tell(*(put(rev, "nodes", view["name"], view) for view in all_nodes()))
            if "jobs" in topics:
                changed = job(JOBS - rev % RUNNING)
                self._tell(put(rev, "jobs", changed["id"], changed))
            self._tell({"rev": rev, "op": "ping", "topic": "", "boot": "b"})


def put(rev: int, topic: str, key: str, value: Any) -> dict[str, Any]:
    return {"rev": rev, "op": "put", "topic": topic, "key": key, "value": value}


def all_nodes() -> list[dict[str, Any]]:
    return [node(number) for number in range(1, NODES + 1)]


def state(topic: str) -> list[tuple[str, Any]]:
    if topic == "nodes":
        return [(view["name"], view) for view in all_nodes()]
    if topic == "jobs":
        return [(f"j{number}", job(number)) for number in range(1, JOBS + 1)]
    if topic.startswith("job:"):
        return [(topic[4:], detail(int(topic[5:])))]
    return []


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False


def main() -> None:
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with Server(str(path), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
