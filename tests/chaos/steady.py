"""What the killed jobs run: numbered lines and metric points, steadily, so that a gap or a double shows.

    python steady.py GATE [--deaf]

Each tick prints `tick N`, logs `n=N` and moves the checkpoint, until the file GATE is there; then it
prints `end N`. A restart goes on from the checkpoint. `--deaf` ignores SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import quarterdeck

TICK = 0.05
"""Seconds between two ticks."""


def main() -> None:
    if "--deaf" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gate = Path(sys.argv[1])
    checkpoint = quarterdeck.checkpoint_dir / f"rank-{quarterdeck.rank}"
    number = int(checkpoint.read_text()) if checkpoint.exists() else 0
    print(f"start {number} pid {os.getpid()} at {time.clock_gettime(time.CLOCK_BOOTTIME)}")
    while not gate.exists():
        number += 1
        print(f"tick {number}")
        quarterdeck.log(n=number, step=number)
        with quarterdeck.atomic_write(checkpoint) as file:
            file.write(str(number).encode())
        time.sleep(TICK)
    print(f"end {number}")


main()
