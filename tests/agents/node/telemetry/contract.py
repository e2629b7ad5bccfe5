"""The contract of a `GpuSource`, held by the driver's and by the simulated one."""

from __future__ import annotations

import os

from agents.node.telemetry.source import GpuSource
from jobs.wire.messages import GpuFacts, GpuSample


def keeps(source: GpuSource, gpus: int) -> None:
    """Raises AssertionError where a source of so many GPUs does not keep to it. Closes the source."""
    facts = source.facts()
    assert len(facts) == gpus
    assert facts == source.facts(), "what jobs may be given does not change by being asked for"
    assert [fact["index"] for fact in facts] == sorted({fact["index"] for fact in facts})
    assert len({fact["uuid"] for fact in facts}) == gpus
    for fact in facts:
        assert fact.keys() >= GpuFacts.__required_keys__
        assert fact["memory"] > 0
    uuids = [fact["uuid"] for fact in facts]
    dead = 2**22 - 1  # no process has it
    for bound in ({}, {uuid: [os.getpid(), dead] for uuid in uuids}, {"GPU-nobody-has": [1]}):
        samples = source.sample(bound)
        assert [sample["uuid"] for sample in samples] == uuids, "one for each, in their order"
        for fact, sample in zip(facts, samples, strict=True):
            assert sample.keys() >= GpuSample.__required_keys__
            assert (sample["index"], sample["model"]) == (fact["index"], fact["model"])
            assert sample["simulated"] == fact["simulated"]
            assert sample["mem_total"] == fact["memory"]
            assert sample["util"] is None or 0 <= sample["util"] <= 100
            assert dead not in [process["pid"] for process in sample["processes"]]
    assert all(isinstance(word, str) for word in source.driver())
    assert len(source.driver()) == 2
    assert all(isinstance(problem, str) for problem in source.problems())
    source.close()
