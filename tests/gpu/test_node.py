"""What a node says of its GPUs against what nvidia-smi says."""

from __future__ import annotations

import pytest

from tests.gpu.conftest import GpuCluster, smi
from tests.integration.conftest import until

pytestmark = pytest.mark.ray
MIB = 2**20


def test_gpus_are_those_of_nvidia_smi(cluster: GpuCluster) -> None:
    rows = smi("index,uuid,name,memory.total,power.limit")
    gpus = cluster.gpus()
    assert [[str(gpu["index"]), gpu["uuid"], gpu["model"]] for gpu in gpus] == [
        row[:3] for row in rows
    ]
    for gpu, row in zip(gpus, rows, strict=True):
        assert not gpu["simulated"]
        assert gpu["mem_total"] / MIB == pytest.approx(float(row[3]), abs=1)
        assert gpu["power_limit"] == pytest.approx(float(row[4]), abs=1)


def test_an_idle_gpu_reads_as_nvidia_smi_reads_it(cluster: GpuCluster) -> None:
    def close() -> bool:
        rows = smi("memory.used,temperature.gpu,power.draw,clocks.sm,clocks.mem,utilization.gpu")
        for gpu, row in zip(cluster.gpus(), rows, strict=True):
            used, temp, power, sm, mem, util = map(float, row)
            if not (
                abs(gpu["mem_used"] / MIB - used) <= 64
                and abs(gpu["temp"] - temp) <= 2
                and abs(gpu["power"] - power) <= 15
                and abs(gpu["sm_clock"] - sm) <= 200
                and abs(gpu["mem_clock"] - mem) <= 50
                and abs(gpu["util"] - util) <= 10
            ):
                return False
        return True

    until(close, 20)


def test_counters_that_the_driver_has_are_read(cluster: GpuCluster) -> None:
    def read() -> bool:
        return all(
            gpu["pcie_rx"] is not None and gpu["ecc_errors"] is not None for gpu in cluster.gpus()
        )

    until(read, 20)
    assert [gpu["throttle"] for gpu in cluster.gpus() if "thermal" in gpu["throttle"]] == []


def test_doctor_and_status_find_nothing_to_say(cluster: GpuCluster) -> None:
    status = cluster.qd("status", "--json").json
    assert (status["state"], status["problems"]) == ("ok", [])
    assert status["cluster"]["simulated"] is False
    assert status["cluster"]["gpus"] == len(smi("index"))
    assert cluster.qd("doctor").code == 0
