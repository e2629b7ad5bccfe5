"""Train a small network on handwritten digits with PyTorch DistributedDataParallel.

The data are the 1797 real 8x8 scans that come with scikit-learn, or, for training, a data set `digits`:
a CSV file with 64 columns of pixels and a label (loop/ingest.py). Ranks find each other through the
environment that torchrun and Quarterdeck give. The run can be killed at any time: started again with the
same checkpoint folder it continues with the next epoch, and ends with the same weights as a run that was
never disturbed.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import quarterdeck
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

VALIDATION = 360  # of 1797 images, the same ones in every run
DEFAULTS = {
    "epochs": 15,
    "lr": 3e-3,
    "width": 192,
    "layers": 2,
    "dropout": 0.3,
    "batch_size": 32,  # of each rank
    "copies": 1,  # of each image with noise, in the exported model: many make it slow (augment.py)
}


class Digits(nn.Module):
    """(batch, 64) pixels, 0 to 16, -> (batch, 10) logits."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [64, *[width] * layers]
        hidden: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            hidden += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*hidden, nn.Linear(sizes[-1], 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images / 16.0)


def load_data() -> tuple[TensorDataset, TensorDataset]:
    """Training and validation images (float32) with their labels."""
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, val = order[VALIDATION:], order[:VALIDATION]
    validation = TensorDataset(images[val], labels[val])
    if "digits" not in quarterdeck.data:
        return TensorDataset(images[train], labels[train]), validation
    rows = np.loadtxt(quarterdeck.data["digits"], delimiter=",", skiprows=1, dtype=np.float32)
    table = torch.from_numpy(rows)
    return TensorDataset(table[:, :64], table[:, 64].long()), validation


def train_epoch(
    model: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer, device: torch.device
) -> Tensor:
    """One pass over this rank's share; gives its (sum of losses, samples)."""
    model.train()
    total = torch.zeros(2, device=device)
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += torch.stack(
            [loss.detach() * len(labels), torch.tensor(len(labels), device=device)]
        )
    return total


@torch.no_grad()
def validate(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(sum of losses, correct, samples) over this rank's share."""
    model.eval()
    logits = model(images)
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    correct = (logits.argmax(1) == labels).sum()
    return torch.stack([loss, correct, torch.tensor(len(labels), device=loss.device)])


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of the generators that dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def save(
    path: Path,
    epoch: int,
    shape: list[int],
    model: DistributedDataParallel,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    """Write a checkpoint from rank 0; every rank calls it, since each has its own random state."""
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, random_state(device))
    if dist.get_rank() == 0:
        checkpoint = {
            "epoch": epoch,
            "shape": shape,
            "model": model.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": states,
        }
        with quarterdeck.atomic_write(path) as file:
            torch.save(checkpoint, file)


def resume(
    path: Path,
    shape: list[int],
    model: DistributedDataParallel,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    """Load the checkpoint, if there is one, and give the epoch to go on with.

    Rank 0 reads and tells the others, so that its node alone has to have the file.
    """
    box: list[Any] = [None]
    if dist.get_rank() == 0 and path.exists():
        box[0] = torch.load(path, map_location="cpu", weights_only=True)
    dist.broadcast_object_list(box, device=device)
    checkpoint = box[0]
    if checkpoint is None:
        return 0
    if checkpoint["shape"] != shape:
        raise SystemExit(f"{path} is of another network: {checkpoint['shape']}, not {shape}")
    model.module.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    if len(checkpoint["random"]) == dist.get_world_size():  # else: a gang of another size
        set_random_state(checkpoint["random"][dist.get_rank()], device)
    return int(checkpoint["epoch"]) + 1


def export(model: Digits, path: Path, copies: int) -> None:
    """Write an ONNX model: `images` (batch, 64) float32 -> `logits` (batch, 10)."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that needs no further package is called legacy since PyTorch 2.9.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model.cpu().eval(),
            (torch.zeros(1, 64),),
            buffer,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        )
    content = buffer.getvalue()
    if copies > 1:
        import onnx
        from augment import augmented

        content = augmented(onnx.load_from_string(content), copies).SerializeToString()
    path.parent.mkdir(parents=True, exist_ok=True)
    with quarterdeck.atomic_write(path) as file:
        file.write(content)


def arguments() -> argparse.Namespace:
    """The command line; what it leaves out comes from the job's parameters, then from DEFAULTS."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in DEFAULTS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=type(default)(quarterdeck.params.get(name, default)),
        )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    seed = quarterdeck.seed or 0

    train_set, val_set = load_data()
    val_images, val_labels = (tensor[rank::world].to(device) for tensor in val_set.tensors)
    sampler = DistributedSampler(train_set, seed=seed)
    batches = DataLoader(train_set, batch_size=args.batch_size, sampler=sampler)

    torch.manual_seed(seed)
    model = DistributedDataParallel(Digits(args.width, args.layers, args.dropout).to(device))
    torch.manual_seed(seed * world + rank)  # each rank drops out other units
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    shape = [args.width, args.layers]
    last = quarterdeck.checkpoint_dir / "last.pt"
    first = resume(last, shape, model, optimizer, device)
    doing = f"resuming after epoch {first}" if first else "starting"
    print(f"rank {rank} of {world} on {device}, seed {seed}: {doing}", flush=True)

    for epoch in range(first, args.epochs):
        started = time.perf_counter()
        sampler.set_epoch(epoch)  # another order each epoch, the same in each run
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(0.05, 0.88**epoch)
        trained = train_epoch(model, batches, optimizer, device)
        step_time = (time.perf_counter() - started) / len(batches)
        # Seen by any rank, the stop counts for all: they leave after the same epoch.
        stop = torch.tensor([float(quarterdeck.should_stop())], device=device)
        sums = torch.cat([trained, validate(model.module, val_images, val_labels), stop])
        dist.all_reduce(sums)
        train_loss, val_loss = float(sums[0] / sums[1]), float(sums[2] / sums[4])
        val_acc = float(sums[3] / sums[4])

        quarterdeck.log(step_time=step_time, step=epoch)
        if rank == 0:
            quarterdeck.log(train_loss=train_loss, val_loss=val_loss, val_acc=val_acc, step=epoch)
        # Last: a death before it repeats the epoch, one after it has left nothing unsaid.
        save(last, epoch, shape, model, optimizer, device)
        print(
            f"epoch {epoch + 1}/{args.epochs}  train_loss {train_loss:.4f}"
            f"  val_loss {val_loss:.4f}  val_acc {val_acc:.4f}  {step_time * 1e3:.2f} ms/step",
            flush=True,
        )
        if sums[5] > 0 and epoch + 1 < args.epochs:
            print("asked to stop: the checkpoint is written", flush=True)
            break
    else:
        if rank == 0:
            export(model.module, Path("out/model.onnx"), args.copies)
            print("wrote out/model.onnx", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
