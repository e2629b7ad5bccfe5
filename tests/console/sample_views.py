"""Views as a controller sends them, whole and plausible."""

from __future__ import annotations

from typing import Any


def job(number: int = 1, state: str = "RUNNING", **over: Any) -> dict[str, Any]:
    ended = state in ("SUCCEEDED", "FAILED", "CANCELLED")
    return {
        "id": f"j{number}",
        "name": "digits",
        "user": "mira",
        "state": state,
        "reason": "",
        "priority": 50,
        "nodes": 1,
        "ranks": 2,
        "gpus": 2.0,
        "cpus": 2.0,
        "kind": "gang",
        "tags": {},
        "attempt": 1,
        "restarts": 0,
        "submitted_at": "2026-01-01T10:00:00.000Z",
        "started_at": "2026-01-01T10:00:02.000Z",
        "ended_at": "2026-01-01T10:03:14.000Z" if ended else None,
        "exit_code": {"SUCCEEDED": 0, "FAILED": 3}.get(state),
        "placed_on": ["n1"],
        "objective": None,
        "revision": 1,
        **over,
    }


def failure(**over: Any) -> dict[str, Any]:
    return {
        "rank": 1,
        "node": "n1",
        "exit_code": 3,
        "signal": None,
        "tail": ["Traceback", "ValueError: nan"],
        "reason": "the rank failed",
        **over,
    }


def attempt(number: int = 1, state: str = "RUNNING", **over: Any) -> dict[str, Any]:
    return {
        "id": f"j1.{number}",
        "number": number,
        "state": state,
        "reason": "",
        "started_at": "2026-01-01T10:00:02.000Z",
        "ended_at": None,
        "first_failure": None,
        "ranks": [
            {
                "rank": rank,
                "node": "n1",
                "local_rank": rank,
                "pid": 100 + rank,
                "gpus": [f"SIM-{rank}"],
                "state": "RUNNING",
                "exit_code": None,
                "signal": None,
                "log_bytes": 2048,
            }
            for rank in range(2)
        ],
        **over,
    }


def detail(number: int = 1, state: str = "RUNNING", **over: Any) -> dict[str, Any]:
    return {
        **job(number, state),
        "spec": {"command": "python train.py", "objective": None},
        "snapshot": "sha256:" + "ab" * 32,
        "git": {"commit": "0123456789abcdef", "branch": "main", "dirty": True},
        "attempts": [attempt()],
        "metrics": {"val_acc": {"value": 0.975, "step": 5, "at": "2026-01-01T10:03:00.000Z"}},
        "artifacts": [
            {
                "name": "model",
                "path": "out/model.onnx",
                "digest": "sha256:" + "cd" * 32,
                "size": 4096,
                "attempt": 1,
            }
        ],
        **over,
    }


def gpu(index: int = 0, **over: Any) -> dict[str, Any]:
    return {
        "index": index,
        "uuid": f"SIM-{index}",
        "model": "Simulated H100",
        "simulated": True,
        "util": 93.0,
        "mem_used": 74 << 30,
        "mem_total": 80 << 30,
        "power": 640.0,
        "power_limit": 700.0,
        "temp": 63.0,
        "sm_clock": 1980,
        "mem_clock": 2619,
        "throttle": [],
        "ecc_errors": 0,
        "pcie_rx": None,
        "pcie_tx": None,
        "processes": [],
        "job": "j1",
        "rank": index,
        **over,
    }


def node(name: str = "n1", **over: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": "127.0.0.1",
        "state": "READY",
        "reason": "",
        "gpus": [gpu(0), gpu(1)],
        "cpu": {"count": 8.0, "util": 41.0, "load": 3.2},
        "memory": {"used": 6 << 30, "total": 16 << 30},
        "disk": {"used": 40 << 30, "total": 100 << 30},
        "net_rx": None,
        "net_tx": None,
        "jobs": ["j1"],
        "free_gpus": 0.0,
        "free_cpus": 6.0,
        "seen_at": "2026-01-01T10:00:00.000Z",
        "age": 0.4,
        "labels": {},
        **over,
    }


def status(**over: Any) -> dict[str, Any]:
    return {
        "state": "ok",
        "version": "0.1.0",
        "cluster": {
            "nodes": 1,
            "gpus": 2,
            "simulated": True,
            "cpus": 8.0,
            "jobs": {"RUNNING": 1, "QUEUED": 2},
        },
        "problems": [],
        **over,
    }


def line(text: str, rank: int = 0, offset: int = 0, at: int = 0, **over: Any) -> dict[str, Any]:
    """A log line first seen `at` seconds after ten o'clock."""
    moment = f"2026-01-01T10:{at // 60:02}:{at % 60:02}.000Z"
    return {"rank": rank, "offset": offset, "at": moment, "line": text, "attempt": 1, **over}


def event(number: int, message: str, **over: Any) -> dict[str, Any]:
    return {
        "id": number,
        "at": "2026-01-01T10:00:00.000Z",
        "kind": "job.state",
        "severity": "info",
        "job": "j1",
        "node": None,
        "user": None,
        "message": message,
        **over,
    }
