"""Trains a tiny model with Lightning's Trainer; goes on from the last checkpoint."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

STEPS_PER_EPOCH = 8


class Regression(L.LightningModule):
    def __init__(self, schedule: str, interval: str, epochs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.schedule, self.interval, self.epochs = schedule, interval, epochs

    def training_step(self, batch, index):
        x, y = batch
        loss = nn.functional.mse_loss(self.linear(x).squeeze(-1), y)
        self.log("loss", loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch, index):
        x, y = batch
        self.log("val_loss", nn.functional.mse_loss(self.linear(x).squeeze(-1), y))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        count = self.epochs * (STEPS_PER_EPOCH if self.interval == "step" else 1)
        if self.schedule == "cosine":
            scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=count)
        elif self.schedule == "onecycle":
            scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=count + 1)
        elif self.schedule == "warmup":
            scheduler = lr_scheduler.SequentialLR(
                optimizer,
                [
                    lr_scheduler.LinearLR(optimizer, 0.1, total_iters=max(count // 4, 1)),
                    lr_scheduler.CosineAnnealingLR(optimizer, T_max=count),
                ],
                milestones=[max(count // 4, 1)],
            )
        else:
            scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)
        monitor = "loss" if self.interval == "step" else "val_loss"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": self.interval,
                "monitor": monitor,
            },
        }


def batches(count: int) -> DataLoader:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, x.sum(1)), batch_size=4)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--interval", default="epoch", choices=["epoch", "step"])
    parser.add_argument("--save", default="epoch", choices=["epoch", "steps", "validation"])
    parser.add_argument("--folder", default="runs")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    L.seed_everything(1, verbose=False)
    when = {
        "epoch": {"save_on_train_epoch_end": True},
        "validation": {"save_on_train_epoch_end": False},
        "steps": {"every_n_train_steps": 5},
    }[options.save]
    checkpoint = ModelCheckpoint(options.folder, save_last=True, save_top_k=-1, **when)
    trainer = L.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        callbacks=[checkpoint],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    last = Path(options.folder, "last.ckpt")
    trainer.fit(
        Regression(options.schedule, options.interval, options.epochs),
        batches(4 * STEPS_PER_EPOCH),
        batches(8),
        ckpt_path=str(last) if last.exists() else None,
    )


main()
