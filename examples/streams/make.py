"""Writes readings of machines into a folder, file by file, as a real source would.

    python make.py /tmp/readings --records 20000 --files 20 --pause 0.5

Half-way through, another machine type comes in for which heat is harmless and vibration is not: what was
learned until then is wrong. One record in 500 is broken.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path


def reading(rng: random.Random, later: bool) -> dict[str, object]:
    heat, vibration, load = rng.gauss(0, 1), rng.gauss(0, 1), rng.random()
    risk = 3 * vibration - heat if later else 3 * heat + load - 0.5
    failed = rng.random() < 1 / (1 + math.exp(-2 * risk))
    return {
        "heat": round(heat, 3),
        "vibration": round(vibration, 3),
        "load": round(load, 3),
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two files")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    number = 0
    for file in range(options.files):
        lines = []
        for _ in range(options.records // options.files):
            record = reading(rng, number >= options.records / 2)
            number += 1
            if number % 500 == 0:
                record["heat"] = "n/a"
            lines.append(json.dumps(record))
        temporary = options.folder / f".{file:04d}.tmp"
        temporary.write_text("\n".join(lines) + "\n")
        temporary.rename(options.folder / f"{file:04d}.jsonl")
        time.sleep(options.pause)


if __name__ == "__main__":
    main()
