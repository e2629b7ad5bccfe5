"""The parts that decide: ledger, log index, shares, closed jobs, ports, configuration."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.node.attempts import job_of
from agents.node.config import AgentConfig
from agents.node.guard.closed import KEEP, ClosedJobs
from agents.node.logtail import MAX_LINE, TimeIndex, fair_shares, lost_bytes, read_lines
from agents.node.staging.ledger import Ledger
from agents.node.staging.ports import ephemeral_start, free_block
from jobs.base.errors import Conflict, InvalidInput

GPUS = ["A", "B", "C"]


def test_shares_go_where_they_leave_whole_gpus_whole() -> None:
    ledger = Ledger(GPUS)
    assert ledger.allot("1", 0.5) == ["A"]
    assert ledger.allot("2", 0.7) == ["B"]
    assert ledger.allot("3", 0.3) == ["B"], "the smallest gap that fits"
    assert ledger.allot("4", 1) == ["C"]
    with pytest.raises(Conflict, match=r"0\.6 of a GPU; the largest free share here is 0\.5"):
        ledger.allot("5", 0.6)
    with pytest.raises(Conflict, match="asks for 1 GPUs; 0 of 3 here are free"):
        ledger.allot("5", 1)
    ledger.release("2")
    ledger.release("3")
    assert ledger.allot("5", 1) == ["B"]


def test_what_is_allotted_is_given_again() -> None:
    ledger = Ledger(GPUS)
    assert ledger.allot("1", 2) == ledger.allot("1", 2) == ["A", "B"]


def test_ten_tenths_are_one() -> None:
    ledger = Ledger(["A"])
    for number in range(10):
        ledger.allot(str(number), 0.1)
    with pytest.raises(Conflict):
        ledger.allot("more", 0.0001)


def test_gpus_that_cannot_be_read_are_not_given() -> None:
    ledger = Ledger(GPUS)
    assert ledger.allot("1", 1, lost=["A"]) == ["B"]
    with pytest.raises(Conflict, match=r"1 of 3 here are free \(1 cannot be used\)"):
        ledger.allot("2", 2, lost=["A"])


@pytest.mark.parametrize("amount", [1.5, -1])
def test_amounts_that_make_no_sense(amount: float) -> None:
    with pytest.raises(InvalidInput):
        Ledger(GPUS).allot("1", amount)


def test_an_adopted_attempt_holds_its_gpus_even_one_that_is_gone() -> None:
    ledger = Ledger(GPUS)
    ledger.restore("1", ["A", "GONE"], 2)
    assert ledger.allot("2", 2) == ["B", "C"]
    ledger.know(["A", "B", "C", "D"])
    assert ledger.allot("3", 1) == ["D"]


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from([0, 0.1, 0.25, 0.5, 1, 2, 3])), max_size=30
    )
)
def test_no_gpu_is_ever_given_twice(steps: list[tuple[int, float]]) -> None:
    ledger = Ledger(GPUS)
    held: dict[str, tuple[list[str], float]] = {}
    for number, amount in steps:
        key = str(number)
        if key in held:
            ledger.release(key)
            del held[key]
            continue
        try:
            held[key] = (ledger.allot(key, amount), amount)
        except Conflict:
            continue
        for gpu in GPUS:
            used = sum(min(amount, 1) for gpus, amount in held.values() if gpu in gpus)
            assert used <= 1 + 1e-9


def test_times_cover_exactly_the_bytes_asked_for(tmp_path: Path) -> None:
    index = TimeIndex(tmp_path / "times")
    assert index.between(0, 10) == []
    assert [index.observe(size, at) for size, at in ((10, 1.0), (10, 2.0), (25, 3.0))] == [
        True,
        False,
        True,
    ]
    index.observe(30, 2.5)  # the clock was set back
    assert index.between(0, 30) == [(0, 1.0), (10, 3.0), (25, 3.0)]
    assert index.between(5, 11) == [(5, 1.0), (10, 3.0)]
    assert index.between(10, 25) == [(10, 3.0)]
    assert index.between(30, 40) == []


def test_times_survive_a_torn_last_mark(tmp_path: Path) -> None:
    path = tmp_path / "times"
    TimeIndex(path).observe(10, 1.0)
    with path.open("ab") as file:
        file.write(b"torn")
    index = TimeIndex(path)
    assert index.size == 10
    index.observe(12, 2.0)
    assert TimeIndex(path).between(0, 12) == [(0, 1.0), (10, 2.0)]


def test_a_log_is_told_without_times_when_they_cannot_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "full" / "times"
    index = TimeIndex(path)
    assert index.observe(10, 1.0)
    assert (index.size, index.between(0, 10)) == (10, [(0, 1.0)])
    path.parent.mkdir()  # there is room again
    index.observe(20, 2.0)
    assert TimeIndex(path).between(0, 20) == [(0, 2.0)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.data())
def test_times_are_found_at_any_offset(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    index = TimeIndex(tmp_path_factory.mktemp("index") / "times")
    seen: list[float] = []
    for number, size in enumerate(sizes):
        seen += [float(number)] * size
        index.observe(len(seen), float(number))
    start = data.draw(st.integers(0, len(seen) - 1))
    end = data.draw(st.integers(start + 1, len(seen)))
    times = index.between(start, end)
    assert times[0][0] == start
    told = dict(times)
    at = -1.0
    for offset in range(start, end):
        at = told.get(offset, at)
        assert at == seen[offset]


@pytest.mark.parametrize(
    ("needs", "budget", "shares"),
    [
        ([], 10, []),
        ([5, 100, 100], 25, [5, 10, 10]),
        ([1000, 1], 11, [10, 1]),
        ([3, 3], 100, [3, 3]),
        ([7], 0, [0]),
    ],
)
def test_small_needs_are_met_whole_and_the_rest_is_shared(
    needs: list[int], budget: int, shares: list[int]
) -> None:
    assert fair_shares(needs, budget) == shares


@given(st.lists(st.integers(0, 1000)), st.integers(0, 5000))
def test_shares_use_the_budget_and_no_more(needs: list[int], budget: int) -> None:
    shares = fair_shares(needs, budget)
    assert sum(shares) == min(budget, sum(needs))
    assert all(0 <= share <= need for share, need in zip(shares, needs, strict=True))


def test_lines_are_whole_and_at_least_one(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"aaaa\nbb\ncc")
    assert read_lines(path, 0, 100, final=False) == b"aaaa\nbb\n"
    assert read_lines(path, 0, 6, final=False) == b"aaaa\n"
    assert read_lines(path, 0, 2, final=False) == b"aaaa\n", "longer than its share"
    assert read_lines(path, 8, 100, final=False) == b""
    assert read_lines(path, 8, 100, final=True) == b"cc"
    assert read_lines(path, 8, 1, final=True) == b"cc"
    path.write_bytes(b"x" * (MAX_LINE + 5))
    assert read_lines(path, 0, 10, final=False) == b"x" * MAX_LINE, "nobody waits for such a line"


def test_closed_jobs_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "closed"
    jobs = ClosedJobs(path, 0.0)
    assert jobs.epoch("c-j1") == -1
    jobs.close({"c-j1": 3, "c-j2": 1}, 100.0)
    jobs.close({"c-j1": 2}, 100.0)
    with path.open("a") as file:
        file.write("c-j1 9")  # torn
    jobs = ClosedJobs(path, 200.0)
    assert (jobs.epoch("c-j1"), jobs.epoch("c-j2")) == (3, 1)
    assert ClosedJobs(path, 101.0 + KEEP).epoch("c-j1") == -1, "no message is that late"
    assert path.read_text() == ""


def test_ports_are_free_apart_and_safe_from_outgoing_connections() -> None:
    first = free_block(6, [], "gang")
    assert free_block(6, [], "gang") == first
    second = free_block(6, [first], "gang")
    assert abs(second - first) >= 6
    assert second + 6 <= ephemeral_start()
    with socket.socket() as other:
        other.bind(("", first + 3))
        assert abs(free_block(6, [], "gang") - first) > 0


@pytest.mark.parametrize(
    "key", ["", "c-j1", "../c-j1.1", "c-j1.1/x", "c.d-j1.1", "c-j1.1\n", "-j1.1"]
)
def test_what_is_no_key_names_no_folder(key: str) -> None:
    with pytest.raises(InvalidInput):
        job_of(key)


def test_configuration_from_the_environment(tmp_path: Path) -> None:
    config = AgentConfig.from_env(
        "c", {"QD_NODE_STATE": str(tmp_path), "QD_NODE_NAME": "n7", "QD_SIMULATE_GPUS": "0"}
    )
    assert config == AgentConfig(tmp_path, "n7", "c", 0)
    config = AgentConfig.from_env("c", {"QD_HOME": str(tmp_path), "QD_CHECKPOINT_ROOT": "/nfs"})
    assert config.root == tmp_path / "state" / "node"
    assert (config.node, config.simulate_gpus) == (socket.gethostname(), None)
    assert config.checkpoint_root == Path("/nfs")
    with pytest.raises(InvalidInput, match="QD_SIMULATE_GPUS"):
        AgentConfig.from_env("c", {"QD_SIMULATE_GPUS": "two"})


@pytest.mark.parametrize("count", [1, 2, 30, 71, 500])
def test_lost_bytes_are_as_many_and_one_line(count: int) -> None:
    data = lost_bytes(count)
    assert len(data) == count
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
