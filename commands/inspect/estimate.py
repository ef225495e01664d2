"""`distillcache inspect estimate`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Unpack

import click

from ..mirror import mirror_for, mirror_options
from ..options import (
    SEED,
    as_json_flag,
    device_option,
    logits_option,
    recipe_options,
    say,
    shards_option,
    with_options,
    workers_option,
)
from ..paths import NAME

POSITIVE = click.FloatRange(0, min_open=True)
STUDENT = "deit_tiny_distilled_patch16_224"

if TYPE_CHECKING:
    import torch

    from ...cache.create import Asked, Request
    from ...inspection.budget import Budget


@click.command("estimate")
@with_options(shards_option, *recipe_options)
@click.option("--teacher", type=NAME, multiple=True, required=True, help="A name as for cache-teacher.")
@click.option("--teacher-size", type=click.IntRange(16, 1024), help="Pixels that it sees of views.  [default: its own]")
@click.option("--views", type=click.IntRange(1, 10**6), default=300, show_default=True, help="Views of each sample.")
@click.option("--topk", type=click.IntRange(0), default=0, show_default=True, help="Largest logits to keep.")
@with_options(logits_option)
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Views shown at once.")
@click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU]")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="Devices like this one.")
@click.option("--price", type=click.FloatRange(0), help="Of one device for an hour.")
@click.option("--speed", type=POSITIVE, help="Views a second of stage 1 on one device.  [default: measured here]")
@click.option("--teacher-speed", type=POSITIVE, help="Those of the teacher alone.  [default: measured here]")
@click.option("--student", type=NAME, default=STUDENT, show_default=True, help="A timm name.")
@click.option("--student-speed", type=POSITIVE, help="Images a second of its training.  [default: measured here]")
@click.option("--student-batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images a step.")
@click.option("--seconds", type=click.IntRange(1, 3600), default=30, show_default=True, help="How long to measure.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all augmentation.")
@with_options(*mirror_options, workers_option, device_option, as_json_flag)
def inspect_estimate(
    shards: Sequence[str],
    teacher: Sequence[str],
    batch_size: int,
    gpus: int,
    price: float | None,
    speed: float | None,
    teacher_speed: float | None,
    student: str,
    student_speed: float | None,
    student_batch_size: int,
    seconds: int,
    workers: int | None,
    device_name: str,
    as_json: bool,
    **asked: "Unpack[Asked]",
) -> None:
    """Say how long both stages will take, what they cost and how large the store will be, from a short run of each.

    Speeds of other devices can be given instead: of another machine's run of this command, say.

    \b
    Example: distillcache inspect estimate --shards 'train-*.tar' --teacher regnety_160.deit_in1k --views 300
    """
    from ...cache.create import Request
    from ...cache.estimate import estimate, index_some
    from ...datasets.shards.files import expand
    from ...inspection.budget import budget
    from ...runtime.devices import device_and_workers
    from ..opening import open_teacher

    device, workers = device_and_workers(device_name, workers)
    request = Request.resolve(**asked)
    mirror = mirror_for(shards)
    urls = expand(shards)
    indexes = index_some(urls, mirror)
    model = open_teacher(teacher, device=device, amp=request.amp, size=request.teacher_size)
    estimated = estimate(indexes, urls, request, model, mirror, batch_size=batch_size, workers=workers, seconds=seconds)
    speed, teacher_speed = speed or estimated.views_per_second, teacher_speed or estimated.teacher_views_per_second
    student_speed = student_speed or _measured(student, model.classes, request, student_batch_size, device, seconds / 4)
    costs = budget(
        estimated,
        gpus=gpus,
        views_per_second=speed,
        teacher_views_per_second=teacher_speed,
        images_per_second=student_speed,
        shard_nbytes=estimated.shard_nbytes,
        price=price,
    )
    if as_json:
        say(json.dumps(asdict(estimated) | asdict(costs) | {"pays_from": costs.pays_from}, indent=2))
        return
    if estimated.indexed_shards == estimated.shards:
        samples = f"{estimated.samples:,} samples"
    else:
        samples = f"about {estimated.samples:,} samples"
    per_view, views = f"{estimated.bytes_per_view:.2f}", estimated.samples * estimated.views
    measured = f"{estimated.measured_views:,} views in {estimated.measured_seconds:.1f} s"
    say(f"{samples} in {estimated.shards:,} shards, {views:,} views")
    say(_times(costs, device, student, student_speed))
    say(f"bytes  {estimated.nbytes:,}, of which labels, checks and logits take {per_view} a view")
    say(f"memory {estimated.memory:,} bytes of a cycle's labels in each process that trains")
    requests = f"{costs.stage1_requests:,} for the shards, {costs.student_requests:,} for each student's labels"
    say(f"requests, where they are far away: {requests}")
    say(f"measured on {measured}: {estimated.views_per_second:,.1f} views/s by {model.name}")


def _measured(
    name: str, classes: int, request: "Request", batch_size: int, device: "torch.device", seconds: float
) -> float:
    """Return the images a second of a student's training."""
    from ...models.students import build_student
    from ...train.config import Config
    from ...train.speed import images_per_second

    size = request.recipe.size
    kwargs = {} if size == 224 else {"img_size": size}
    student = build_student(name, classes=classes, seed=0, drop_path=0.1, **kwargs).to(device)
    amp = device.type == "cuda"
    config = Config(model=name, classes=classes, size=size, data="", batch_size=batch_size, amp=amp)
    return images_per_second(student, config, device, seconds=seconds)


def _times(costs: "Budget", device: "torch.device", student: str, images_per_second: float) -> str:
    """Return a line for each stage, and one for the same without a store."""
    one = "CPU" if device.type == "cpu" else "GPU"
    where = f"one {one} like this" if costs.gpus == 1 else f"{costs.gpus} {one}s like this"

    def taken(hours: float) -> str:
        cost = costs.cost(hours)
        return _duration(3600 * hours) + ("" if cost is None else f", {cost:,.2f}")

    return "\n".join(
        [
            f"stage 1  {taken(costs.stage1_hours)} on {where}",
            f"stage 2  {taken(costs.student_hours)} for each student ({student}, {images_per_second:,.1f} images/s)",
            f"online   {taken(costs.online_hours)} for each student that asks the teacher at every step",
            f"caching is faster from {costs.pays_from} students of it on",
        ]
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} seconds"
