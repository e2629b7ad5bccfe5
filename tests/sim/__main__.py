"""`python -m tests.sim SEED` replays one history and tells its story; `--seeds N` plays many."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from tests.sim.world import Outcome, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="the history to replay")
    parser.add_argument("--seeds", type=int, metavar="N", help="play N histories")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="in N processes")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first failure")
    parser.add_argument(
        "--digests", type=int, metavar="N", help="what N histories come to, in short"
    )
    options = parser.parse_args()
    if options.digests is not None:
        for seed in range(options.start, options.start + options.digests):
            print(seed, run(seed).digest)
        return 0
    if options.seed is not None:
        outcome = run(options.seed)
        print(outcome.story)
        print(f"seed {options.seed}: {outcome.violation or 'all is well'} ({outcome.digest})")
        return 1 if outcome.violation else 0
    return many(
        options.start,
        options.seeds or 1000,
        keep_going=options.keep_going,
        workers=options.workers,
    )


def play(seeds: Sequence[int], workers: int) -> Iterator[Outcome]:
    """What became of each history, as they end. A story is told only where something was wrong.

    Args:
        workers: processes among which they are shared out.
    """
    if workers == 1:
        yield from map(_brief, seeds)
        return
    # Forked: what was imported and compiled here is there at once.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        yield from pool.map(_brief, seeds, chunksize=5)


def _brief(seed: int) -> Outcome:
    outcome = run(seed)
    return outcome if outcome.violation else replace(outcome, story="")


def many(start: int, count: int, *, keep_going: bool, workers: int) -> int:
    begun, virtual, failed, played = time.monotonic(), 0.0, 0, 0
    for outcome in play(range(start, start + count), workers):
        played += 1
        virtual += outcome.seconds
        if outcome.violation:
            failed += 1
            print(f"seed {outcome.seed}: {outcome.violation}", flush=True)
            if not keep_going:
                print(outcome.story)
                print(f"Replay it with: python -m tests.sim {outcome.seed}")
                break
    seconds = time.monotonic() - begun
    told = f"{failed} of {played} histories failed"
    print(f"{told}; {virtual / 3600:.1f} virtual hours in {seconds:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
