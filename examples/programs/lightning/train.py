"""Lightning starts its second process itself, as on a laptop."""

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset


class Sum(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, number):
        inputs, targets = batch
        loss = torch.nn.functional.mse_loss(self.layer(inputs), targets)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    lightning.seed_everything(7)
    inputs = torch.randn(256, 8)
    data = DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=16)
    trainer = lightning.Trainer(
        devices=2,
        strategy="ddp",
        accelerator="cpu",
        max_epochs=3,
        log_every_n_steps=2,
        logger=TensorBoardLogger("lightning_logs"),
    )
    trainer.fit(Sum(), data)
    print(f"rank {trainer.global_rank} of {trainer.world_size}")
