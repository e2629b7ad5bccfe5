import sys


def double(batch):
    print(f"a batch of {len(batch['id'])} with {sys.executable}")
    batch["id"] = batch["id"] * 2
    return batch
