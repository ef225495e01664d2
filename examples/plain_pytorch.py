"""Plain PyTorch: `python examples/plain_pytorch.py STORE SHARDS`.

train-student's own loop, as short as it gets: a distilled DeiT, both losses, timm's optimizer at one learning rate.
"""

import sys

import torch
from timm.optim import create_optimizer_v2

import distillcache as dc

EPOCHS, BATCH_SIZE, LR = 3, 8, 1e-4
MODEL = "deit_tiny_distilled_patch16_224"


def main(cache: str, shards: str, **model_kwargs: int) -> list[float]:
    """Train for a few epochs; return the loss of each step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = dc.ViewDataset(dc.open_store(cache), shards, batch_size=BATCH_SIZE, layout="channels_last")
    student = dc.build_student(MODEL, classes=dataset.classes, seed=0, drop_path=0.0, **model_kwargs).to(device).train()
    optimizer = create_optimizer_v2(student.model, opt="adamw", lr=LR, weight_decay=0.05)
    losses = []
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        for batch in dataset:
            batch = {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
            logits = student(batch["image"])  # of both heads; it normalises uint8 images
            loss = dc.distillation_loss(logits, batch["soft_target"], batch["teacher_label"], distill="hard").total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:])
