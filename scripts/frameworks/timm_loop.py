"""A loop with timm's schedulers, saved and resumed as timm's train.py does it."""

from __future__ import annotations

import argparse
import importlib.machinery
import sys
import types
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

try:
    import torchvision  # noqa: F401
except ImportError:  # timm.scheduler needs nothing of it; the rest of timm does
    spec = importlib.machinery.PathFinder.find_spec("timm")
    stand_in = types.ModuleType("timm")
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules["timm"] = stand_in

from timm.scheduler.scheduler_factory import create_scheduler_v2

STEPS_PER_EPOCH = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--interval", default="epoch", choices=["epoch", "step"])
    parser.add_argument("--folder", default="runs")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(1)
    folder = Path(options.folder)
    folder.mkdir(exist_ok=True)
    x = torch.randn(4 * STEPS_PER_EPOCH, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x.sum(1)), batch_size=4)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    last = folder / "last.pth.tar"
    start_epoch = 0
    if last.exists():
        checkpoint = torch.load(last)
        model.load_state_dict(checkpoint["state_dict"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        start_epoch = checkpoint["epoch"] + 1
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=options.schedule,
        num_epochs=options.epochs,
        warmup_epochs=0 if options.schedule == "plateau" else 1,
        warmup_lr=1e-4,
        patience_epochs=0,
        step_on_epochs=options.interval == "epoch",
        updates_per_epoch=STEPS_PER_EPOCH,
    )
    if start_epoch > 0:
        if options.interval == "step":
            scheduler.step_update(start_epoch * STEPS_PER_EPOCH)
        else:
            scheduler.step(start_epoch)
    for epoch in range(start_epoch, options.epochs):
        num_updates = epoch * STEPS_PER_EPOCH
        for inputs, targets in loader:
            loss = nn.functional.mse_loss(model(inputs).squeeze(-1), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            num_updates += 1
            scheduler.step_update(num_updates=num_updates, metric=loss.item())
        with torch.no_grad():
            metric = -loss.item()
        state = {
            "epoch": epoch,
            "state_dict": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        torch.save(state, folder / "tmp.pth.tar")
        (folder / "tmp.pth.tar").replace(last)
        scheduler.step(epoch + 1, metric)


main()
