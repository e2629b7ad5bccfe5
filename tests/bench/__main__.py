"""`make bench`: figures side by side with a peer, written to docs/benchmarks.md.

`--short` runs few rounds and writes nothing, but still fails when a figure is far beyond its reach.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench import commands, console, survival
from tests.bench.report import document, table

_SHORT_SLACK = 2.0
"""A short run on a busy machine may miss a reach by this factor before it counts as a failure."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="3 rounds, nothing written")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rounds = 3 if options.short else options.rounds
    rows = commands.measure(rounds)
    print(table(rows))
    surviving = survival.measure(rounds, short=options.short)
    print(table(surviving))
    screen = console.measure(rounds)
    print(table(screen))
    slack = _SHORT_SLACK if options.short else 1.0
    failed = [row for row in (*rows, *surviving, *screen) if row.missed(slack)]
    if not options.short:
        Path("docs/benchmarks.md").write_text(document(rows, surviving, screen, rounds))
    for row in failed:
        found = row.ours if row.ratio is None else row.ratio
        print(f"missed: {row.work}: {found:.3f}, reach {row.reach}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
