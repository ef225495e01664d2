"""Evaluation: top-1 of each head, and of both together, on labelled shards."""

from collections.abc import Callable

import torch
from torch import nn

from ..datasets.order import in_sequence
from ..datasets.recipes import Recipe
from ..datasets.shards import Samples
from ..datasets.views import Renderer, load

_BATCH = 256


@torch.inference_mode()
def top1(
    logits_of: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    heads: tuple[str, ...],
    samples: Samples,
    recipe: Recipe,
    *,
    device: torch.device,
    workers: int,
) -> dict[str, float]:
    """Return the top-1 accuracy, percent, of each head by name, and of two heads' averaged logits as `both` (as timm).

    `logits_of` takes uint8 images (n, height, width, RGB) on `device` and returns logits (n, classes) for each head.
    Images are made by `recipe`, usually `none`, in the shards' order.
    """
    names = (*heads, "both") if len(heads) == 2 else heads
    correct = torch.zeros(len(names), dtype=torch.int64, device=device)
    rows = in_sequence(samples.count.tolist())
    for batch, views in load(Renderer(recipe, samples), rows.batches(_BATCH), workers=workers):
        target = torch.from_numpy(samples.target[batch.shard, batch.sample]).to(device)
        logits = logits_of(views.images.to(device))
        if len(heads) == 2:
            logits = (*logits, logits[0] + logits[1])
        correct += torch.stack([(head.argmax(1) == target).sum() for head in logits])
    return {name: 100 * int(n) / len(rows) for name, n in zip(names, correct.tolist(), strict=True)}


def student_top1(
    student: nn.Module, samples: Samples, recipe: Recipe, *, device: torch.device, workers: int, amp: bool = False
) -> dict[str, float]:
    """Return `top1` of a student, which is left in the mode it was in."""
    training = student.training
    student.eval()

    def logits_of(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            return tuple(head.float() for head in student(images))

    try:
        heads: tuple[str, ...] = student.heads  # type: ignore[assignment]
        return top1(logits_of, heads, samples, recipe, device=device, workers=workers)
    finally:
        student.train(training)
