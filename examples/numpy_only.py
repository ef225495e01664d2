"""NumPy alone: `python examples/numpy_only.py STORE SHARDS`.

Views and labels are arrays; the student, one linear layer on small grey views, is NumPy's. JAX takes the same arrays.
"""

import sys

import numpy as np
from numpy.typing import NDArray

import distillcache as dc

EPOCHS, BATCH_SIZE, LR, SIDE = 3, 8, 0.1, 8


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return grey views (n, SIDE * SIDE), -1 to 1, from uint8 ones (n, height, width, 3)."""
    n, height, width, _ = images.shape
    cut = images[:, : height // SIDE * SIDE, : width // SIDE * SIDE].mean(3, dtype=np.float32)
    cells = cut.reshape(n, SIDE, height // SIDE, SIDE, width // SIDE).mean((2, 4))
    return cells.reshape(n, -1) / 127.5 - 1


def main(cache: str, shards: str) -> list[float]:
    """Train for a few epochs; return the loss of each step."""
    store = dc.open_store(cache)
    print(f"the teacher agrees with the ground truth on {store.agreement():.1%} of the views")
    dataset = dc.ViewDataset(store, shards, batch_size=BATCH_SIZE, layout="channels_last")
    weights = np.zeros((SIDE * SIDE, dataset.classes), np.float32)
    losses = []
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        for batch in dataset:
            x, label = features(batch["image"].numpy()), batch["teacher_label"].numpy()
            logits = x @ weights
            probability = np.exp(logits - logits.max(1, keepdims=True))
            probability /= probability.sum(1, keepdims=True)
            rows = np.arange(len(label))
            losses.append(float(-np.log(probability[rows, label]).mean()))
            probability[rows, label] -= 1
            weights -= LR * x.T @ probability / len(label)
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:])
