"""Correct. Two optimizers take turns, and each has a scheduler."""

import os

import torch

STEPS, EVERY = 6, 2
torch.manual_seed(0)
models = [torch.nn.Linear(4, 1) for _ in range(2)]
optimizers = [
    torch.optim.SGD(models[0].parameters(), lr=0.1),
    torch.optim.Adam(models[1].parameters(), lr=0.01),
]
schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, gamma=0.9) for each in optimizers]
parts = [*models, *optimizers, *schedulers]
start = 0
if os.path.exists("runs/last.pt"):
    saved = torch.load("runs/last.pt")
    for part, state in zip(parts, saved["parts"], strict=True):
        part.load_state_dict(state)
    start = saved["step"]
for step in range(start, STEPS):
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    for model, optimizer in zip(models, optimizers, strict=True):
        optimizer.zero_grad()
        model(data).pow(2).mean().backward()
        optimizer.step()
    for scheduler in schedulers:
        scheduler.step()
    if (step + 1) % EVERY == 0:
        os.makedirs("runs", exist_ok=True)
        torch.save({"parts": [p.state_dict() for p in parts], "step": step + 1}, "runs/last.tmp")
        os.replace("runs/last.tmp", "runs/last.pt")
