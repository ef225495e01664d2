"""A training loop of your own over a store: `python examples/own_loop.py STORE SHARDS`.

A plain timm model learns the teacher's labels; views come in training order, each compared with its check.
"""

import sys
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

from distillcache.cache.store import Store
from distillcache.replay.batches import Replay
from distillcache.replay.training_set import TrainingSet

EPOCHS, BATCH_SIZE = 3, 16


def main(cache: str, shards: str) -> list[float]:
    """Train for a few epochs; return the loss of each."""
    data = TrainingSet.stored(Store(Path(cache)), shards)
    replay = Replay(data, batch_size=BATCH_SIZE)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=data.classes, img_size=data.order.recipe.size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = []
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in replay.batches(epoch, 0, epoch + 1):
            logits = model(batch.images.permute(0, 3, 1, 2) / 127.5 - 1)
            loss = F.cross_entropy(logits, batch.label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / replay.steps(epoch))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:])
