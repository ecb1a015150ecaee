"""Trains a tiny model with ignite's engine and Checkpoint; goes on from the newest checkpoint."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import (
    Checkpoint,
    CosineAnnealingScheduler,
    DiskSaver,
    LRScheduler,
    ReduceLROnPlateauScheduler,
    create_lr_scheduler_with_warmup,
)
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

STEPS_PER_EPOCH = 8


def do_nothing(engine, batch):
    """Evaluate one batch."""


def set_loss(evaluator, trainer):
    evaluator.state.metrics["loss"] = trainer.state.output


def evaluate(trainer, evaluator):
    evaluator.run([0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--interval", default="step", choices=["epoch", "step"])
    parser.add_argument("--every", type=int, default=STEPS_PER_EPOCH)
    parser.add_argument("--folder", default="runs")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(1)
    x = torch.randn(4 * STEPS_PER_EPOCH, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x.sum(1)), batch_size=4)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def update(engine, batch):
        optimizer.zero_grad()
        inputs, targets = batch
        loss = nn.functional.mse_loss(model(inputs).squeeze(-1), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = Engine(update)
    count = options.epochs * (STEPS_PER_EPOCH if options.interval == "step" else 1)
    started, completed = Events.ITERATION_STARTED, Events.ITERATION_COMPLETED
    if options.interval == "epoch":
        started, completed = Events.EPOCH_STARTED, Events.EPOCH_COMPLETED
    if options.schedule == "cosine":
        scheduler = CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, cycle_size=2 * count)
    elif options.schedule == "torch-cosine":
        scheduler = LRScheduler(lr_scheduler.CosineAnnealingLR(optimizer, T_max=count))
    elif options.schedule == "onecycle":
        scheduler = LRScheduler(lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=count + 1))
    elif options.schedule == "warmup":
        scheduler = create_lr_scheduler_with_warmup(
            lr_scheduler.ExponentialLR(optimizer, 0.9),
            warmup_start_value=0.0,
            warmup_duration=max(count // 4, 2),
            warmup_end_value=0.1,
        )
    else:
        scheduler = ReduceLROnPlateauScheduler(
            optimizer, metric_name="loss", patience=0, threshold=1.0
        )
    if options.schedule == "plateau":
        evaluator = Engine(do_nothing)
        evaluator.add_event_handler(Events.COMPLETED, set_loss, trainer)
        evaluator.add_event_handler(Events.COMPLETED, scheduler)
        trainer.add_event_handler(completed, evaluate, evaluator)
    else:
        trainer.add_event_handler(started, scheduler)

    to_save = {"trainer": trainer, "model": model, "optimizer": optimizer, "scheduler": scheduler}
    saver = DiskSaver(options.folder, create_dir=True, require_empty=False)
    checkpoint = Checkpoint(to_save, saver, n_saved=None)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=options.every), checkpoint)
    files = list(Path(options.folder).glob("*.pt"))
    if files:
        newest = max(files, key=lambda file: int(re.findall(r"(\d+)\.pt", file.name)[0]))
        # The state of ReduceLROnPlateauScheduler holds a method, which needs weights_only=False.
        state = torch.load(newest, weights_only=options.schedule != "plateau")
        Checkpoint.load_objects(to_load=to_save, checkpoint=state)
    trainer.run(loader, max_epochs=options.epochs)


main()
