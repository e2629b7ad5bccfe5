"""Where GPU facts and samples come from."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Protocol

from jobs.base.errors import InvalidInput
from jobs.wire.messages import GpuFacts, GpuSample


class GpuSource(Protocol):
    """The GPUs of one node. No call raises for a GPU or driver in trouble; calls may block (a failing
    GPU can hold the driver for seconds), so an event loop makes them from a thread, one at a time."""

    def facts(self) -> list[GpuFacts]:
        """GPUs that jobs may be given, by index. One that was seen stays, even when it is lost."""
        ...

    def sample(self, bound: Mapping[str, Sequence[int]]) -> list[GpuSample]:
        """One sample for each GPU of `facts()`, in the same order.

        Args:
            bound: GPU UUID -> process ids of the ranks that it was allotted to.
        """
        ...

    def driver(self) -> tuple[str, str]:
        """Versions of the driver and of the newest CUDA that it runs ("570.86", "12.8"), or empty."""
        ...

    def problems(self) -> list[str]:
        """What is wrong with the source as a whole, in words; empty on a node without a driver."""
        ...

    def close(self) -> None:
        """Let go of the driver. The source is not used afterwards."""
        ...


def open_gpus(simulate: int | None, node: str | None = None) -> GpuSource:
    """The GPUs of this node.

    Args:
        simulate: None for the real ones (none at all without a driver), otherwise how many simulated
            GPUs to show instead.
        node: name that the UUIDs of simulated GPUs derive from; the host's name by default.

    Raises InvalidInput for a negative number.
    """
    if simulate is None:
        from agents.node.telemetry.nvml import NvmlGpus

        return NvmlGpus()
    if simulate < 0:
        raise InvalidInput(f"cannot simulate {simulate} GPUs", "Give 0 or more.")
    from agents.node.telemetry.simulated import SimulatedGpus

    return SimulatedGpus(simulate, node or platform.node())


def blank_sample(facts: GpuFacts, error: str = "") -> GpuSample:
    """A sample that knows nothing but the GPU's identity."""
    return GpuSample(
        index=facts["index"],
        uuid=facts["uuid"],
        model=facts["model"],
        simulated=facts["simulated"],
        util=None,
        mem_used=None,
        mem_total=facts["memory"],
        power=None,
        power_limit=None,
        temp=None,
        sm_clock=None,
        mem_clock=None,
        throttle=[],
        ecc_errors=None,
        ecc_corrected=None,
        xid=None,
        pcie_rx=None,
        pcie_tx=None,
        nvlink_rx=None,
        nvlink_tx=None,
        processes=[],
        error=error,
    )
