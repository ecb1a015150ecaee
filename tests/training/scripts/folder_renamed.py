"""Correct. Four files are written to a new folder, which is renamed when it is whole."""

import os

import torch

STEPS, EVERY = 8, 3
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 20)
start = 0
folders = [name for name in os.listdir("runs") if name[0] != "."] if os.path.exists("runs") else []
if folders:
    saved = f"runs/{max(folders)}"
    model.load_state_dict(torch.load(f"{saved}/model.pt"))
    optimizer.load_state_dict(torch.load(f"{saved}/optimizer.pt"))
    scheduler.load_state_dict(torch.load(f"{saved}/scheduler.pt"))
    start = torch.load(f"{saved}/step.pt")
for step in range(start, STEPS):
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    loss = model(data).pow(2).mean()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if (step + 1) % EVERY == 0:
        os.makedirs("runs/.new", exist_ok=True)
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        state = {name: part.state_dict() for name, part in parts.items()}
        for name, content in {**state, "step": step + 1}.items():
            torch.save(content, f"runs/.new/{name}.pt")
        os.rename("runs/.new", f"runs/{step + 1:02}")
