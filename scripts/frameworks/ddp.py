"""Trains a tiny model with torchrun on two processes; goes on from the last checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--folder", default="runs")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    dist.init_process_group("gloo")
    torch.manual_seed(1)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x.sum(1))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=4, sampler=sampler)
    model = DistributedDataParallel(nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    count = options.epochs * len(loader)
    scheduler = {
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=count),
        "onecycle": lambda: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=count + 1),
        "plateau": lambda: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0),
    }[options.schedule]()
    folder = Path(options.folder)
    done = 0
    last = folder / "last.pt"
    if last.exists():
        state = torch.load(last)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        done = state["done"]
    while done < count:
        sampler.set_epoch(done // len(loader))
        start = done % len(loader)
        for number, (inputs, targets) in enumerate(loader):
            if number < start:
                continue
            loss = nn.functional.mse_loss(model(inputs).squeeze(-1), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean = loss.detach().clone()
            dist.all_reduce(mean)
            scheduler.step(mean.item()) if options.schedule == "plateau" else scheduler.step()
            done += 1
            if done % options.every == 0 and dist.get_rank() == 0:
                folder.mkdir(exist_ok=True)
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "done": done,
                }
                torch.save(state, folder / "tmp.pt")
                (folder / "tmp.pt").replace(last)
        dist.barrier()
    dist.destroy_process_group()


main()
