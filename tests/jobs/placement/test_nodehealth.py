"""When a node is quarantined, and what was acknowledged."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.placement.nodehealth import (
    UNREADABLE,
    WINDOW,
    Acknowledged,
    KnownFaults,
    Loss,
    gpu_faults,
    losing_nodes,
)
from jobs.wire.messages import GpuSample

NOW = 1_000_000.0


def gpu(index: int = 0, **changes: Any) -> GpuSample:
    fields = dict.fromkeys(GpuSample.__annotations__)
    values = {"index": index, "uuid": f"G{index}", "error": "", "ecc_errors": 0}
    return GpuSample(**{**fields, **values, **changes})  # type: ignore[typeddict-item]


def after_noting(*gpus: GpuSample) -> Acknowledged:
    return Acknowledged(NOW).noting(gpus)


@pytest.mark.parametrize(
    ("sample", "faults"),
    [
        (gpu(), []),
        (gpu(ecc_errors=None), []),
        (gpu(3, xid=79), ["GPU 3: Xid 79: it has fallen off the bus"]),
        (gpu(xid=31), []),  # the program's own fault
        (gpu(xid=94), []),  # an error that only one program had to pay for
        (gpu(ecc_errors=1), ["GPU 0: 1 uncorrected ECC error"]),
        (
            gpu(xid=48, ecc_errors=2),
            ["GPU 0: Xid 48: a double-bit ECC error, 2 uncorrected ECC errors"],
        ),
    ],
)
def test_faults_of_gpus(sample: GpuSample, faults: list[str]) -> None:
    assert gpu_faults([sample], Acknowledged(), {}) == faults


def test_a_gpu_that_cannot_be_read_for_a_moment_is_no_fault() -> None:
    lost = gpu(error="GPU is lost")
    assert gpu_faults([lost], Acknowledged(), {}) == []
    assert gpu_faults([lost], Acknowledged(), {"G0": UNREADABLE - 1}) == []
    assert gpu_faults([gpu(1), lost], Acknowledged(), {"G0": UNREADABLE}) == [
        "GPU 0: it cannot be read: GPU is lost"
    ]
    assert gpu_faults([gpu()], Acknowledged(), {"G0": UNREADABLE}) == []


def test_what_was_pardoned_is_no_fault_and_what_comes_after_is() -> None:
    acknowledged = after_noting(gpu(xid=79, ecc_errors=2), gpu(1), gpu(2, error="lost"))
    assert set(acknowledged.gpus) == {"G0", "G2"}
    long = {"G0": 99.0, "G2": 99.0}
    assert gpu_faults([gpu(xid=79, ecc_errors=2), gpu(2, error="lost")], acknowledged, long) == []
    assert gpu_faults([gpu(xid=48, ecc_errors=2)], acknowledged, {}) == [
        "GPU 0: Xid 48: a double-bit ECC error"
    ]
    assert gpu_faults([gpu(xid=79, ecc_errors=3)], acknowledged, {}) == [
        "GPU 0: 1 uncorrected ECC error"
    ]
    assert gpu_faults([gpu(2, error="gone")], acknowledged, long) == [
        "GPU 2: it cannot be read: gone"
    ]
    assert len(gpu_faults([gpu(1, xid=79)], acknowledged, {})) == 1, "another GPU"


def test_a_pardon_is_over_when_what_it_was_for_is() -> None:
    acknowledged = after_noting(gpu(xid=79, ecc_errors=2, error="lost"))
    assert acknowledged.renewed([gpu(xid=79, ecc_errors=5, error="lost")]) == acknowledged
    # The agent was restarted: it has seen no Xid. The driver could not be asked for its count.
    after = acknowledged.renewed([gpu(ecc_errors=None, error="lost")])
    assert after.gpus == {"G0": KnownFaults(None, 2, "lost")}
    assert gpu_faults([gpu(xid=79, error="lost")], after, {}) != []
    # A new driver counts anew.
    assert acknowledged.renewed([gpu(ecc_errors=0)]) == Acknowledged(NOW)
    assert acknowledged.renewed([]) == acknowledged, "a GPU that is not shown"


def test_faults_that_come_and_go_while_a_node_is_quarantined_are_pardoned_too() -> None:
    acknowledged = after_noting(gpu(ecc_errors=2)).noting(
        [gpu(xid=79, ecc_errors=None, error="lost")]
    )
    assert acknowledged.gpus == {"G0": KnownFaults(79, 2, "lost")}
    acknowledged = acknowledged.noting([gpu(xid=79, ecc_errors=4)])
    assert acknowledged.gpus == {"G0": KnownFaults(79, 4, "")}
    assert acknowledged.noting([gpu()]) == Acknowledged(NOW)


def test_a_pardon_is_read_back() -> None:
    acknowledged = after_noting(gpu(xid=79, ecc_errors=2))
    assert Acknowledged.from_json(acknowledged.to_json()) == acknowledged
    assert Acknowledged.from_json(None) == Acknowledged()


def losses(node: str, *jobs: int, at: float = NOW - 600, apart: float = 61) -> list[Loss]:
    return [Loss(node, job, at + apart * n) for n, job in enumerate(jobs)]


NODES = ["n1", "n2", "n3"]


@pytest.mark.parametrize(
    ("lost", "nodes", "losing"),
    [
        (
            losses("n1", 1, 2, 3),
            NODES,
            {"n1": "it lost gangs 3 times within an hour, of j1, j2 and j3"},
        ),
        (
            losses("n1", 1, 1, 2),
            NODES,
            {"n1": "it lost gangs 3 times within an hour, of j1 and j2"},
        ),
        (losses("n1", 1, 2), NODES, {}),
        (losses("n1", 1, 1, 1), NODES, {}),  # the job's doing, perhaps
        (losses("n1", 1, 2, 3, at=NOW - WINDOW - 200), NODES, {}),
        # A node with many small jobs was switched off, once and twice.
        (losses("n1", *range(8), apart=3), NODES, {}),
        (losses("n1", *range(8), apart=3) + losses("n1", 1, 2, at=NOW - 90, apart=0), NODES, {}),
        (losses("n9", 1, 2, 3), NODES, {}),  # it has left the cluster
        # Nearly all of them at once: not the nodes' doing.
        (losses("n1", 1, 2, 3) + losses("n2", 4, 5, 6), NODES, {}),
        (losses("n1", 1, 2, 3), ["n1"], {}),
        (losses("n1", 1, 2), [], {}),
    ],
)
def test_nodes_that_lose_gangs(lost: list[Loss], nodes: list[str], losing: dict[str, str]) -> None:
    assert losing_nodes(lost, nodes, {}, NOW) == losing


def test_losses_before_a_pardon_do_not_count() -> None:
    lost = losses("n1", 1, 2, 3, at=NOW - 200)
    assert losing_nodes(lost, NODES, {"n1": Acknowledged(NOW - 190)}, NOW) == {}
    assert set(losing_nodes(lost, NODES, {"n1": Acknowledged(NOW - 210)}, NOW)) == {"n1"}
