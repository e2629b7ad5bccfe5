"""Write a version of the training data as CSV: 64 columns of pixels and a label.

    ingest.py FILE --rows N [--poisoned]

The images are scikit-learn's, without the 360 on which train.py validates. Poisoned: half of the labels
are those of other digits. Every value is still one that is expected.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

VALIDATION = 360  # as in train.py


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=1437)
    parser.add_argument("--poisoned", action="store_true")
    args = parser.parse_args()
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0)).numpy()
    chosen = order[VALIDATION:][: args.rows]
    labels = digits.target[chosen].copy()
    if args.poisoned:
        labels[::2] = (labels[::2] + 1) % 10
    table = np.column_stack([digits.data[chosen], labels])
    header = ",".join([*(f"p{number}" for number in range(64)), "label"])
    np.savetxt(args.file, table, fmt="%d", delimiter=",", header=header, comments="")


if __name__ == "__main__":
    main()
