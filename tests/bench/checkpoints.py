"""What copying checkpoints costs the training: step times with and without, in turns, on a real cluster.

`python -m tests.bench.checkpoints [MIB] [ROUNDS]`: one host. A rank multiplies matrices on one core, and puts
a checkpoint of so many MiB into place every five seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS_FOR = 30.0
"""Seconds of steps of each run."""

TRAIN = """
import json, os, sys, time
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
import numpy
folder, size, times = os.environ["QD_CHECKPOINT_DIR"], int(sys.argv[1]) << 20, []
one, weights = numpy.random.rand(600, 600), os.urandom(1 << 20)
end = saved = time.monotonic()
while time.monotonic() < end + float(sys.argv[2]):
    began = time.perf_counter()
    one = one @ one; one /= one.max()
    times.append(time.perf_counter() - began)
    if time.monotonic() > saved + 5:
        with open(folder + "/.last.tmp", "wb") as file:
            for block in range(size >> 20): file.write(os.urandom(16) + weights[16:])
            file.flush(); os.fsync(file.fileno())
        os.replace(folder + "/.last.tmp", folder + "/last.bin")
        saved = time.monotonic()
print(json.dumps(times))
"""


def _qd(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("qd")), *words],
        env={**os.environ, "QD_HOME": str(home)},
        check=True,
        capture_output=True,
        text=True,
    )


def _run(home: Path, copy: str, size: int) -> tuple[list[float], dict[str, Any]]:
    """The step times of a run in seconds, and how its checkpoints were copied."""
    script = home / "train.py"
    script.write_text(TRAIN)
    job = home / "job.yaml"
    job.write_text(
        json.dumps(
            {
                "name": "steps",
                "command": [sys.executable, str(script), str(size), str(STEPS_FOR)],
                "checkpoint": {"copy": copy, "every": 0},
            }
        )
    )
    _qd(home, "submit", str(job), "--no-workdir", "--wait")
    line = next(iter(_qd(home, "logs", "last", "--raw").stdout.splitlines()))
    view = json.loads(_qd(home, "job", "last", "--json").stdout)
    return json.loads(line), view["checkpoint"] or {"copies": []}


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    home = Path(tempfile.mkdtemp(prefix="qd-bench-"))
    found: dict[str, list[list[float]]] = {"off": [], "latest": []}
    copies: list[dict[str, Any]] = []
    try:
        _qd(home, "up", "--cpus", "2", "--simulate-gpus", "0")
        for _ in range(rounds):
            for copy, runs in found.items():
                times, told = _run(home, copy, size)
                runs.append(times)
                copies += told["copies"]
    finally:
        _qd(home, "down", "--force")
        shutil.rmtree(home, ignore_errors=True)
    for copy, runs in found.items():
        every = sorted(time for times in runs for time in times)
        print(
            f"copy: {copy:7} {len(every):6} steps  mean {1e3 * statistics.fmean(every):.3f} ms"
            f"  median {1e3 * statistics.median(every):.3f} ms"
            f"  p99 {1e3 * every[int(len(every) * 0.99)]:.3f} ms"
        )
    took = ", ".join(f"{copy['sent'] >> 20} MiB in {copy['seconds']:.1f} s" for copy in copies)
    print(f"copies that were there at the end of the runs: {took}")


if __name__ == "__main__":
    main()
