"""The weights and the scheduler are saved to two files, at different steps."""

import os

import torch

STEPS, EVERY = 12, 3
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 20)
start = 0
if os.path.exists("runs/model.pt"):
    saved = torch.load("runs/model.pt")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
if os.path.exists("runs/scheduler.pt"):
    scheduler.load_state_dict(torch.load("runs/scheduler.pt"))
for step in range(start, STEPS):
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    loss = model(data).pow(2).mean()
    loss.backward()
    optimizer.step()
    scheduler.step()
    os.makedirs("runs", exist_ok=True)
    if (step + 1) % EVERY == 0:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step + 1,
        }
        torch.save(state, "runs/model.pt")
    if (step + 1) % 4 == 0:
        torch.save(scheduler.state_dict(), "runs/scheduler.pt")
