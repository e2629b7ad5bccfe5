"""Reading one GPU through NVML.

Cost at 1 Hz, with eight GPUs, is to stay below 1 % of a core. Most calls take microseconds; the ones
that do not are treated apart: totals of ECC errors and the power limit hardly change and are read every
10 s, PCIe rates come from counters where the driver has them (nvml_links.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

import pynvml

from agents.node.telemetry.nvml_links import Direction, LinkMeter
from agents.node.telemetry.source import blank_sample
from jobs.wire.messages import GpuFacts, GpuSample, ProcessSample

SLOW_INTERVAL = 10.0  # seconds between readings of what hardly changes

# Answers that mean "this GPU does not tell", as opposed to "this GPU is in trouble".
UNAVAILABLE = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_NOT_READY,
        pynvml.NVML_ERROR_INSUFFICIENT_SIZE,  # more processes came while they were listed
        pynvml.NVML_ERROR_DEPRECATED,
    }
)

# After these the whole driver has to be asked anew.
DISCONNECTED = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)

# nvmlClocksEventReasons*; idling and clocks that someone set are no throttling.
THROTTLE_WORDS = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "thermal (software)",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "thermal (hardware)",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}


class _Slow(TypedDict):
    power_limit: float | None
    ecc_errors: int | None
    ecc_corrected: int | None


@dataclass(slots=True)
class Device:
    """A GPU that was seen once. `handle` is None while the driver does not show it."""

    facts: GpuFacts
    handle: Any | None
    links: LinkMeter
    xid: int | None = None
    slow: _Slow | None = None
    slow_until: float = field(default=0.0)  # monotonic seconds

    def sample(self, now: float, turn: Direction | None) -> GpuSample:
        """Read it; `turn` is that of LinkMeter.read. Raises NVMLError when the connection to the
        driver is gone (DISCONNECTED); any other trouble is told in the sample's `error`."""
        sample = blank_sample(self.facts)
        sample["xid"] = self.xid
        if self.handle is None:
            sample["error"] = "the driver does not show this GPU"
            return sample
        reader = Reader(self.handle)
        try:
            self._read(reader, sample, now, turn)
        except pynvml.NVMLError as error:
            if error.value in DISCONNECTED:
                raise
            reader.trouble = str(error)
        sample["error"] = reader.trouble
        return sample

    def _read(self, reader: Reader, sample: GpuSample, now: float, turn: Direction | None) -> None:
        get = reader.get
        util = get(pynvml.nvmlDeviceGetUtilizationRates)
        sample["util"] = None if util is None else float(util.gpu)
        used_total = read_memory(reader)
        if used_total is not None:
            sample["mem_used"], sample["mem_total"] = used_total
        power = get(pynvml.nvmlDeviceGetPowerUsage)  # milliwatts
        sample["power"] = None if power is None else power / 1000
        temp = get(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
        sample["temp"] = None if temp is None else float(temp)
        sample["sm_clock"] = get(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM)
        sample["mem_clock"] = get(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM)
        sample["throttle"] = throttle_words(read_clock_reasons(reader) or 0)
        sample["processes"] = read_processes(reader, self.facts["uuid"])
        if self.slow is None or now >= self.slow_until:
            self.slow = _read_slow(reader)
            self.slow_until = now + SLOW_INTERVAL
        sample["power_limit"] = self.slow["power_limit"]
        sample["ecc_errors"] = self.slow["ecc_errors"]
        sample["ecc_corrected"] = self.slow["ecc_corrected"]
        rates = self.links.read(reader.get, now, turn)
        sample["pcie_rx"], sample["pcie_tx"] = rates.pcie_rx, rates.pcie_tx
        sample["nvlink_rx"], sample["nvlink_tx"] = rates.nvlink_rx, rates.nvlink_tx


class Reader:
    """Calls NVML for one GPU and sorts the errors.

    `get` gives None for what the driver does not tell. A lost GPU and a gone driver raise, since all
    further calls would only cost time; other trouble is kept in `trouble` (the first of it).
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.trouble = ""

    def get(self, call: Callable[..., Any], *args: Any) -> Any | None:
        try:
            return call(self._handle, *args)
        except pynvml.NVMLError as error:
            if error.value in DISCONNECTED or error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
                raise
            if error.value not in UNAVAILABLE and not self.trouble:
                self.trouble = str(error)
            return None


def read_memory(reader: Reader) -> tuple[int, int] | None:
    """Bytes used and total. The second version of the call leaves out what the driver reserves, as
    nvidia-smi does; drivers before 510 have the first only."""
    memory = reader.get(pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2)
    if memory is None:
        memory = reader.get(pynvml.nvmlDeviceGetMemoryInfo)
    return None if memory is None else (int(memory.used), int(memory.total))


def read_memory_total(handle: Any) -> int:
    """Bytes; 0 where the GPU shares the host's memory. Raises NVMLError when the GPU is lost."""
    used_total = read_memory(Reader(handle))
    return used_total[1] if used_total is not None else 0


def read_clock_reasons(reader: Reader) -> int | None:
    reasons = reader.get(pynvml.nvmlDeviceGetCurrentClocksEventReasons)
    if reasons is None:  # the name before driver 535
        reasons = reader.get(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    return reasons


def throttle_words(mask: int) -> list[str]:
    return [word for bit, word in THROTTLE_WORDS.items() if mask & bit]


def read_processes(reader: Reader, uuid: str) -> list[ProcessSample]:
    """Compute and graphics processes, each once; memory 0 where the driver does not tell it."""
    memory: dict[int, int] = {}
    for call in (
        pynvml.nvmlDeviceGetComputeRunningProcesses_v3,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
    ):
        for process in reader.get(call) or ():
            memory[process.pid] = max(memory.get(process.pid, 0), process.usedGpuMemory or 0)
    return [ProcessSample(pid=pid, gpu=uuid, memory=used) for pid, used in sorted(memory.items())]


def _read_slow(reader: Reader) -> _Slow:
    limit = reader.get(pynvml.nvmlDeviceGetEnforcedPowerLimit)  # milliwatts

    def ecc(kind: int) -> int | None:
        volatile = pynvml.NVML_VOLATILE_ECC  # since the driver was loaded
        count: int | None = reader.get(pynvml.nvmlDeviceGetTotalEccErrors, kind, volatile)
        return count

    return _Slow(
        power_limit=None if limit is None else limit / 1000,
        ecc_errors=ecc(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        ecc_corrected=ecc(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
    )
