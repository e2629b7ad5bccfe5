"""`make bench`: figures side by side with a peer, written to docs/benchmarks.md.

`--short` is for CI: few rounds of the whole commands, nothing written, and it fails when a figure is far
beyond its reach. `--only` measures one suite and leaves the others as they stand in the document.
"""

from __future__ import annotations

import argparse
import compileall
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import commands, console, scale, serving, survival, sweeps
from tests.bench.report import SUITES, Row, document, table

_SHORT_SLACK = 2.0
"""A short run on a busy machine may miss a reach by this factor before it counts as a failure."""

DOCUMENT = Path("docs/benchmarks.md")

_MEASURES: dict[str, Callable[[int], list[Row]]] = {
    "commands": commands.measure,
    "survival": survival.measure,
    "console": console.measure,
    "sweeps": sweeps.measure,
    "scale": scale.measure,
    "serving": serving.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="3 rounds of the commands")
    parser.add_argument("--only", choices=SUITES, help="measure this suite alone")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rounds = 3 if options.short else options.rounds
    chosen = ["commands"] if options.short else [options.only] if options.only else list(SUITES)
    slack = _SHORT_SLACK if options.short else 1.0
    failed = []
    for package in ("agents", "console", "jobs"):  # byte code, as an installation has it
        compileall.compile_dir(package, quiet=1)
    for name in chosen:
        rows = _MEASURES[name](rounds)
        print(table(rows))
        failed += [row for row in rows if row.missed(slack)]
        if not options.short:
            before = DOCUMENT.read_text() if DOCUMENT.exists() else ""
            DOCUMENT.write_text(document(before, name, rows, rounds))
    for row in failed:
        found = row.ours if row.ratio is None else row.ratio
        print(f"missed: {row.work}: {found:.3f}, reach {row.reach}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
