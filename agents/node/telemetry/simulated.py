"""GPUs for machines that have none: chosen explicitly, marked as simulated wherever they are shown.

Nothing is random. A simulated GPU shows what the ranks bound to it really do on the CPU, through fixed
formulas (u is utilisation, 0 to 100):

    utilisation   CPU time of the ranks and their descendants since the last sample; one busy core is 100
    memory        their resident memory
    power         60 W + 2.4 W x u, that is 300 W when busy
    temperature   35 degrees + 0.4 x u, that is 75 when busy
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence

from agents.node.telemetry.processes import Process, process_table, trees
from agents.node.telemetry.source import blank_sample
from jobs.wire.messages import GpuFacts, GpuSample, ProcessSample

PREFIX = "SIM-"
"""What the ids of simulated GPUs begin with."""
MEMORY = 16 * 2**30  # bytes
IDLE_POWER, BUSY_POWER = 60.0, 300.0  # watts
IDLE_TEMP, BUSY_TEMP = 35.0, 75.0  # degrees Celsius

CpuTimes = dict[tuple[int, int], float]  # (pid, start) -> CPU seconds


class SimulatedGpus:
    """A GpuSource of `count` GPUs.

    Args:
        count: how many.
        node: what UUIDs derive from, so that they are the same after a restart of the agent.
        clock: monotonic seconds.
        table: the processes of this machine by pid.
    """

    def __init__(
        self,
        count: int,
        node: str,
        clock: Callable[[], float] = time.monotonic,
        table: Callable[[], dict[int, Process]] = process_table,
    ) -> None:
        stable = hashlib.sha256(node.encode()).hexdigest()[:8]
        self._facts = [
            GpuFacts(
                index=index,
                uuid=f"{PREFIX}{stable}-{index}",
                model="Simulated GPU",
                memory=MEMORY,
                simulated=True,
            )
            for index in range(count)
        ]
        self._clock = clock
        self._table = table
        self._sampled_at: float | None = None
        self._cpu: dict[str, CpuTimes] = {}

    def facts(self) -> list[GpuFacts]:
        return list(self._facts)

    def driver(self) -> tuple[str, str]:
        return "", ""

    def problems(self) -> list[str]:
        return []

    def close(self) -> None:
        self._cpu.clear()

    def sample(self, bound: Mapping[str, Sequence[int]]) -> list[GpuSample]:
        now = self._clock()
        elapsed = now - self._sampled_at if self._sampled_at is not None else 0.0
        table = self._table() if any(bound.values()) else {}
        samples = []
        for facts in self._facts:
            uuid = facts["uuid"]
            processes = trees(table, bound.get(uuid, ()))
            cpu = {(p.pid, p.started): p.cpu for p in processes}
            util = utilisation(self._cpu.get(uuid, {}), cpu, elapsed)
            self._cpu[uuid] = cpu
            samples.append(_sample(facts, util, processes))
        self._sampled_at = now
        return samples


def utilisation(before: CpuTimes, after: CpuTimes, elapsed: float) -> float:
    """CPU time used between two readings, as a percentage of one core, at most 100.

    A process that is new counts from its next reading on: when it began is not known well enough.
    """
    if elapsed <= 0:
        return 0.0
    used = sum(cpu - before[name] for name, cpu in after.items() if name in before)
    return min(100.0, max(0.0, 100.0 * used / elapsed))


def _sample(facts: GpuFacts, util: float, processes: list[Process]) -> GpuSample:
    sample = blank_sample(facts)
    sample["util"] = round(util, 1)
    sample["mem_used"] = min(facts["memory"], sum(process.rss for process in processes))
    sample["power"] = round(IDLE_POWER + (BUSY_POWER - IDLE_POWER) * util / 100, 1)
    sample["power_limit"] = BUSY_POWER
    sample["temp"] = round(IDLE_TEMP + (BUSY_TEMP - IDLE_TEMP) * util / 100, 1)
    sample["processes"] = [
        ProcessSample(pid=process.pid, gpu=facts["uuid"], memory=process.rss)
        for process in processes
    ]
    return sample
