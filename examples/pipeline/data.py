"""Measured points of a line: y = 2 x + 1, and noise."""

import pathlib
import random

import quarterdeck

count = quarterdeck.params.get("points", 400)
noise = quarterdeck.params.get("noise", 0.1)
random.seed(1)
with pathlib.Path("points.csv").open("w") as file:
    for _ in range(count):
        x = random.uniform(-1, 1)
        file.write(f"{x},{2 * x + 1 + random.gauss(0, noise)}\n")
quarterdeck.log(points=count)
