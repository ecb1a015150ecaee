"""Two ranks; only rank 0 loads the scheduler."""

import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

STEPS, EVERY = 8, 3


def train(rank, rendezvous):
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 20)
    start = 0
    if os.path.exists("runs/last.pt"):
        saved = torch.load("runs/last.pt")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if rank == 0 or "everywhere" in sys.argv:
            scheduler.load_state_dict(saved["scheduler"])
        start = saved["step"]
    dist.barrier()
    for step in range(start, STEPS):
        data = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(data).pow(2).mean().backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
        optimizer.step()
        scheduler.step()
        if rank == 0 and (step + 1) % EVERY == 0:
            os.makedirs("runs", exist_ok=True)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "step": step + 1,
            }
            torch.save(state, "runs/last.tmp")
            os.replace("runs/last.tmp", "runs/last.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = os.path.join(folder, "rendezvous")
        mp.start_processes(train, (rendezvous,), nprocs=2, start_method="fork")
