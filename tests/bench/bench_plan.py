"""How long one scheduling pass takes: 10,000 waiting jobs, 1,000 nodes with 8 GPUs each.

Run with `python tests/bench/bench_plan.py`. Prints the best and the median of several passes over
each situation; the collector is left on, as it is in the controller.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs.placement.scheduling import (
    NodeCapacity,
    Plan,
    Queue,
    Request,
    Running,
    Shape,
    Share,
    Standing,
    plan_on,
)

NODES, JOBS, ROUNDS = 1_000, 10_000, 9
GIB = 1 << 30


def cluster() -> list[NodeCapacity]:
    return [
        NodeCapacity(f"n{i}", 64, 8, 512 * GIB, "H100" if i % 2 else "A100") for i in range(NODES)
    ]


def queue(shapes: list[Shape], timeouts: bool) -> list[Request]:
    pick = random.Random(7)
    return [
        Request(
            job,
            pick.choice(shapes),
            pick.choice((20, 50, 50, 50, 90)),
            pick.uniform(-10_000, 0),
            f"user{job % 20}",
            pick.choice((None, 600.0, 7_200.0)) if timeouts else None,
        )
        for job in range(1, JOBS + 1)
    ]


def full(ends: bool) -> list[Running]:
    """8,000 one-GPU jobs, but for a hole of one GPU on each fiftieth node."""
    pick = random.Random(8)
    return [
        Running(
            100_000 + n,
            {f"n{n // 8}": Share(8, 1, 32 * GIB, (f"GPU-{n}",))},
            50,
            pick.uniform(0, 7_200) if ends else None,
        )
        for n in range(NODES * 8)
        if n % 400
    ]


MIXED = [
    Shape(nodes, gpus, cpus * gpus, gpus, 0, model)
    for nodes, gpus in ((1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (16, 8))
    for cpus in (1, 4, 8)
    for model in ("", "H100")
] + [Shape(1, 1, 2, 0), Shape(1, 1, 1, 0.5), Shape(1, 1, 1, 0.25)]

SITUATIONS = {
    "full cluster, 45 shapes waiting": (queue(MIXED, False), full(False)),
    "the same, with time limits": (queue(MIXED, True), full(True)),
    "empty cluster, 45 shapes": (queue(MIXED, True), []),
    "empty cluster, one GPU each": (queue([Shape(1, 1, 8, 1)], False), []),
    "empty cluster, half a GPU each": (queue([Shape(1, 1, 4, 0.5)], False), []),
    "empty cluster, memory is scarce": (queue([Shape(1, 1, 1, 0, 64 * GIB)], False), []),
}


def passes(situation: str, count: int) -> tuple[list[float], Plan]:
    """Seconds that each of so many passes over a situation takes, and what they decide. The queue
    and what runs are held already, as the controller holds them from one pass to the next."""
    waiting, running = SITUATIONS[situation]
    nodes, queue, standing, took = cluster(), Queue(waiting), Standing(), []
    standing.fleet(nodes, running)
    for _ in range(count):
        start = time.perf_counter()
        result = plan_on(queue, standing, nodes, running, 0.0)
        took.append(time.perf_counter() - start)
    return took, result


def main() -> None:
    for name in SITUATIONS:
        seconds, result = passes(name, ROUNDS)
        took = [1e3 * value for value in seconds]
        print(
            f"{name:34} best {min(took):6.1f} ms, median {statistics.median(took):6.1f} ms, "
            f"placed {len(result.placements):5}, waiting {len(result.reasons):5}"
        )


if __name__ == "__main__":
    main()
