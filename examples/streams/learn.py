"""Logistic regression that learns from each reading as it comes. Standard library only.

qd submit examples/streams/job.yaml
python examples/streams/make.py /tmp/readings
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import quarterdeck_stream

FIELDS = ("heat", "vibration", "load")
RATE = 0.05


class Model:
    def __init__(self, weights: dict[str, float] | None = None) -> None:
        self.weights = weights or dict.fromkeys(("bias", *FIELDS), 0.0)

    def chance(self, record: dict[str, Any]) -> float:
        z = self.weights["bias"] + sum(self.weights[name] * record[name] for name in FIELDS)
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, z))))

    def learn(self, record: dict[str, Any], chance: float) -> None:
        step = RATE * (record["failed"] - chance)
        self.weights["bias"] += step
        for name in FIELDS:
            self.weights[name] += step * record[name]

    def save(self, folder: Path) -> None:
        (folder / "model.json").write_text(json.dumps(self.weights))


def main() -> None:
    model = Model()
    stream = quarterdeck_stream.open(lambda folder: model.save(folder))
    if stream.checkpoint:
        model = Model(json.loads((stream.checkpoint / "model.json").read_text()))
        print(f"continues after {stream.read} records", flush=True)
    for record in stream:
        chance = model.chance(record)
        if stream.score(chance > 0.5, record["failed"]):  # test first, then train
            print(f"drift after {stream.read} records", flush=True)
        model.learn(record, chance)
    print(f"{stream.read} records, {stream.rejected} of them bad", flush=True)


if __name__ == "__main__":
    main()
