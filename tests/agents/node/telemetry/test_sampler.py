"""The host's side of a sample, from counters and files that the tests write."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from agents.node.telemetry import Sampler, memory, open_gpus
from agents.node.telemetry.sampler import Counters, cpu_util, disk, network_cards, rate


def counters(busy: float = 0.0, total: float = 0.0) -> Counters:
    return Counters(at=0.0, cpu_busy=busy, cpu_total=total, net_rx=0, net_tx=0)


def test_a_sample_of_this_machine(tmp_path: Path) -> None:
    clock = iter([0.0, 1.0])
    gpus = open_gpus(2)
    sampler = Sampler(gpus, tmp_path / "not" / "there" / "yet", clock=lambda: next(clock))
    sample = sampler.sample({}, now=1_700_000_000.0)

    assert sample["at"] == 1_700_000_000.0
    assert 0.0 <= sample["cpu_util"] <= 100.0
    assert sample["load"] >= 0.0
    assert 0 < sample["mem_used"] < sample["mem_total"]
    assert 0 < sample["disk_used"] < sample["disk_total"]
    assert sample["net_rx"] >= 0.0 and sample["net_tx"] >= 0.0
    assert [gpu["uuid"] for gpu in sample["gpus"]] == [fact["uuid"] for fact in gpus.facts()]


def test_cpu_utilisation_is_of_all_cores() -> None:
    assert cpu_util(counters(10, 100), counters(15, 120)) == 25.0
    assert cpu_util(counters(10, 100), counters(10, 100)) == 0.0  # no tick between the two
    assert cpu_util(counters(10, 100), counters(9, 101)) == 0.0  # idle counters may step back


def test_rates() -> None:
    assert rate(100, 300, 2.0) == 100.0
    assert rate(300, 100, 2.0) == 0.0  # a card left, or its driver was loaded anew
    assert rate(100, 300, 0.0) == 0.0


def test_a_byte_is_counted_on_the_hardware_only(tmp_path: Path) -> None:
    names = ["lo", "eth0", "bond0", "docker0"]
    for name in names:
        (tmp_path / name).mkdir()
    assert network_cards(names, tmp_path) == ["eth0", "bond0", "docker0"]  # as in a container
    (tmp_path / "eth0" / "device").mkdir()
    assert network_cards(names, tmp_path) == ["eth0"]


def test_a_file_system_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(path: str) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(psutil, "disk_usage", stale)
    assert disk(Path("/")) == (0, 0)


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_memory_of_a_container(tmp_path: Path) -> None:
    mib = 2**20
    second = write(
        tmp_path / "v2",
        memory__max=f"{64 * mib}\n",
        memory__current=f"{40 * mib}\n",
        memory__stat=f"anon 1\ninactive_file {10 * mib}\n",
    )
    assert memory(second) == (30 * mib, 64 * mib)

    write(
        tmp_path / "v1" / "memory",
        memory__limit_in_bytes=f"{32 * mib}\n",
        memory__usage_in_bytes=f"{8 * mib}\n",
        memory__stat=f"inactive_file 0\ntotal_inactive_file {9 * mib}\n",
    )
    assert memory(tmp_path / "v1") == (0, 32 * mib)


def test_memory_without_a_limit_is_the_host_s(tmp_path: Path) -> None:
    host = psutil.virtual_memory().total
    unlimited = write(
        tmp_path / "v2", memory__max="max\n", memory__current="1\n", memory__stat="anon 1\n"
    )
    roomy = write(
        tmp_path / "v1" / "memory",
        memory__limit_in_bytes=f"{2**63 - 4096}\n",
        memory__usage_in_bytes="1\n",
        memory__stat="\n",
    )
    assert memory(unlimited)[1] == memory(roomy.parent)[1] == memory(tmp_path / "none")[1] == host
