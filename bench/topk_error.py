"""What is lost by keeping the teacher's top-k instead of all its logits.

    python bench/topk_error.py --shards 'train-*.tar' --teacher NAME

Shows every sample's views of recipe deit to the teacher and prints, for each k, how far the distribution that `soft`
learns from is from the teacher's own, and how far the published soft loss of an untrained DeiT-Ti is.
"""

from collections.abc import Sequence

import click
import torch

from distillcache.datasets.augment.recipes import named
from distillcache.datasets.loader import Loader
from distillcache.datasets.order import Order
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.views import Renderer
from distillcache.models.students import build_student
from distillcache.models.teachers import load_teacher
from distillcache.runtime.devices import find_device
from distillcache.train.loss import distillation_loss, from_topk

TAU = 3.0


@click.command(help=__doc__)
@click.option("--shards", multiple=True, required=True)
@click.option("--teacher", "name", required=True)
@click.option("--views", default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--workers", default=2, show_default=True)
@torch.inference_mode()
def main(shards: Sequence[str], name: str, views: int, device: str, workers: int) -> None:
    place = find_device(device)
    teacher = load_teacher(name, device=place, amp=False)
    indexes = index_shards(expand(shards))
    samples, recipe = samples_of(indexes, 0), named("deit")
    names, counts = [index.shard.name for index in indexes], samples.count.tolist()
    order = Order(seed=0, shards=names, samples=counts, recipe=recipe)
    batches = [batch for shard in range(len(counts)) for batch in order.unit(shard, range(views)).batches(64)]
    student = build_student("deit_tiny_distilled_patch16_224", classes=teacher.classes, seed=0).to(place).eval()
    logits, said = [], []
    with Loader(Renderer(recipe, samples), workers=workers) as loader:
        for _, rendered in loader.load(batches):
            logits.append(teacher.logits(rendered.images))
            said.append(torch.stack(student(rendered.images.to(place))))
    own, theirs = torch.cat(logits), torch.cat(said, dim=1)
    full, target = (own / TAU).softmax(1), own.softmax(1)

    def loss(log_probabilities: torch.Tensor) -> float:
        outputs = (theirs[0], theirs[1])
        return distillation_loss(outputs, target, log_probabilities, distill="soft", alpha=1.0, tau=TAU).total.item()

    exact = loss(own)
    click.echo(f"{len(own)} views, {teacher.classes} classes, temperature {TAU:g}, exact loss {exact:.6f}\n")
    click.echo(
        "| k | bytes a view, raw | probability in the k at temperature 1 | total variation at 3 | error of the loss |"
    )
    click.echo("|---|---|---|---|---|")
    for k in (1, 10, 100, teacher.classes):
        value, index = own.log_softmax(1).topk(k)
        kept = from_topk(index, value.half(), teacher.classes)
        distance = ((kept / TAU).softmax(1) - full).abs().sum(1).mean().item() / 2
        error, mass = abs(loss(kept) - exact) / exact, value.exp().sum(1).mean().item()
        click.echo(f"| {k} | {4 * k} | {mass:.4f} | {distance:.5f} | {100 * error:.4f}% |")


if __name__ == "__main__":
    main()
