"""`distillcache cache-teacher`: stage 1."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from . import shards as reading
from .mirror import mirror_for, mirror_options
from .options import (
    SEED,
    cache_option,
    device_and_workers,
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
from .progress import bar

if TYPE_CHECKING:
    from ..cache.claims import Claims
    from ..cache.create import Asked
    from ..cache.store import Store
    from ..models.teachers import Teacher
    from ..runtime.crew import Crew

    class _Options(Asked):
        batch_size: int
        compiled: bool
        on_bad_image: str
        wait: bool
        part: str | None
        add_shards: Sequence[str]
        exclude: AnyPath | None
        val_shards: Sequence[str]
        workers: int | None
        device_name: str


@click.command("cache-teacher")
@with_options(shards_option, cache_option(required=True), *recipe_options)
@click.option(
    "--teacher",
    type=NAME,
    required=True,
    help="A timm name, a folder that train-teacher wrote, or your MODULE:FUNCTION.",
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
    shards: Sequence[str], cache: AnyPath, teacher: str, take_over: bool, **options: "Unpack[_Options]"
) -> None:
    """Stage 1: show every view of every sample to the teacher and keep what it says in a Zarr store.

    Run again, it goes on; with more --views or --add-shards, it extends. Several processes may fill one store at once,
    started by torchrun, srun or hand; each ends once the store is whole.

    \b
    Example: distillcache cache-teacher --shards 'train-{000000..001023}.tar' --cache regnety.zarr
             --teacher regnety_160.deit_in1k --views 300
    On several GPUs: torchrun --nproc-per-node 8 --no-python distillcache cache-teacher ...
    """
    from ..cache.claims import claims_on
    from ..runtime.crew import join
    from .opening import require_room_for_store

    with join() as crew:
        require_room_for_store(cache)
        if take_over and not isinstance(cache, Path) and crew.first:
            say(f"{cache}: where a job claims it, that is watched for half a minute", err=True)
        # Before what takes time: where processes can't share a store, nothing is done.
        with claims_on(cache, take_over=take_over, crew=crew) as claims:
            _cache_teacher(shards, cache, teacher, claims, crew, **options)


def _cache_teacher(
    shards: Sequence[str],
    cache: AnyPath,
    teacher: str,
    claims: "Claims",
    crew: "Crew",
    *,
    batch_size: int,
    compiled: bool,
    on_bad_image: str,
    wait: bool,
    part: str | None,
    add_shards: Sequence[str],
    exclude: AnyPath | None,
    val_shards: Sequence[str],
    workers: int | None,
    device_name: str,
    **asked: "Unpack[Asked]",
) -> None:
    from ..cache import add, create, fill
    from ..cache.verify import require_same_views
    from ..datasets.loader import start_early
    from ..datasets.shards.excluded import Excluded
    from ..datasets.shards.files import class_names
    from ..inspection.info import info_text
    from ..train.evaluate import teacher_top1
    from .opening import open_teacher

    excluded = Excluded.read(exclude) if exclude else None
    store = create.existing(cache, excluded)
    is_new = crew.agreed("new", lambda: "" if store else "new")
    device, workers = device_and_workers(device_name, workers)
    start_early(workers)
    request = create.Request.resolve(store, on_gpu=device.type == "cuda", **asked)
    mirror = mirror_for([*shards, *add_shards], tell=crew.first)
    urls, more = _named(store, shards, add_shards, part)
    samples = (
        store.samples(urls, mirror) if store else None
    )  # complains of other shards before a large teacher is loaded
    model = open_teacher(teacher, device=device, amp=request.amp, size=request.teacher_size, compiled=compiled)
    measures = crew.first and (not store or store.manifest.teacher_top1 is None)
    held_out = reading.held_out(val_shards) if measures else None
    names = [] if store else class_names(urls)
    if crew.first:
        _warn(model, request.recipe.size, names)
    index = functools.partial(
        reading.screened_index, more or urls, crew, skip=on_bad_image == "skip", excluded=None if more else excluded
    )
    if (is_new or more) and not crew.first:
        index()
    with crew.first_before_others("made"):
        store = create.opened(
            cache, request, model, claims, index=index, class_names=names, excluded=excluded, mirror=mirror
        )
    samples, views = samples or store.samples(urls, mirror), max(request.views, store.views)
    if not (is_new and crew.first):
        require_same_views(store, samples)
    if more:
        add.add_shards(store, index, claims, crew, mirror)
        samples = store.samples([*urls, *more], mirror)
    elif add_shards and crew.first:
        say("add-shards: the store has them all already", err=True)
    if held_out:
        measure = functools.partial(teacher_top1, model, held_out, device=device, workers=workers)
        create.note_teacher_top1(store, claims, measure)
    filling = functools.partial(fill.fill, store, samples, model, claims, views=views, batch_size=batch_size)
    with bar("cache-teacher", views * int(store.counts.sum()), "views", shown=crew.first) as shown:
        filling(workers=workers, wait=wait, crew=crew, reporter=shown)
    if crew.first:
        say(info_text(store))


def _named(
    store: "Store | None", shards: Sequence[str], add_shards: Sequence[str], part: str | None
) -> tuple[Sequence[str], list[str]]:
    """Return the shards that the store has or begins with, and those that are to join it."""
    from ..datasets.shards.files import base_name, expand

    urls = _part(expand(shards), part)
    if not add_shards:
        return urls, []
    if not store or part:
        found = f"`part={part}`" if part else "none yet"
        raise InputError("`add_shards`", "a whole store that they join", found, "make that first, without `add_shards`")
    added, known = expand(add_shards), set(store.manifest.shard_names)
    own = [url for url in urls if url not in added] + [url for url in added if base_name(url) in known]
    return own, [url for url in added if base_name(url) not in known]


def _part(shards: Sequence[str], part: str | None) -> Sequence[str]:
    """Return the part K of N of the shards, every N-th from K on; ValueError if there is none of that name."""
    if part is None:
        return shards
    number, slash, parts = part.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and int(number) < int(parts) <= len(shards)):
        raise InputError("`part`", f"K/N with 0 <= K < N, of {len(shards)} shards", repr(part))
    return shards[int(number) :: int(parts)]


def _warn(teacher: "Teacher", size: int, names: Sequence[str]) -> None:
    """Say what may surprise: views that are no others', a teacher of other classes or of another image size."""
    from ..datasets.augment.evidence import differing

    if apart := differing():
        told = f"these libraries make other pixels than the golden vectors on this CPU: {', '.join(apart)}"
        say(f"{told}; machines with others will find views that differ", err=True)
    if names and len(names) != teacher.classes:
        say(f"the teacher tells {teacher.classes} classes apart, the shards have {len(names)}", err=True)
    if size != teacher.input_size:
        say(f"views are of {size} pixels; the teacher sees them resized to its {teacher.input_size}", err=True)
