"""Fit the line by gradient descent, with one learning rate."""

import csv
import json
import pathlib

import quarterdeck

rate = quarterdeck.params.get("rate", 0.01)
with pathlib.Path("points.csv").open() as file:
    points = [(float(x), float(y)) for x, y in csv.reader(file)]
slope = offset = 0.0
for step in range(200):
    errors = [(slope * x + offset - y, x) for x, y in points]
    slope -= rate * 2 * sum(error * x for error, x in errors) / len(points)
    offset -= rate * 2 * sum(error for error, _ in errors) / len(points)
    quarterdeck.log(error=sum(error**2 for error, _ in errors) / len(points), step=step)
error = sum((slope * x + offset - y) ** 2 for x, y in points) / len(points)
model = {"slope": slope, "offset": offset, "rate": rate, "error": error}
pathlib.Path("model.json").write_text(json.dumps(model))
