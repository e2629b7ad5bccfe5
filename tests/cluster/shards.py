"""A rank that saves a shard of its own for each step, and goes on from the newest step of which all are here.

A run of two ranks; `__main__` takes the path whose presence ends it. One file is never whole.
"""

from __future__ import annotations

import os
import sys
import time
import zipfile
from pathlib import Path

GATE = Path(sys.argv[1])
FOLDER, RANK = Path(os.environ["QD_CHECKPOINT_DIR"]), os.environ["RANK"]
SIZE = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000


def steps(rank: str) -> set[int]:
    return {int(path.stem.rpartition("-")[2]) for path in FOLDER.glob(f"rank{rank}-step-*.pt")}


def main() -> None:
    here = sorted(path.name for path in FOLDER.iterdir())
    step = max(steps("0") & steps("1"), default=0)
    print(f"begins at {step} with {' '.join(here)}", flush=True)
    torn = (FOLDER / f"torn{RANK}.pt").open("wb")
    torn.write(b"PK\x03\x04 and no end")
    torn.flush()
    while not GATE.exists():
        step += 1
        target = FOLDER / f"rank{RANK}-step-{step}.pt"
        with zipfile.ZipFile(target, "w") as file:  # in its place, as torch.save does
            file.writestr("data", os.urandom(SIZE))
        for old in FOLDER.glob(f"rank{RANK}-step-*.pt"):
            if int(old.stem.rpartition("-")[2]) < step - 20:
                old.unlink(missing_ok=True)
        print(f"step {step}", flush=True)
        time.sleep(0.2)


main()
