"""The real pynvml against a stub of the driver's library (stub_nvml.c), each test in a process of its
own: pynvml keeps the library and its state for the whole process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.node.telemetry.nvml_links import Turns
from agents.node.telemetry.nvml_xid import graver

STUB = Path(__file__).with_name("stub_nvml.c")
GIB = 2**30

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc is needed to build the stub of libnvidia-ml.so.1"
)

PRELUDE = """
import json, os, sys
from pathlib import Path
from agents.node.telemetry.nvml import NvmlGpus

now = 1000.0
results = []

def state(**values):
    # `gpu0_util=3` is written as `0.util=3`
    lines = {k[3] + "." + k[5:] if k.startswith("gpu") else k: v for k, v in values.items()}
    temporary = Path(os.environ["STUB_NVML"] + ".new")
    temporary.write_text("".join(f"{k}={v}\\n" for k, v in lines.items()))
    temporary.rename(os.environ["STUB_NVML"])

def tick(seconds=1.0):
    global now
    now += seconds

def open_source():
    return NvmlGpus(clock=lambda: now)

def show(value):
    results.append(value)
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(output), str(STUB)],
        check=True,
        timeout=60,
    )
    return output.parent


class Runner:
    def __init__(self, library: Path, state: Path) -> None:
        self.library = library
        self.state = state

    def __call__(self, scenario: str) -> list[Any]:
        """Run a scenario and give what it showed."""
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + scenario + "\nprint(json.dumps(results))"],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(self.library),
                "STUB_NVML": str(self.state),
                "PYTHONPATH": str(STUB.parents[4]),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        shown: list[Any] = json.loads(done.stdout)
        return shown


@pytest.fixture
def run(library: Path, tmp_path: Path) -> Runner:
    return Runner(library, tmp_path / "state")


@pytest.mark.parametrize("gpus", [1, 3])
def test_it_keeps_to_the_contract(run: Runner, gpus: int) -> None:
    run(
        f"""
from tests.agents.node.telemetry.contract import keeps
state(count={gpus}, gpu0_util=37)
keeps(open_source(), {gpus})
"""
    )


def test_everything_that_a_healthy_gpu_tells(run: Runner) -> None:
    facts, driver, problems, first, second = run(
        """
state(count=2, gpu1_util=37, gpu1_mem_used=5 << 30, gpu1_power=351500, gpu1_temp=64,
      gpu1_reasons=0x4 | 0x40 | 0x1, gpu1_ecc_uncorrected=2, gpu1_ecc_corrected=5,
      gpu1_compute0=4242, gpu1_compute0_mem=7 << 30, gpu1_compute1=77, gpu1_graphics0=77,
      gpu1_pcie_rx=10**9, gpu1_pcie_tx=2 * 10**9, gpu1_nvlink_rx=1000, gpu1_nvlink_tx=1000)
gpus = open_source()
show(gpus.facts()); show(gpus.driver()); show(gpus.problems())
show(gpus.sample({}))
tick(2.0)
state(count=2, gpu1_pcie_rx=3 * 10**9, gpu1_pcie_tx=2 * 10**9, gpu1_nvlink_rx=3000, gpu1_nvlink_tx=0)
show(gpus.sample({}))
gpus.close()
"""
    )
    assert facts == [
        {"index": i, "uuid": f"GPU-{i}", "model": "NVIDIA Stub", "memory": 80 * GIB, "simulated": False}
        for i in (0, 1)
    ]  # fmt: skip
    assert driver == ["570.86.15", "12.8"]
    assert problems == []
    assert first[1] == {
        "index": 1,
        "uuid": "GPU-1",
        "model": "NVIDIA Stub",
        "simulated": False,
        "util": 37.0,
        "mem_used": 5 * GIB,
        "mem_total": 80 * GIB,
        "power": 351.5,
        "power_limit": 700.0,
        "temp": 64.0,
        "sm_clock": 1980,
        "mem_clock": 2619,
        "throttle": ["power cap", "thermal (hardware)"],
        "ecc_errors": 2,
        "ecc_corrected": 5,
        "xid": None,
        "pcie_rx": None,  # a rate needs two readings
        "pcie_tx": None,
        "nvlink_rx": None,
        "nvlink_tx": None,
        "processes": [
            {"pid": 77, "gpu": "GPU-1", "memory": 0},  # the driver does not tell its memory
            {"pid": 4242, "gpu": "GPU-1", "memory": 7 * GIB},
        ],
        "error": "",
    }
    assert first[0]["util"] == 0.0 and first[0]["throttle"] == []  # idling is no throttling
    rates = ("pcie_rx", "pcie_tx", "nvlink_rx", "nvlink_tx")
    # ... and a counter that went back (the driver was loaded anew) tells nothing
    assert [second[1][name] for name in rates] == [1e9, 0.0, 1000 * 1024, None]
    assert second[1]["ecc_errors"] == 2  # hardly changes: read every 10 s


