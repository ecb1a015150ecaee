"""Fine-tunes a tiny model with transformers' Trainer; goes on from the newest checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x, labels=None):
        prediction = self.linear(x).squeeze(-1)
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


def examples(count: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 4, generator=generator)
    return [{"x": row, "labels": row.sum()} for row in x]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedule", default="cosine")  # linear, cosine, reduce_lr_on_plateau, ...
    parser.add_argument("--save", default="epoch", choices=["epoch", "steps"])
    parser.add_argument("--folder", default="runs")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    set_seed(1)
    folder = Path(options.folder)
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    plateau = options.schedule == "reduce_lr_on_plateau"
    arguments = TrainingArguments(
        output_dir=options.folder,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=4,
        learning_rate=0.1,
        warmup_steps=0 if plateau else 3,
        lr_scheduler_type=options.schedule,
        lr_scheduler_kwargs={"patience": 0} if plateau else {},
        eval_strategy=options.save if plateau else "no",
        eval_steps=5,
        save_strategy=options.save,
        save_steps=5,
        metric_for_best_model="loss" if plateau else None,
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=1,
    )
    trainer = Trainer(
        model=Regression(), args=arguments, train_dataset=examples(32), eval_dataset=examples(8)
    )
    trainer.train(resume_from_checkpoint=last)


main()
