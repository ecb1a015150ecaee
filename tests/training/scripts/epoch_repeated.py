"""A resume repeats the epoch in which the checkpoint was saved, from its first step on."""

import os

import torch

EPOCHS, LENGTH, EVERY = 3, 4, 3
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 20)
start = done = 0
if os.path.exists("runs/last.pt"):
    saved = torch.load("runs/last.pt")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    start, done = saved["epoch"], saved["step"]
for _ in range(start, EPOCHS):
    for _ in range(LENGTH):
        data = torch.randn(8, 4, generator=torch.Generator().manual_seed(done))
        optimizer.zero_grad()
        loss = model(data).pow(2).mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
        done += 1
        if done % EVERY == 0:
            os.makedirs("runs", exist_ok=True)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "epoch": done // LENGTH,
                "step": done,
            }
            torch.save(state, "runs/last.tmp")
            os.replace("runs/last.tmp", "runs/last.pt")