def test_what_a_gpu_does_not_support_is_none(run: Runner) -> None:
    (sample,), (older,) = run(
        """
names = '''nvmlDeviceGetUtilizationRates nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetMemoryInfo
    nvmlDeviceGetPowerUsage nvmlDeviceGetEnforcedPowerLimit nvmlDeviceGetTemperature
    nvmlDeviceGetClockInfo nvmlDeviceGetTotalEccErrors nvmlDeviceGetCurrentClocksEventReasons
    nvmlDeviceGetCurrentClocksThrottleReasons nvmlDeviceGetPcieThroughput nvmlDeviceGetFieldValues
    nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetGraphicsRunningProcesses_v3
    nvmlDeviceGetMigMode nvmlDeviceGetSupportedEventTypes'''.split()
state(count=1, **{"gpu0_" + name: 3 for name in names})
show(open_source().sample({}))
state(count=1, gpu0_nvmlDeviceGetMemoryInfo_v2=13, gpu0_mem_used=2 << 30,
      gpu0_nvmlDeviceGetCurrentClocksEventReasons=13, gpu0_old_reasons=0x80)
show(open_source().sample({}))
"""
    )
    known = {
        "index": 0,
        "uuid": "GPU-0",
        "model": "NVIDIA Stub",
        "simulated": False,
        "mem_total": 0,
    }
    nothing = {"throttle": [], "processes": [], "error": ""}
    assert sample == {**dict.fromkeys(sample), **known, **nothing}
    # A driver from before the calls that are tried first.
    assert (older["mem_used"], older["throttle"]) == (3 * GIB, ["power brake"])


def test_a_lost_gpu_says_so_and_leaves_the_others_alone(run: Runner) -> None:
    (before, during, facts, reconnected, problems, after) = run(
        """
state(count=2, gpu0_util=10, gpu1_util=20)
gpus = open_source()
show(gpus.sample({}))
state(count=2, gpu0_all=15, gpu1_util=30)
tick()
show(gpus.sample({})); show(gpus.facts())
tick(300); gpus.sample({})  # the driver is asked anew
tick(); show(gpus.sample({})); show(gpus.problems())
state(count=2, gpu0_util=40, gpu1_util=40)
tick(300); show(gpus.sample({}))
"""
    )
    assert [gpu["util"] for gpu in before] == [10, 20]
    assert [(gpu["util"], gpu["error"]) for gpu in during] == [(None, "GPU is lost"), (30, "")]
    assert [fact["uuid"] for fact in facts] == ["GPU-0", "GPU-1"]
    assert [gpu["util"] for gpu in reconnected] == [None, 30]
    assert reconnected[0]["error"] == "the driver does not show this GPU"
    assert problems == [
        "GPU 0 cannot be used: GPU is lost",
        "GPU 0 (GPU-0) is not shown by the driver",
    ]
    assert [(gpu["util"], gpu["error"]) for gpu in after] == [(40, ""), (40, "")]


def test_trouble_with_one_reading_is_told_and_the_rest_is_shown(run: Runner) -> None:
    ((sample,),) = run(
        "state(count=1, gpu0_util=5, gpu0_nvmlDeviceGetPowerUsage=999); show(open_source().sample({}))"
    )
    assert (sample["util"], sample["power"], sample["error"]) == (5, None, "Unknown Error")


def test_a_driver_that_goes_away_and_comes_back(run: Runner) -> None:
    gone, problems, refused, still, tries, back, mended = run(
        """
import pynvml
state(count=1, gpu0_util=10)
gpus = open_source()
gpus.sample({})
state(count=1, all=1, nvmlInitWithFlags=9)  # uninitialised, then no driver loaded
show(gpus.sample({})); show(gpus.problems())
tick(1.5); show(gpus.sample({})); show(gpus.problems())

tries, real = 0, pynvml.nvmlInit
def counting():
    global tries
    tries += 1
    real()
pynvml.nvmlInit = counting
for _ in range(600):
    tick(); gpus.sample({})
show(tries)

state(count=1, gpu0_util=20)
tick(61); show(gpus.sample({})); show(gpus.problems())
"""
    )
    assert [(gpu["uuid"], gpu["util"], gpu["error"]) for gpu in gone] == [
        ("GPU-0", None, "NVML: Uninitialized")
    ]
    assert problems == ["NVML: Uninitialized"]
    assert refused[0]["error"] == "NVML: Driver Not Loaded"
    assert still == ["NVML: Driver Not Loaded"]
    assert tries <= 15  # 2, 4, 8 ... 60 seconds apart, not each second
    assert (back[0]["util"], back[0]["error"], mended) == (20, "", [])


