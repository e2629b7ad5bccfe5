"""Ray Data: batches through a function of a module that travelled with the job."""

import ray
from steps import double

if __name__ == "__main__":
    print("sum:", ray.data.range(1000).map_batches(double, batch_size=100).sum("id"))
