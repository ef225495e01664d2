"""What a soft loss is worth that learns from the largest logits, or from all of them in a few bits.

    python bench/soft_targets.py --shards 'train-*.tar' --teacher NAME

Shows every sample's views of recipe deit to the teacher and prints, for each form in which the logits may be kept, how
many bytes a view it takes, raw and as a store compresses them (Zstandard, level 3, chunks of a shard's 12 views), the
total variation between the distribution that is learned from and the teacher's own, mean over the views, at
temperatures 3 and 1, and the error of the published soft loss of an untrained DeiT-Ti. Three bits are no option of
cache-teacher; they are a row to compare with.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np
import torch
from numcodecs import Zstd

from distillcache.cache.quantised import dequantise, quantise
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.loader import Loader
from distillcache.datasets.order import Order
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.views import Renderer
from distillcache.models.loading import load_teacher
from distillcache.models.students import build_student
from distillcache.replay.logits import from_topk
from distillcache.runtime.devices import find_device
from distillcache.train.loss import distillation_loss

TAU = 3.0
VIEWS = 12
"""Of a sample: a block of recipe deit, which is what a chunk holds."""
SIMULATED = 3
"""Bits that no store has."""


@click.command(help=__doc__)
@click.option("--shards", multiple=True, required=True)
@click.option("--teacher", "name", required=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(shards: Sequence[str], name: str, device: str, workers: int) -> None:
    own, theirs, chunks = answers(shards, name, find_device(device), workers)

    def loss(kept: torch.Tensor) -> float:
        heads = (theirs[0], theirs[1])
        return distillation_loss(heads, own.softmax(1), kept, distill="soft", alpha=1.0, tau=TAU).teacher.item()

    exact = loss(own)
    click.echo(f"{len(own)} views, {own.shape[1]} classes, exact loss at temperature {TAU:g}: {exact:.6f}\n")
    click.echo("| kept | bytes a view, raw | compressed | total variation at 3 | at 1 | error of the loss |")
    click.echo("|---|---|---|---|---|---|")
    for form, arrays, kept in forms(own):
        raw = sum(array.nbytes for array in arrays) / len(own)
        stored = sum(compressed(array[at]) for array in arrays for at in chunks) / len(own)
        apart = [((kept / t).softmax(1) - (own / t).softmax(1)).abs().sum(1).mean().item() / 2 for t in (TAU, 1.0)]
        error = abs(loss(kept) - exact) / exact
        click.echo(f"| {form} | {raw:.0f} | {stored:.0f} | {apart[0]:.5f} | {apart[1]:.5f} | {100 * error:.4f}% |")


def answers(
    shards: Sequence[str], name: str, device: torch.device, workers: int
) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """Return the teacher's logits (n, classes), the untrained student's (2, n, classes), and the n of each chunk."""
    teacher = load_teacher(name, device=device, amp=False)
    student = build_student("deit_tiny_distilled_patch16_224", classes=teacher.classes, seed=0).to(device).eval()
    indexes = index_shards(expand(shards))
    samples, recipe = samples_of(indexes, 0), named("deit")
    names, counts = [index.shard.name for index in indexes], samples.count.tolist()
    order = Order(seed=0, shards=names, samples=counts, recipe=recipe)
    units = [order.unit(shard, range(VIEWS)) for shard in range(len(counts))]
    own, theirs = [], []
    with torch.inference_mode(), Loader(Renderer(recipe, samples), workers=workers) as loader:
        for _, views in loader.load(batch for unit in units for batch in unit.batches(64)):
            own.append(teacher.logits(views.images).cpu())
            theirs.append(torch.stack(student(views.images.to(device))).cpu())
    ends = np.cumsum([len(unit) for unit in units])
    chunks = [end - len(unit) + np.lexsort((unit.sample, unit.view)) for end, unit in zip(ends, units, strict=True)]
    return torch.cat(own), torch.cat(theirs, dim=1), chunks


def forms(own: torch.Tensor) -> Iterator[tuple[str, list[Any], torch.Tensor]]:
    """Yield each form of logits (n, classes) by name, with the arrays that are kept, and the logits made of those."""
    classes = own.shape[1]
    for k in (1, 10, 100, 1000):
        value, index = own.log_softmax(1).topk(min(k, classes))
        arrays = [index.numpy().astype(np.uint16), value.half().numpy()]
        yield f"`--topk {k}`", arrays, from_topk(index, value.half(), classes)
    for bits in (SIMULATED, 4, 8):
        code, scale, zero = quantise(own.numpy(), bits)
        kept = torch.from_numpy(dequantise(code, scale, zero, classes))
        if bits == SIMULATED:
            code = np.packbits(np.unpackbits(code[..., None], axis=2)[..., -bits:].reshape(len(own), -1), axis=1)
        yield "3 bits" if bits == SIMULATED else f"`--logits {bits}`", [code, scale, zero], kept


def compressed(array: Any) -> int:
    return len(Zstd(level=3, checksum=True).encode(np.ascontiguousarray(array)))


if __name__ == "__main__":
    main()
