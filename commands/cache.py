"""`distillcache cache-teacher`: stage 1."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import click

from ..runtime.paths import AnyPath
from .mirror import mirror_for, mirror_options
from .options import (
    SEED,
    cache_option,
    device_option,
    exclude_option,
    logits_option,
    recipe_options,
    say,
    shards_option,
    take_over_option,
    val_shards_option,
    with_options,
    workers_option,
)
from .paths import NAME
from .progress import Bars

if TYPE_CHECKING:
    import torch

    from ..cache.create import Asked
    from ..models.teachers import Teacher

    class _Options(Asked):
        batch_size: int
        wait: bool
        take_over: bool
        part: str | None
        exclude: AnyPath | None


@click.command("cache-teacher")
@with_options(shards_option, cache_option(required=True), *recipe_options)
@click.option(
    "--teacher",
    type=NAME,
    multiple=True,
    required=True,
    help="A timm name, a folder of train-teacher's, hf://USER/NAME, FILE.pt2 or your MODULE:FUNCTION. Of several, the "
    "mean of their probabilities.",
)
@click.option(
    "--teacher-size", type=click.IntRange(16, 1024), help="Pixels at which it sees views.  [default: its own]"
)
@click.option(
    "--views",
    type=click.IntRange(1, 1_000_000),
    help="Views to cache of each sample, mostly a multiple of 3.  [default: 300, or the store's]",
)
@click.option("--topk", type=click.IntRange(0), help="Largest logits to keep, besides the label.  [default: 0]")
@with_options(logits_option)
@click.option("--seed", type=SEED, help="Seed of all augmentation.  [default: 0, or the store's]")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Views shown at once.")
@click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU, or as the store has it]")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the teacher.")
@click.option(
    "--on-bad-image",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="A new store: end before the teacher starts, or leave the sample out and note it.",
)
@click.option(
    "--wait/--no-wait",
    default=True,
    help="See the store whole, or end with exit code 3 where all that is missing is other processes'.  [default: wait]",
)
@click.option(
    "--part",
    metavar="K/N",
    help="Only the K-th of N parts of the shards, from 0, for machines that share nothing; inspect merge joins them.",
)
@click.option(
    "--add-shards",
    metavar="SPEC",
    multiple=True,
    type=NAME,
    help="More shards for a store that is there; its own are --shards, and keep their labels. Repeatable.",
)
@with_options(take_over_option, exclude_option, val_shards_option, *mirror_options, workers_option, device_option)
def cache_teacher(
    shards: Sequence[str],
    cache: AnyPath,
    teacher: Sequence[str],
    compiled: bool,
    on_bad_image: str,
    add_shards: Sequence[str],
    val_shards: Sequence[str],
    workers: int | None,
    device_name: str,
    **options: "Unpack[_Options]",
) -> None:
    """Stage 1: show every view of every sample to the teacher and keep what it says in a Zarr store.

    Run again, it goes on; with more --views or --add-shards, it extends. Several processes may fill one store at once,
    started by torchrun, srun or hand; each ends once the store is whole.

    \b
    Example: distillcache cache-teacher --shards 'train-{000000..001023}.tar' --cache regnety.zarr
             --teacher regnety_160.deit_in1k --views 300
    On several GPUs: torchrun --nproc-per-node 8 --no-python distillcache cache-teacher ...
    """
    from ..cache.claims import require_claims
    from ..runtime.crew import join
    from .opening import open_teacher, require_room_for_store

    with join() as crew:
        require_room_for_store(cache)
        require_claims(cache)
        # What follows takes seconds to load.
        from ..cache import stage1
        from ..inspection.info import info_text
        from ..runtime.devices import device_and_workers

        device, workers = device_and_workers(device_name, workers)
        store = stage1.cache_teacher(
            cache,
            shards,
            functools.partial(open_teacher, teacher, device=device, compiled=compiled),
            add_shards=add_shards,
            skip_bad_images=on_bad_image == "skip",
            top1=functools.partial(_top1, val_shards, device, workers) if val_shards else None,
            workers=workers,
            mirror=mirror_for([*shards, *add_shards], tell=crew.first),
            reporter=Bars(),
            **options,
        )
        if crew.first:
            say(info_text(store))


def _top1(val_shards: Sequence[str], device: "torch.device", workers: int, teacher: "Teacher") -> float:
    """Return a teacher's top-1 on held-out shards, percent."""
    from ..train.evaluate import labelled, teacher_top1

    held_out = labelled(val_shards, mirror_for(val_shards), Bars())
    return teacher_top1(teacher, held_out, device=device, workers=workers)
