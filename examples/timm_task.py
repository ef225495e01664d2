"""timm's own parts: `python examples/timm_task.py STORE SHARDS`.

Its distillation task, loss, optimizer and schedule, as its train.py puts them together; in place of a teacher that runs
stands one that says what is stored.
"""

import sys

import timm
import torch
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import TokenDistillationTask
from torch import nn
from torch.utils.data import DataLoader

import distillcache as dc

EPOCHS, BATCH_SIZE, LR, WORKERS = 3, 8, 1e-4, 2
MODEL = "deit_tiny_distilled_patch16_224"


class StoredTeacher(nn.Module):
    """Says for the batch in `labels` what the teacher said when the store was made."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.labels, self.num_classes = torch.empty(0, dtype=torch.int64), classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) whose largest is at each view's label."""
        return nn.functional.one_hot(self.labels, self.num_classes).to(images.dtype)


def main(cache: str, shards: str, **model_kwargs: int) -> list[float]:
    """Train for a few epochs; return the loss of each step."""
    model = timm.create_model(MODEL, num_classes=0, **model_kwargs)
    mean, std = (model.pretrained_cfg[name] for name in ("mean", "std"))
    dataset = dc.ViewDataset(dc.open_store(cache), shards, batch_size=BATCH_SIZE, mean=mean, std=std)
    loader = DataLoader(dataset, batch_size=None, num_workers=WORKERS)
    student = dc.build_student(MODEL, classes=dataset.classes, seed=0, drop_path=0.0, **model_kwargs).model
    teacher = StoredTeacher(dataset.classes)
    task = TokenDistillationTask(
        student, teacher, criterion=SoftTargetCrossEntropy(), distill_type="hard", task_loss_weight=0.5, verbose=False
    ).train()
    optimizer = create_optimizer_v2(task.trainable_module, opt="adamw", lr=LR, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=EPOCHS, min_lr=LR)
    losses = []
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        for batch in loader:
            teacher.labels = batch["teacher_label"]
            loss = task(batch["image"], batch["soft_target"])["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        scheduler.step(epoch + 1)
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:])
