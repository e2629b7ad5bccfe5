"""Two ranks, each in a container: what they see of the node, and what they leave."""

import os
import sys
from pathlib import Path

import quarterdeck

rank, size = int(os.environ["RANK"]), os.environ["WORLD_SIZE"]
print(f"rank {rank} of {size}, Python {sys.version.split()[0]}, uid {os.getuid()}")
print("image:", os.environ["MADE_BY"], "files:", *sorted(path.name for path in Path("/").iterdir()))
for step in range(5):
    quarterdeck.log(step=step, loss=1 / (1 + step))
(Path(quarterdeck.checkpoint_dir) / f"rank-{rank}.txt").write_text("kept")
Path(f"out-{rank}.txt").write_text("in the work folder")
