"""Saves everything, and goes on when it gets SIGTERM."""

import os
import signal

import torch

STEPS, EVERY = 12, 3
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 20)
start = 0
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.path.exists("runs/last.pt"):
    saved = torch.load("runs/last.pt")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    start = saved["step"]
for step in range(start, STEPS):
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    loss = model(data).pow(2).mean()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if (step + 1) % EVERY == 0:
        os.makedirs("runs", exist_ok=True)
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "step": step + 1,
        }
        torch.save(state, "runs/last.tmp")
        os.replace("runs/last.tmp", "runs/last.pt")
