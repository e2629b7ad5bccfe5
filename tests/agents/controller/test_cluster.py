"""What the controller says of nodes."""

from __future__ import annotations

from agents.controller.cluster import Cluster
from jobs.wire import NodeFacts

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
