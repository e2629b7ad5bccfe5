"""`python -m console.tui`: the console where there is no terminal to ask for, as behind `qd web`."""

from __future__ import annotations

import argparse
import sys

from console.tui.app import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m console.tui", description=__doc__)
    parser.add_argument("--screen")
    parser.add_argument("--read-only", action="store_true")
    options = parser.parse_args()
    sys.exit(run(options.screen, read_only=options.read_only))


if __name__ == "__main__":
    main()
