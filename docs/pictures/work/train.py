# ruff: noqa: S311, T201 - a program as a user would write it
"""What the pictures show at work: a line fitted by gradient descent, as slowly as it likes.

Standard library only, so that the pictures need no PyTorch; the losses are real ones.
"""

import os
import random
import sys
import time

import quarterdeck

rank = int(os.environ.get("RANK", "0"))  # a job of one process has none
rate = float(sys.argv[1])
random.seed(rank)
points = [
    (x, 3 * x + 2 + random.gauss(0, 0.4)) for x in (random.uniform(-1, 1) for _ in range(20_000))
]
slope = offset = 0.0
for step in range(600):
    if step == 130:
        slope -= 2.5  # something goes wrong, to have a spike to look at
    wrong = [(slope * x + offset - y, x) for x, y in points]
    loss = sum(d * d for d, _ in wrong) / len(wrong)
    slope -= rate * sum(d * x for d, x in wrong) / len(wrong)
    offset -= rate * sum(d for d, _ in wrong) / len(wrong)
    print(f"step {step} loss {loss:.4f} slope {slope:.3f} offset {offset:.3f}", flush=True)
    if rank == 0:
        quarterdeck.log(step=step, loss=loss, slope=slope, offset=offset)
    time.sleep(0.1)
