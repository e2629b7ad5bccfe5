"""`python -m tests.sim SEED` replays one history and tells its story; `--seeds N` plays many."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.world import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="the history to replay")
    parser.add_argument("--seeds", type=int, metavar="N", help="play N histories")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
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
    return many(options.start, options.seeds or 1000, keep_going=options.keep_going)


def many(start: int, count: int, *, keep_going: bool) -> int:
    begun, virtual, failed = time.monotonic(), 0.0, 0
    for seed in range(start, start + count):
        outcome = run(seed)
        virtual += outcome.seconds
        if outcome.violation:
            failed += 1
            print(f"seed {seed}: {outcome.violation}", flush=True)
            if not keep_going:
                print(outcome.story)
                print(f"Replay it with: python -m tests.sim {seed}")
                break
    seconds = time.monotonic() - begun
    played = f"{failed} of {seed - start + 1} histories failed"
    print(f"{played}; {virtual / 3600:.1f} virtual hours in {seconds:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
