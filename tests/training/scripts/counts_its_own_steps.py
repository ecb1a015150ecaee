"""The checkpoint has the number of steps since the last start."""

import os

import torch

STEPS, EVERY = 12, 3
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
start = 0
if os.path.exists("runs/last.pt"):
    saved = torch.load("runs/last.pt")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
for step in range(start, STEPS):
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 20)
    loss = model(data).pow(2).mean()
    loss.backward()
    optimizer.step()
    if (step + 1) % EVERY == 0:
        os.makedirs("runs", exist_ok=True)
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step + 1 - start,
        }
        torch.save(state, "runs/last.tmp")
        os.replace("runs/last.tmp", "runs/last.pt")
