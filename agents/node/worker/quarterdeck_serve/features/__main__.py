"""The job that builds features: from the version of `rows` and the tables that are joined."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import quarterdeck

from .build import Failed, build
from .transform import FeatureError, load

_EVERY = 1.0
"""Seconds between two words about the progress."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="quarterdeck_serve.features", description=__doc__)
    parser.add_argument("--rows", default="rows", help="what the job calls the data of the rows")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    args = parser.parse_args(words)
    data = dict(quarterdeck.data)
    if args.rows not in data:
        print(f"the job has no data named {args.rows}", file=sys.stderr)  # noqa: T201 - its log
        return 1
    began = said = time.monotonic()

    def say(count: int) -> None:
        nonlocal said
        if (now := time.monotonic()) >= said + _EVERY:
            said = now
            quarterdeck.log(feature_rows=count)

    try:
        count = build(load(), data.pop(args.rows), data, args.out, say)
    except (Failed, FeatureError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    quarterdeck.log(feature_rows=count)
    print(f"{count} rows in {time.monotonic() - began:.1f} s", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
