"""A rank that keeps its GPU busy: multiplies matrices until told to end, and says how fast it was.

Prints one line of JSON about the GPU that it was given before it begins, and logs `tflops` each second.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import torch

SIZE = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--hold", type=float, default=0, help="GiB of GPU memory to take besides")
    parser.add_argument("--gate", type=Path, help="end once this file is there")
    options = parser.parse_args()
    try:
        held = torch.zeros(int(options.hold * 2**30), dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        sys.exit(str(error))
    a = torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16)
    torch.cuda.synchronize()
    told = {
        "pid": os.getpid(),
        "count": torch.cuda.device_count(),
        "uuid": str(torch.cuda.get_device_properties(0).uuid),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "held": held.numel(),
    }
    print(json.dumps(told), flush=True)
    in_a_rank = importlib.util.find_spec("quarterdeck") is not None
    log = importlib.import_module("quarterdeck").log if in_a_rank else None
    began = last = time.monotonic()
    done = step = 0
    while last - began < options.seconds and not (options.gate and options.gate.exists()):
        for _ in range(20):
            a @ b
        torch.cuda.synchronize()
        done += 20
        if (now := time.monotonic()) - last >= 1:
            step, rate = step + 1, done * 2 * SIZE**3 / (now - last) / 1e12
            if log is not None:
                log(step=step, tflops=rate)
            print(f"tflops {rate:.1f}", flush=True)
            last, done = now, 0


if __name__ == "__main__":
    main()
