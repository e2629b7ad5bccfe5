"""A character model in the way of nanoGPT: settings as --name=value, data that git ignores beside it, and
a log of `step N: train loss ..., val loss ...` and `iter N: loss ...`. The model is a table of bigrams.
"""

import math
import os
import random
import sys
import time
from pathlib import Path

settings = {"max_iters": 200, "eval_interval": 50, "log_interval": 5, "batch_size": 256}
rate = 20.0
for word in sys.argv[1:]:
    name, value = word.removeprefix("--").split("=")
    settings[name] = int(value)

if os.environ.get("RANK") is not None:
    sys.exit("RANK is set: somebody else started all ranks, and this program knows one")

folder = Path(__file__).with_name("data")
train, validation = (folder / "train.bin").read_bytes(), (folder / "val.bin").read_bytes()
characters = sorted(set(train) | set(validation))
table = [[0.0] * len(characters) for _ in characters]
number = {character: i for i, character in enumerate(characters)}
chance = random.Random(1337)


def step(data: bytes, learn: bool) -> float:
    """The mean loss of a batch, in nats per character."""
    total = 0.0
    for _ in range(settings["batch_size"]):
        at = chance.randrange(len(data) - 1)
        row, wanted = table[number[data[at]]], number[data[at + 1]]
        weights = [math.exp(logit) for logit in row]
        whole = sum(weights)
        total -= math.log(weights[wanted] / whole)
        if learn:
            each = rate / settings["batch_size"]
            for i, weight in enumerate(weights):
                row[i] -= each * (weight / whole - (i == wanted))
    return total / settings["batch_size"]


for iteration in range(settings["max_iters"] + 1):
    if iteration % settings["eval_interval"] == 0:
        losses = step(train, learn=False), step(validation, learn=False)
        print(f"step {iteration}: train loss {losses[0]:.4f}, val loss {losses[1]:.4f}")
    started = time.perf_counter()
    loss = step(train, learn=True)
    if iteration % settings["log_interval"] == 0:
        took = 1000 * (time.perf_counter() - started)
        print(f"iter {iteration}: loss {loss:.4f}, time {took:.2f}ms, mfu -100.00%")
