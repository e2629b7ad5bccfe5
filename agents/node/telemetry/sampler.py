"""One sample of a node: CPU, memory, disk, network and its GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from agents.node.telemetry.source import GpuSource
from jobs.wire.messages import NodeSample


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters that only grow; what is shown is the difference between two readings."""

    at: float  # monotonic seconds
    cpu_busy: float  # seconds, summed over all cores
    cpu_total: float
    net_rx: int  # bytes
    net_tx: int


class Sampler:
    """Samples this node, about once a second.

    Args:
        gpus: where GPU samples come from; it stays the caller's to close.
        disk_path: the file system to tell of; it need not exist yet.
        clock: monotonic seconds, for rates.

    psutil's own `cpu_percent()` is not used: it remembers the last reading per thread, so that a pool
    of threads would be told 0 % again and again.
    """

    def __init__(
        self, gpus: GpuSource, disk_path: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gpus = gpus
        self._disk_path = disk_path
        self._clock = clock
        self._last = read_counters(clock())

    def sample(self, bound: Mapping[str, Sequence[int]], now: float) -> NodeSample:
        """Measure now. It may block as long as the GPU driver does, and may raise OSError when the
        host's own counters cannot be read.

        Args:
            bound: GPU UUID -> process ids of the ranks that it was allotted to.
            now: unix time, written into the sample.
        """
        counters = read_counters(self._clock())
        before, self._last = self._last, counters
        elapsed = counters.at - before.at
        mem_used, mem_total = memory()
        disk_used, disk_total = disk(self._disk_path)
        return NodeSample(
            at=now,
            cpu_util=cpu_util(before, counters),
            load=os.getloadavg()[0],
            mem_used=mem_used,
            mem_total=mem_total,
            disk_used=disk_used,
            disk_total=disk_total,
            net_rx=rate(before.net_rx, counters.net_rx, elapsed),
            net_tx=rate(before.net_tx, counters.net_tx, elapsed),
            gpus=self._gpus.sample(bound),
        )


def cpu_util(before: Counters, after: Counters) -> float:
    """Share of all cores that was busy between two readings, 0 to 100."""
    total = after.cpu_total - before.cpu_total
    if total <= 0:
        return 0.0
    return min(100.0, max(0.0, 100.0 * (after.cpu_busy - before.cpu_busy) / total))


def rate(before: int, after: int, elapsed: float) -> float:
    """Growth of a counter per second; 0 when it went backwards (it was reset, or a device left)."""
    return max(0, after - before) / elapsed if elapsed > 0 else 0.0


def read_counters(at: float) -> Counters:
    times = psutil.cpu_times()
    # On Linux guest time is counted in user time already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    cards = psutil.net_io_counters(pernic=True)
    counted = [cards[name] for name in network_cards(list(cards))]
    return Counters(
        at=at,
        cpu_busy=total - idle,
        cpu_total=total,
        net_rx=sum(card.bytes_recv for card in counted),
        net_tx=sum(card.bytes_sent for card in counted),
    )


def network_cards(names: Sequence[str], sys_net: Path = Path("/sys/class/net")) -> list[str]:
    """The interfaces to count: those with hardware behind them, so that a byte which passes a bridge
    and a bond is counted once. In a container there is none: then all but the loopback."""
    hardware = [name for name in names if (sys_net / name / "device").exists()]
    return hardware or [name for name in names if name != "lo"]


def disk(path: Path) -> tuple[int, int]:
    """Bytes used and total of the file system that holds `path` or will hold it; 0, 0 when it cannot
    be asked (an unmounted network share)."""
    existing = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    try:
        usage = psutil.disk_usage(str(existing))
    except OSError:
        return 0, 0
    return usage.used, usage.total


def memory(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Bytes used and total: the container's when it has a limit below the host's, else the host's.

    In a container "used" is the working set, as the kubelet counts it: what is charged to the cgroup
    less the page cache that can go at once.
    """
    host = psutil.virtual_memory()
    for limit_name, used_name, inactive in (
        ("memory.max", "memory.current", "inactive_file"),  # cgroup v2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit = int((cgroup / limit_name).read_text())  # "max" without a limit
            used = int((cgroup / used_name).read_text())
            stat = (cgroup / used_name).with_name("memory.stat").read_text()
        except (OSError, ValueError):
            continue
        if limit < host.total:
            cache = dict(line.split() for line in stat.splitlines() if line).get(inactive, 0)
            return max(0, used - int(cache)), limit
    return host.used, host.total
