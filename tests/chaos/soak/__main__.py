"""Random real kills for a while: `python -m tests.chaos.soak --minutes 5 --seed 7`.

A seed gives the same faults in the same order again; the machine has a say in what they hit.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from tests.chaos.soak import story
from tests.chaos.soak.run import EVERY, LARGE, Outcome, soak


def report(
    outcome: Outcome,
    minutes: float,
    seed: int,
    *,
    every: float = EVERY,
    large: int = LARGE,
    everything: bool = False,
) -> str:
    """What to read about it: in short when all is well, else with the story of the jobs concerned."""
    head = f"seed {seed}, {minutes:g} min: {outcome.summary}"
    if not outcome.wrong and not everything:
        return f"{head}; all is well"
    jobs = set(re.findall(r"\bj\d+\b", " ".join(outcome.wrong)))
    shown = story.told(outcome.timeline, () if everything else jobs)
    again = f"Again: python -m tests.chaos.soak --minutes {minutes:g} --seed {seed}"
    again += "" if every == EVERY else f" --every {every:g}"
    again += "" if large == LARGE else f" --large {large}"
    return "\n".join([shown, head, *(f"WRONG: {what}" for what in outcome.wrong), again])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, help="by default, another one each time")
    parser.add_argument(
        "--story", action="store_true", help="tell all of it, also when all is well"
    )
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two troubles")
    parser.add_argument("--large", type=int, default=LARGE, help="MiB of the large checkpoint")
    parser.add_argument("--keep", type=Path, help="leave registry, diaries and logs in this folder")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(time.time()) % 1_000_000
    how = {"every": options.every, "large": options.large}
    outcome = soak(options.minutes, seed, **how, keep=options.keep)
    told = report(outcome, options.minutes, seed, **how, everything=options.story)
    print(told)
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