def test_an_updated_driver_asks_for_a_restart(run: Runner) -> None:
    facts, problems = run(
        "state(nvmlInitWithFlags=18); g = open_source(); show(g.facts()); show(g.problems())"
    )
    assert facts == []
    assert "restart the agent" in problems[0]


def test_a_fatal_xid_is_not_hidden_by_those_that_follow_it() -> None:
    assert graver(None, 31) == 31
    assert graver(31, 79) == 79
    assert graver(79, 45) == 79
    assert graver(79, 48) == 48


def test_xid_events_are_kept_for_their_gpu(run: Runner) -> None:
    first, second, third = run(
        """
state(count=2, gpu0_event_types=0)
gpus = open_source()
show([gpu["xid"] for gpu in gpus.sample({})])
state(count=2, gpu1_xid=79, gpu1_xid_seq=1, gpu0_xid=13, gpu0_xid_seq=1)
tick(); show([gpu["xid"] for gpu in gpus.sample({})])
state(count=2, nvmlEventSetWait_v2=15)  # a lost GPU fails the whole set
tick(); show([gpu["xid"] for gpu in gpus.sample({})])
"""
    )
    assert first == [None, None]
    assert second == third == [None, 79]  # GPU 0 does not support events


def test_pcie_without_counters_is_measured_in_turns(run: Runner) -> None:
    shown, calls = run(
        """
import pynvml
calls = []
real = pynvml.nvmlDeviceGetPcieThroughput
def noted(handle, counter):
    calls.append(counter)
    return real(handle, counter)
pynvml.nvmlDeviceGetPcieThroughput = noted

# Counters of 32 bits (type 1) are no use: they wrap unseen.
state(count=2, gpu0_throughput_rx=1000, gpu0_throughput_tx=2000, gpu1_throughput_rx=3000,
      gpu1_throughput_tx=4000, gpu1_pcie_rx=5, gpu1_pcie_tx=5, gpu1_field_type=1)
gpus = open_source()
for _ in range(4):
    show([(gpu["pcie_rx"], gpu["pcie_tx"]) for gpu in gpus.sample({})])
    tick(1000)
results[:] = [list(results), len(calls)]
"""
    )
    assert shown == [
        [[1e6, None], [None, None]],
        [[1e6, 2e6], [None, None]],
        [[1e6, 2e6], [3e6, None]],
        [[1e6, 2e6], [3e6, 4e6]],
    ]
    assert calls == 4  # one a sample


def test_the_expensive_call_waits_until_it_has_paid_off() -> None:
    cpu = 0.0
    turns = Turns(cpu_clock=lambda: cpu)

    def costs_20_ms() -> str:
        nonlocal cpu
        cpu += 0.02
        return "answer"

    assert turns.next(0, 100.0) is None
    assert turns.next(2, 100.0) == (0, "rx")
    assert turns.spend(100.0, costs_20_ms) == "answer"
    assert turns.next(2, 101.0) is None
    assert turns.next(2, 102.01) == (0, "tx")  # 20 ms are 1 % of 2 s
    turns.spend(102.0, lambda: None)  # a driver that sleeps costs nothing
    assert [turns.next(2, 103.0 + i) for i in range(3)] == [(1, "rx"), (1, "tx"), (0, "rx")]


def test_a_gpu_split_by_mig_is_not_offered(run: Runner) -> None:
    facts, sample, problems = run(
        """
state(count=2, gpu0_mig=1)
gpus = open_source()
show([fact["uuid"] for fact in gpus.facts()]); show(len(gpus.sample({}))); show(gpus.problems())
"""
    )
    assert (facts, sample) == (["GPU-1"], 1)
    assert problems == ["GPU 0 is split by MIG, which is not supported: not offered"]


def test_a_node_without_a_driver_has_no_gpus_and_no_problem(run: Runner, tmp_path: Path) -> None:
    run.library = tmp_path
    script = """
import ctypes
try:
    ctypes.CDLL("libnvidia-ml.so.1")
    show("a real driver is installed")
except OSError:
    gpus = open_source()
    show([gpus.facts(), gpus.sample({}), gpus.problems(), gpus.driver()])
    gpus.close()
"""
    (shown,) = run(script)
    if isinstance(shown, str):
        pytest.skip(shown)
    assert shown == [[], [], [], ["", ""]]
