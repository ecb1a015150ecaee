"""Removes the old checkpoint before the new one is there."""

import os

import torch

STEPS, EVERY = 8, 3
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 20)
start = 0
if os.path.exists("runs/latest.txt"):
    with open("runs/latest.txt") as file:
        saved = torch.load(file.read())
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
        name = f"runs/step-{step + 1}.pt"
        for old in os.listdir("runs"):
            if old.endswith(".pt"):
                os.remove(f"runs/{old}")
        torch.save(state, name)
        with open("runs/latest.tmp", "w") as file:
            file.write(name)
        os.replace("runs/latest.tmp", "runs/latest.txt")
