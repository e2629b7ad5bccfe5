"""The node's newest measurements, taken once a second off the event loop."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol

from agents.node.staging import images
from agents.node.staging.preflight import Condition
from agents.node.staging.room import RESERVE
from agents.node.telemetry import GpuSource, memory
from jobs.base.units import format_size
from jobs.wire.messages import GpuFacts, NodeFacts, NodeSample

PERIOD = 1.0
"""Seconds from one sample to the next."""


class Samples(Protocol):
    """What takes a sample (`telemetry.Sampler`, or a fake)."""

    def sample(self, bound: Mapping[str, Sequence[int]], now: float) -> NodeSample: ...


class Meter:
    """Keeps the newest facts and sample of a node.

    Everything is asked for in one thread at a time, and a driver that hangs stalls telemetry only:
    what was known last stays.
    """

    def __init__(self, gpus: GpuSource, sampler: Samples, root: Path) -> None:
        self._gpus, self._sampler, self._root = gpus, sampler, root
        self.gpus: list[GpuFacts] = []
        self.sample: NodeSample | None = None
        self.problems: list[str] = []
        self._driver = ("", "")

    async def look(self) -> None:
        """Learn the facts."""
        await asyncio.to_thread(self._learn)

    def _learn(self) -> None:
        self.gpus, self._driver = self._gpus.facts(), self._gpus.driver()

    def _measure(self, bound: Mapping[str, Sequence[int]], now: float) -> list[str]:
        """All that a driver is asked each second, in one visit to a thread; its problems."""
        self.sample = self._sampler.sample(bound, now)
        self._learn()
        return self._gpus.problems()

    async def run(
        self, bound: Callable[[], Mapping[str, Sequence[int]]], told: Callable[[], None]
    ) -> None:
        """Measure for ever. `bound` tells which pids have which GPU; `told` is called after each."""
        while True:
            started = time.monotonic()
            problems: list[str] = []
            try:
                problems += await asyncio.to_thread(self._measure, bound(), time.time())
            except Exception as error:
                problems.append(f"telemetry: {error}")
            free = shutil.disk_usage(self._root).free
            if free < RESERVE:
                problems.append(f"disk: {format_size(free)} free at {self._root}")
            self.problems = problems
            told()
            await asyncio.sleep(max(0.1, PERIOD - (time.monotonic() - started)))

    def lost(self) -> list[str]:
        """UUIDs of GPUs that could not be read the last time."""
        return [gpu["uuid"] for gpu in self.sample["gpus"] if gpu["error"]] if self.sample else []

    def condition(self) -> Condition:
        """How the node is now, as far as GPUs were measured."""
        used, total = memory()
        return Condition(self.sample, total - used)

    def facts(self) -> NodeFacts:
        facts = NodeFacts(
            cpus=len(os.sched_getaffinity(0)),
            memory=memory()[1],
            gpus=self.gpus,
            driver=self._driver[0],
            cuda=self._driver[1],
            kernel=platform.release(),
            python=platform.python_version(),
            ray=installed("ray"),
        )
        if containers := images.available():
            facts["containers"] = containers
        return facts


def installed(package: str) -> str:
    """Version of an installed package, or an empty string."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
