"""A Ray program: the volume of the five-dimensional ball, by Monte Carlo over the cluster.

`ray.init()` joins the cluster that RAY_ADDRESS names, which Quarterdeck sets for `kind: ray` jobs;
without it, Ray starts one on this machine.
"""

from __future__ import annotations

import math

import numpy as np
import quarterdeck
import ray

DIMENSIONS = 5
TASKS = 8
POINTS = 250_000  # of each task


@ray.remote(num_cpus=1)
def count_inside(seed: np.random.SeedSequence) -> int:
    """How many of POINTS uniform points of the cube [-1, 1]^5 lie in the unit ball."""
    points = np.random.default_rng(seed).uniform(-1.0, 1.0, size=(POINTS, DIMENSIONS))
    return int(np.count_nonzero(np.einsum("ij,ij->i", points, points) <= 1.0))


def main() -> None:
    ray.init(log_to_driver=False)
    # Streams that are independent whichever worker draws them (numpy.random.SeedSequence.spawn).
    seeds = np.random.SeedSequence(quarterdeck.seed or 0).spawn(TASKS)
    pending = [count_inside.remote(seed) for seed in seeds]
    inside = drawn = 0
    while pending:
        done, pending = ray.wait(pending, num_returns=1)
        inside += ray.get(done[0])
        drawn += POINTS
        share = inside / drawn
        volume = 2.0**DIMENSIONS * share
        error = 2.0**DIMENSIONS * math.sqrt(share * (1 - share) / drawn)
        quarterdeck.log(volume=volume, error=error)
        print(f"{drawn:>9,} points: {volume:.4f} +- {error:.4f}", flush=True)
    exact = math.pi ** (DIMENSIONS / 2) / math.gamma(DIMENSIONS / 2 + 1)
    print(f"exact: {exact:.4f}", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
