"""How much a GPU moves over PCIe and NVLink, in bytes per second.

PCIe. Newer drivers count bytes: two field values, well below a millisecond. On the others there is only
nvmlDeviceGetPcieThroughput, which watches the bus for some 20 ms in each direction. So that eight GPUs
do not hold the sampler for a third of each second, one direction of one GPU is read in a sample, and
not before the CPU time that the last such reading took has become 1 % of the time since. The other
values are repeated meanwhile.

NVLink. Counters of payload in KiB over all links of the GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pynvml

from agents.node.telemetry.sampler import rate

Direction = Literal["rx", "tx"]
Get = Callable[..., Any]  # Reader.get: a call's answer, None when the driver does not tell

ALL_LINKS = 0xFFFFFFFF  # scope of the NVLink fields: the sum
FIELDS = (
    pynvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES,
    pynvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
    (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, ALL_LINKS),
    (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, ALL_LINKS),
)
UNITS = (1, 1, 1024, 1024)  # bytes per count
# 64-bit counters only: at 50 GB/s a 32-bit one passes its end a dozen times a second.
WIDE = {
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
}
BUDGET = 0.01  # share of one core that nvmlDeviceGetPcieThroughput may take


@dataclass(frozen=True, slots=True)
class LinkRates:
    pcie_rx: float | None = None
    pcie_tx: float | None = None
    nvlink_rx: float | None = None
    nvlink_tx: float | None = None


class Turns:
    """Which GPU may make the expensive call in a sample, and when; shared by all GPUs of a node."""

    def __init__(self, cpu_clock: Callable[[], float] = time.thread_time) -> None:
        self._cpu_clock = cpu_clock
        self._count = -1
        self._not_before = -math.inf

    def next(self, gpus: int, now: float) -> tuple[int, Direction] | None:
        """Position of the GPU, of so many, and the direction to read; None: nobody this time."""
        if gpus == 0 or now < self._not_before:
            return None
        self._count += 1
        gpu, direction = divmod(self._count % (2 * gpus), 2)
        return gpu, "tx" if direction else "rx"

    def spend(self, now: float, call: Callable[[], Any]) -> Any:
        """Make the call and see to it that the next one waits until it has paid off."""
        started = self._cpu_clock()
        answer = call()
        self._not_before = now + (self._cpu_clock() - started) / BUDGET
        return answer


class LinkMeter:
    """Rates of one GPU."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._counts: list[int | None] = [None] * len(FIELDS)
        self._counted_at = -math.inf
        self._measured: dict[Direction, float] = {}

    def read(self, get: Get, now: float, turn: Direction | None) -> LinkRates:
        """Rates since the last call.

        Args:
            get: makes an NVML call for this GPU, None when the driver does not tell.
            now: monotonic seconds.
            turn: the direction that may be measured the expensive way in this sample.
        """
        counts = read_counts(get)
        before, elapsed = self._counts, now - self._counted_at
        self._counts, self._counted_at = counts, now
        pcie_rx, pcie_tx, nvlink_rx, nvlink_tx = (
            None if old is None or new is None or new < old else rate(old, new, elapsed)
            for old, new in zip(before, counts, strict=True)
        )
        if counts[0] is None and counts[1] is None:
            if turn is not None:
                self._measure(get, now, turn)
            pcie_rx, pcie_tx = self._measured.get("rx"), self._measured.get("tx")
        return LinkRates(pcie_rx, pcie_tx, nvlink_rx, nvlink_tx)

    def _measure(self, get: Get, now: float, turn: Direction) -> None:
        counter = pynvml.NVML_PCIE_UTIL_RX_BYTES if turn == "rx" else pynvml.NVML_PCIE_UTIL_TX_BYTES
        kilobytes = self._turns.spend(now, lambda: get(pynvml.nvmlDeviceGetPcieThroughput, counter))
        if kilobytes is None:
            self._measured.pop(turn, None)
        else:
            self._measured[turn] = kilobytes * 1000.0


def read_counts(get: Get) -> list[int | None]:
    """Bytes since the driver was loaded, as FIELDS orders them."""
    values = get(pynvml.nvmlDeviceGetFieldValues, FIELDS)
    if values is None:
        return [None] * len(FIELDS)
    return [
        getattr(value.value, WIDE[value.valueType]) * unit
        if value.nvmlReturn == pynvml.NVML_SUCCESS and value.valueType in WIDE
        else None
        for value, unit in zip(values, UNITS, strict=True)
    ]
