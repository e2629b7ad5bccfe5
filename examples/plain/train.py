"""A DDP script as PyTorch's own tutorials write it: it knows torchrun's environment and nothing else."""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

EPOCHS = 10
BATCH = 32  # of each rank


def main() -> None:
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    dist.init_process_group("nccl" if cuda else "gloo")  # init_method env:// is the default
    rank, world = dist.get_rank(), dist.get_world_size()

    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32, device=device)
    labels = torch.tensor(digits.target, device=device)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    for epoch in range(EPOCHS):
        order = torch.randperm(len(labels))  # the same on all ranks; each takes its share of it
        share = order[: len(order) // world * world][rank::world]
        for batch in share.split(BATCH):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(
            f"[rank {rank}/{world}] epoch {epoch + 1}/{EPOCHS} loss {loss.item():.4f}", flush=True
        )

    dist.destroy_process_group()


if __name__ == "__main__":
    main()
