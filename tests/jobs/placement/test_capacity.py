"""The packing promise: what `Room` says fits, fits, however a node's ledger packs."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.placement.capacity import MICRO, NodeCapacity, Room, Shape, hosts, matches, need
from jobs.placement.fleet import Fleet
from jobs.placement.reasons import never_fits

FRACTIONS = st.sampled_from([0.1, 0.25, 0.3, 1 / 3, 0.5, 0.6, 0.7, 0.9])
ASKS = st.lists(st.one_of(FRACTIONS, st.sampled_from([1.0, 2.0])), max_size=6)


def always_packs(loads: tuple[int, ...], left: tuple[float, ...]) -> bool:
    """Whether every order in which `left` arrives, and every choice of GPUs, finds room for all."""

    @cache
    def search(loads: tuple[int, ...], left: tuple[float, ...]) -> bool:
        for n, gpus in enumerate(left):
            rest = left[:n] + left[n + 1 :]
            ask = need(0, gpus, 0)
            if ask.gpus:
                if loads.count(0) < ask.gpus:
                    return False
                taken = tuple(sorted((*[MICRO] * ask.gpus, *sorted(loads)[ask.gpus :])))
                outcomes = {taken}
            else:
                outcomes = {
                    tuple(sorted((*loads[:at], load + ask.part, *loads[at + 1 :])))
                    for at, load in enumerate(loads)
                    if load + ask.part <= MICRO
                }
            if not outcomes or not all(search(after, rest) for after in outcomes):
                return False
        return True

    return search(tuple(sorted(loads)), tuple(sorted(left)))


@given(gpus=st.integers(1, 3), known=ASKS, asks=ASKS)
@example(gpus=1, known=[], asks=[0.7, 0.3])
@example(gpus=2, known=[0.5], asks=[1.0, 0.5])
@example(gpus=2, known=[], asks=[0.5, 0.25, 0.5, 0.25])
def test_what_fits_is_packed_in_any_order_on_any_gpu(
    gpus: int, known: list[float], asks: list[float]
) -> None:
    room = Room(0, gpus, 0)
    loads = [0] * gpus
    for amount in known:  # these are where a ledger put them, first fit
        ask = need(0, amount, 0)
        size = ask.part or MICRO
        at = [n for n, load in enumerate(loads) if load + size <= MICRO][: ask.gpus or 1]
        if len(at) == (ask.gpus or 1):
            room.take(ask, tuple(f"GPU-{n}" for n in at))
            for n in at:
                loads[n] += size
    accepted = []
    for amount in asks:
        if room.fits(need(0, amount, 0)):
            room.take(need(0, amount, 0))
            accepted.append(amount)
    assert always_packs(tuple(loads), tuple(accepted))


@pytest.mark.parametrize(("part", "gpus", "slots"), [(0.5, 2, 4), (1 / 3, 2, 6), (0.25, 8, 32)])
def test_equal_fractions_fill_a_node_to_the_last_slot(part: float, gpus: int, slots: int) -> None:
    room, ask = Room(0, gpus, 0), need(0, part, 0)
    for _ in range(slots):
        assert room.fits(ask)
        room.take(ask)
    assert not room.fits(ask)


def test_a_known_gpu_frees_the_others_for_whole_shares() -> None:
    halves, whole = [need(0, 0.5, 0)] * 2, need(0, 1, 0)
    anonymous, known = Room(0, 2, 0), Room(0, 2, 0)
    for half in halves:
        anonymous.take(half)
        known.take(half, ("GPU-a",))
    assert not anonymous.fits(whole)  # they may lie on two GPUs
    assert known.fits(whole)


@given(first=ASKS, second=ASKS, known=st.booleans())
def test_release_undoes_take(first: list[float], second: list[float], known: bool) -> None:
    room = Room(8, 4, 100)
    held = [(need(1, amount, 7), ("GPU-x",) if known and amount < 1 else ()) for amount in first]
    for ask, ids in held:
        room.take(ask, ids)
    before = (room.cpus, room.memory, room.free_gpus, room.slack)
    other = [(need(0.5, amount, 3), ("GPU-x",) if amount < 1 else ()) for amount in second]
    for ask, ids in other:
        room.take(ask, ids)
    for ask, ids in other:
        room.release(ask, ids)
    assert (room.cpus, room.memory, room.free_gpus, room.slack) == before
    for ask, ids in held:
        room.release(ask, ids)
    assert (room.cpus, room.memory, room.free_gpus) == (8 * MICRO, 100, 4)
    assert room.slack == 0


def test_tenths_of_a_cpu_add_up() -> None:
    room, ask = Room(1, 0, 0), need(0.1, 0, 0)
    for _ in range(10):
        assert room.fits(ask)
        room.take(ask)
    assert room.cpus == 0


def test_an_overdrawn_resource_matters_only_to_who_asks_for_it() -> None:
    room = Room(4, 1, 100)
    room.take(need(2, 2, 200))
    assert room.free_gpus == -1
    assert not room.fits(need(1, 1, 0))
    assert not room.fits(need(1, 0.1, 0))
    assert not room.fits(need(1, 0, 1))
    assert room.fits(need(1, 0, 0))


@pytest.mark.parametrize(
    ("asked", "model", "same"),
    [
        ("", "", True),
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("h100-80gb", "NVIDIA H100 80GB HBM3", True),
        ("A10", "NVIDIA A100-SXM4-40GB", False),
        ("H100", "", False),
    ],
)
def test_accelerator_names_match_by_words(asked: str, model: str, same: bool) -> None:
    assert matches(asked, model) is same


def test_hosts_are_those_whose_totals_suffice() -> None:
    small, large = NodeCapacity("n1", 4, 1, 10), NodeCapacity("n2", 8, 2, 10)
    assert hosts([small, large], Shape(1, 1, 2, 2)) == [large]
    assert hosts([small, large], Shape(1, 1, 2, 0.5)) == [small, large]


def test_containers_need_a_node_that_runs_them() -> None:
    plain = NodeCapacity("n1", 8, 0, 0)
    able = NodeCapacity("n2", 8, 0, 0, containers=True)
    boxed, bare = Shape(1, 1, 1, 0, container=True), Shape(1, 1, 1, 0)
    assert hosts([plain, able], boxed) == [able]
    assert hosts([plain, able], bare) == [plain, able]
    fleet = Fleet([plain, able])
    assert [fleet.names[i] for i in fleet.hosts(boxed)] == ["n2"]
    assert [fleet.names[i] for i in fleet.copy().find(boxed, frozenset(), {}, 2)] == ["n2"]
    assert never_fits(boxed, [plain, able]) is None
    assert never_fits(boxed, [plain]) == (
        "asks for a container (image:); no node has podman with crun"
    )
    twice = Shape(2, 1, 1, 0, container=True)
    assert "the cluster has 1 node" in (never_fits(twice, [plain, able]) or "")
