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
    device_and_workers,
    device_option,
    logits_option,
    recipe_options,
    say,
    shards_option,
    with_options,
    workers_option,
)
from ..paths import NAME

if TYPE_CHECKING:
    from ...cache.create import Asked


@click.command("estimate")
@with_options(shards_option, *recipe_options)
@click.option("--teacher", type=NAME, required=True, help="A name as for cache-teacher.")
@click.option("--teacher-size", type=click.IntRange(16, 1024), help="Pixels that it sees of views.  [default: its own]")
@click.option("--views", type=click.IntRange(1, 10**6), default=300, show_default=True, help="Views of each sample.")
@click.option("--topk", type=click.IntRange(0), default=0, show_default=True, help="Largest logits to keep.")
@with_options(logits_option)
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Views shown at once.")
@click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU]")
@click.option("--seconds", type=click.IntRange(1, 3600), default=30, show_default=True, help="How long to measure.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all augmentation.")
@with_options(*mirror_options, workers_option, device_option, as_json_flag)
def inspect_estimate(
    shards: Sequence[str],
    teacher: str,
    batch_size: int,
    seconds: int,
    workers: int | None,
    device_name: str,
    as_json: bool,
    **asked: "Unpack[Asked]",
) -> None:
    """Say how long stage 1 will take and how large its store will be, from a short run of it.

    \b
    Example: distillcache inspect estimate --shards 'train-*.tar' --teacher regnety_160.deit_in1k --views 300
    """
    from ...cache.create import Request
    from ...cache.estimate import estimate, index_some
    from ...datasets.shards.files import expand
    from ..opening import open_teacher

    device, workers = device_and_workers(device_name, workers)
    request = Request.resolve(on_gpu=device.type == "cuda", **asked)
    mirror = mirror_for(shards)
    urls = expand(shards)
    indexes = index_some(urls, mirror)
    model = open_teacher(teacher, device=device, amp=request.amp, size=request.teacher_size)
    estimated = estimate(indexes, urls, request, model, mirror, batch_size=batch_size, workers=workers, seconds=seconds)
    if as_json:
        say(json.dumps(asdict(estimated), indent=2))
        return
    if estimated.indexed_shards == estimated.shards:
        samples = f"{estimated.samples:,} samples"
    else:
        samples = f"about {estimated.samples:,} samples"
    per_view, views = f"{estimated.bytes_per_view:.2f}", estimated.samples * estimated.views
    measured = f"{estimated.measured_views:,} views in {estimated.measured_seconds:.1f} s"
    say(f"{samples} in {estimated.shards:,} shards, {views:,} views")
    share = "this machine's cores" if device.type == "cpu" else f"one {device}; n of them take an n-th of it"
    say(f"time   {_duration(estimated.seconds)} on {share}")
    say(f"bytes  {estimated.nbytes:,}, of which labels, checks and logits take {per_view} a view")
    say(f"memory {estimated.memory:,} bytes of a cycle's labels in each process that trains")
    say(f"measured on {measured}: {estimated.views_per_second:,.1f} views/s by {model.name}")


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
