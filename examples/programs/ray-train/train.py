"""Ray Train: a line, fitted by two workers with PyTorch."""

import os

import ray.train
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model


def loop(config):
    model = prepare_model(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    inputs = torch.randn(64, 1)
    rank = ray.train.get_context().get_world_rank()
    print(f"worker {rank} of job {os.environ.get('QD_JOB')}, {os.environ.get('GREETING')}")
    for epoch in range(config["epochs"]):
        loss = torch.nn.functional.mse_loss(model(inputs), 2 * inputs + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ray.train.report({"loss": loss.item(), "epoch": epoch})


if __name__ == "__main__":
    trainer = TorchTrainer(
        loop,
        train_loop_config={"lr": 0.1, "epochs": 5},
        scaling_config=ScalingConfig(num_workers=2),
    )
    trainer.fit()
