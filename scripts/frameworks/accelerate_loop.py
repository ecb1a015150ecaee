"""Trains a tiny model with accelerate, and goes on from the newest checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

STEPS_PER_EPOCH = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--interval", default="step", choices=["epoch", "step"])
    parser.add_argument("--every", type=int, default=STEPS_PER_EPOCH)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--folder", default="runs")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    set_seed(1)
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=options.accumulate,
        project_config=ProjectConfiguration(
            project_dir=options.folder, automatic_checkpoint_naming=True
        ),
    )
    x = torch.randn(4 * STEPS_PER_EPOCH, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x.sum(1)), batch_size=4, shuffle=True)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    per_epoch = STEPS_PER_EPOCH // options.accumulate
    count = options.epochs * (per_epoch if options.interval == "step" else 1)
    if options.schedule == "cosine":
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=count)
    elif options.schedule == "onecycle":
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=count + 1)
    else:
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)

    done = 0  # batches
    checkpoints = Path(options.folder, "checkpoints")
    if checkpoints.is_dir() and any(checkpoints.iterdir()):
        last = max(checkpoints.iterdir(), key=lambda folder: int(folder.name.split("_")[1]))
        accelerator.load_state(str(last))
        number = int(last.name.split("_")[1])
        accelerator.project_configuration.iteration = number + 1
        done = (number + 1) * options.every
    for epoch in range(done // STEPS_PER_EPOCH, options.epochs):
        loader.set_epoch(epoch)
        batches = loader
        if done > epoch * STEPS_PER_EPOCH:
            batches = accelerator.skip_first_batches(loader, done - epoch * STEPS_PER_EPOCH)
        for inputs, targets in batches:
            with accelerator.accumulate(model):
                loss = nn.functional.mse_loss(model(inputs).squeeze(-1), targets)
                accelerator.backward(loss)
                optimizer.step()
                if options.interval == "step":
                    plateau = options.schedule == "plateau"
                    scheduler.step(loss.item()) if plateau else scheduler.step()
                optimizer.zero_grad()
            done += 1
            if done % options.every == 0 and done % STEPS_PER_EPOCH:
                accelerator.save_state()
        if options.interval == "epoch":
            scheduler.step(loss.item()) if options.schedule == "plateau" else scheduler.step()
        if done % options.every == 0:
            accelerator.save_state()


main()
