"""Many short histories, the same history twice, and what the histories notice.

How many is set by QD_SIM_SEEDS. A failure shows the story and how to replay it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.__main__ import play
from tests.sim.mutations import MUTATIONS
from tests.sim.world import run

SEEDS = int(os.environ.get("QD_SIM_SEEDS", "200"))
WORKERS = len(os.sched_getaffinity(0))
TRIES = 1000
"""Histories in which a broken safeguard has to show."""


@pytest.mark.timeout(1200)
def test_histories_break_no_promise() -> None:
    for outcome in play(range(SEEDS), WORKERS):
        if outcome.violation is not None:
            pytest.fail(
                f"{outcome.story}\nseed {outcome.seed}: {outcome.violation}\n"
                f"Replay it with: python -m tests.sim {outcome.seed}",
                pytrace=False,
            )


def test_a_seed_names_one_history() -> None:
    """In another process too, where sets and dictionaries of strings have another order."""
    told = []
    for hashing in ("1", "2"):
        command = [sys.executable, "-m", "tests.sim", "--digests", "6"]
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        done = subprocess.run(
            command, env=environment, capture_output=True, check=True, timeout=600
        )
        told.append(done.stdout)
    assert told[0] == told[1]
    assert len(told[0].splitlines()) == 6


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_missing_safeguard_shows(name: str) -> None:
    mutation = MUTATIONS[name]
    with mutation.patch():
        for seed in (mutation.seed, *range(TRIES)):
            if run(seed, usual=mutation.usual).violation is not None:
                return
    pytest.fail(f"{mutation.what}, and no history shows it")
