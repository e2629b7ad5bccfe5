"""The real GPUs of a node, through NVML.

The driver may be missing, may be restarted under us, and single GPUs may fall off the bus. A GPU that
was seen once stays in `facts()`, and its samples say what is wrong with it; the connection is made
again after a pause that doubles with each failure.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence

import pynvml

from agents.node.telemetry.nvml_device import DISCONNECTED, Device, read_memory_total
from agents.node.telemetry.nvml_links import LinkMeter, Turns
from agents.node.telemetry.nvml_xid import XidWatch, address, graver
from agents.node.telemetry.source import blank_sample
from jobs.wire.messages import GpuFacts, GpuSample

FIRST_RETRY, LAST_RETRY = 1.0, 60.0  # seconds
# A lost GPU comes back only after a reset or a reboot, and asking the driver anew may take seconds.
LOST_RETRY = 300.0


class NvmlGpus:
    """A GpuSource on NVML.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._devices: dict[str, Device] = {}  # by UUID
        self._by_handle: dict[int, Device] = {}
        self._turns = Turns()
        self._xids: XidWatch | None = None
        self._connected = False
        self._driver = ("", "")
        self._trouble = ""  # of the driver
        self._skipped: list[str] = []  # GPUs that are not offered, and why
        self._retry = FIRST_RETRY
        self._due = -math.inf  # when to connect (again); infinite while all is well
        self._connect_if_due()

    def facts(self) -> list[GpuFacts]:
        self._connect_if_due()
        return [device.facts for device in self._ordered()]

    def driver(self) -> tuple[str, str]:
        self._connect_if_due()
        return self._driver

    def problems(self) -> list[str]:
        lost = [
            f"GPU {device.facts['index']} ({uuid}) is not shown by the driver"
            for uuid, device in self._devices.items()
            if self._connected and device.handle is None
        ]
        return [*([self._trouble] if self._trouble else []), *self._skipped, *lost]

    def sample(self, bound: Mapping[str, Sequence[int]]) -> list[GpuSample]:
        """See GpuSource. `bound` is not used: the driver knows which processes use a GPU."""
        self._connect_if_due()
        now = self._clock()
        devices = self._ordered()
        if self._connected:
            try:
                return self._sample(devices, now)
            except pynvml.NVMLError as error:
                self._fail(error)
        return [blank_sample(device.facts, self._trouble) for device in devices]

    def close(self) -> None:
        self._disconnect()
        self._due = math.inf

    def _ordered(self) -> list[Device]:
        return sorted(self._devices.values(), key=lambda d: (d.facts["index"], d.facts["uuid"]))

    def _sample(self, devices: list[Device], now: float) -> list[GpuSample]:
        if self._xids is not None:
            for handle, xid in self._xids.poll():
                if handle in self._by_handle:
                    device = self._by_handle[handle]
                    device.xid = graver(device.xid, xid)
        turn = self._turns.next(len(devices), now)
        samples = [
            device.sample(now, turn[1] if turn is not None and turn[0] == position else None)
            for position, device in enumerate(devices)
        ]
        self._retry = FIRST_RETRY
        if any(sample["error"] for sample in samples):
            self._due = min(self._due, now + LOST_RETRY)
        return samples

    def _connect_if_due(self) -> None:
        if self._clock() < self._due:
            return
        self._disconnect()
        try:
            pynvml.nvmlInit()
            self._connected = True
            self._enumerate()
        except pynvml.NVMLError as error:
            self._fail(error)
            return
        self._trouble = ""
        self._due = self._clock() + LOST_RETRY if self._skipped else math.inf

    def _enumerate(self) -> None:
        cuda = pynvml.nvmlSystemGetCudaDriverVersion()
        version = f"{cuda // 1000}.{cuda % 1000 // 10}"
        self._driver = (pynvml.nvmlSystemGetDriverVersion(), version)
        self._skipped = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                self._add(index)
            except pynvml.NVMLError as error:
                if error.value in DISCONNECTED:
                    raise
                self._skipped.append(f"GPU {index} cannot be used: {error}")
        self._by_handle = {
            address(device.handle): device
            for device in self._devices.values()
            if device.handle is not None
        }
        self._xids = XidWatch(device.handle for device in self._by_handle.values())

    def _add(self, index: int) -> None:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        if mig_enabled(handle):
            self._devices.pop(uuid, None)
            self._skipped.append(
                f"GPU {index} is split by MIG, which is not supported: not offered"
            )
            return
        known = self._devices.get(uuid)
        facts = GpuFacts(
            index=index,
            uuid=uuid,
            model=pynvml.nvmlDeviceGetName(handle),
            memory=read_memory_total(handle),
            simulated=False,
        )
        self._devices[uuid] = Device(
            facts, handle, LinkMeter(self._turns), xid=known.xid if known is not None else None
        )

    def _disconnect(self) -> None:
        if self._xids is not None:
            self._xids.close()
            self._xids = None
        for device in self._devices.values():
            device.handle = None
        self._by_handle.clear()
        if self._connected:
            self._connected = False
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _fail(self, error: pynvml.NVMLError) -> None:
        """The driver did not answer: try again later."""
        self._disconnect()
        self._due = self._clock() + self._retry
        self._retry = min(LAST_RETRY, self._retry * 2)
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND and not self._devices:
            self._trouble = ""  # a node without GPUs
        elif error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            # The library that this process loaded stays loaded, so asking again cannot help.
            self._trouble = (
                "NVML: the driver was updated meanwhile; restart the agent (or the node)"
            )
        else:
            self._trouble = f"NVML: {error}"


def mig_enabled(handle: object) -> bool:
    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError as error:
        if error.value in DISCONNECTED or error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
            raise
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)
