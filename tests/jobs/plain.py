"""Nodes, requests and what runs, in few words."""

from __future__ import annotations

from jobs.placement.scheduling import NodeCapacity, Request, Running, Shape, Share


def node(name: str, gpus: float = 8, cpus: float = 64, **more: object) -> NodeCapacity:
    return NodeCapacity(name, cpus, gpus, 64 << 30, **more)  # type: ignore[arg-type]


def job(number: int, gpus: float = 1, nodes: int = 1, cpus: float = 1, **more: object) -> Request:
    more = {"priority": 50, "arrival": float(number), "user": "ann"} | more
    return Request(number, Shape(nodes, 1, cpus, gpus), **more)  # type: ignore[arg-type]


def holds(number: int, nodes: str, gpus: float, ends: float | None = None) -> Running:
    shares = {
        name: Share(1, gpus, 0, tuple(f"{name}-{number}-{n}" for n in range(int(gpus))))
        for name in nodes.split()
    }
    return Running(number, shares, 50, ends)
