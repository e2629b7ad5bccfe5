"""What the controller says of nodes."""

from __future__ import annotations

import asyncio

from agents.controller.nodes.cluster import AT_ONCE, Cluster
from jobs.wire.messages import NodeFacts

FACTS: NodeFacts = {
    "cpus": 8,
    "memory": 64 << 30,
    "gpus": [{"index": 0, "uuid": "g", "model": "H100", "memory": 80 << 30, "simulated": False}],
    "driver": "",
    "cuda": "",
    "kernel": "",
    "python": "",
    "ray": "",
}


def test_a_node_that_is_ready_shows_its_gpus_before_they_are_measured() -> None:
    cluster = Cluster(lambda: 0.0)
    node = cluster.node("n1", "10.0.0.1")
    assert cluster.view(node, {})["gpus"] == []
    node.facts = FACTS
    (gpu,) = cluster.view(node, {})["gpus"]
    assert (gpu["uuid"], gpu["mem_total"]) == ("g", 80 << 30)
    assert (gpu["util"], gpu["mem_used"], gpu["job"]) == (None, None, None)


def measured(count: int) -> Cluster:
    """So many nodes, of which the n-th measured n % GPU and n watts for ten seconds."""
    cluster = Cluster(lambda: 0.0)
    for number in range(count):
        history = cluster.node(f"n{number}").history
        for second in range(10):
            history.add(1000.0 + second, {"gpu_util": float(number), "power": float(number)})
    return cluster


async def test_the_history_of_all_nodes_is_their_mean_and_of_power_their_sum() -> None:
    cluster = measured(3)
    cluster.node("silent")
    (first, *_) = await cluster.whole_history("gpu_util", 10, 10, 1009.5)
    assert first == {"at": 1000.0, "mean": 1.0, "low": 0.0, "high": 2.0}
    (first, *_) = await cluster.whole_history("power", 10, 10, 1009.5)
    assert (first["mean"], first["high"]) == (3.0, 3.0)
    assert cluster.history("n2", "power", 10, 10, 1009.5)[0]["mean"] == 2.0
    assert await cluster.whole_history("no such", 10, 10, 1009.5) == []


async def test_a_long_history_lets_others_have_their_turn() -> None:
    cluster, turns = measured(10 * AT_ONCE), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await cluster.whole_history("gpu_util", 10, 10, 1009.5)
    task.cancel()
    assert turns >= 10
