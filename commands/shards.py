"""`distillcache make-shards`, and reading shards with a bar."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from .mirror import mirror_for, mirror_options
from .options import SEED, exclude_option, say, was_given, with_options
from .paths import LOCAL_FOLDER, NAME, PATH
from .progress import bar

if TYPE_CHECKING:
    from ..cache.store import Store
    from ..datasets.samples import Samples
    from ..datasets.shards.excluded import Excluded
    from ..datasets.shards.index import ShardIndex
    from ..runtime.crew import Crew
    from ..runtime.reporting import Reporter


@click.command("make-shards")
@click.argument("source", type=NAME)
@click.argument("out", type=LOCAL_FOLDER)
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True, help="Samples in a shard.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the shuffle.")
@with_options(exclude_option)
@click.option("--like", type=PATH, metavar="STORE", help="Pack the images of this store as its own shards were.")
@with_options(*mirror_options)
def make_shards(source: str, out: Path, per_shard: int, seed: int, exclude: Path | None, like: AnyPath | None) -> None:
    """Pack SOURCE, a folder of class folders or `digits`, into WebDataset tars in the folder OUT.

    With --like, SOURCE is any copy of a store's images: tars, Parquet files or a folder.

    \b
    Example: distillcache make-shards imagenet/train shards/ --per-shard 1252
             distillcache make-shards 'imagenet-1k/data/train-*.parquet' shards/ --like regnety.zarr
    """
    from ..datasets.shards import writing
    from ..datasets.shards.excluded import Excluded

    if like:
        _like(like, source, out)
        return
    excluded = Excluded.read(exclude) if exclude else None

    with bar("make-shards", None, "shards") as shown:
        samples = writing.make_shards(source, out, per_shard=per_shard, seed=seed, excluded=excluded, reporter=shown)
    say(f"{out}: " + ", ".join(f"{n} {split} samples" for split, n in samples.items()))


def _like(cache: AnyPath, source: str, out: Path) -> None:
    """Pack a copy of a store's images as its shards were."""
    from ..cache.matching import find_samples
    from ..cache.repack import repack
    from .opening import open_store

    if stray := next((name for name in ("per_shard", "seed", "exclude") if was_given(name)), None):
        raise InputError("`like`", "the store to decide what is packed", f"`{stray}` too", f"leave `{stray}` out")
    store = open_store(cache)
    with finding(store) as shown:
        samples = find_samples(store, source, mirror_for([source]), reporter=shown)
    with bar("make-shards", None, "shards") as shown:
        shards, alike = repack(store, samples, out, reporter=shown)
    same = "byte by byte" if alike == shards else f"of which {alike:,} byte by byte, and the others by their images"
    say(f"{out}: {shards:,} shards as {cache} was made from, {same}")


def read_index(
    shards: Sequence[str],
    *,
    digest: bool,
    screen: "Callable[[ShardIndex], ShardIndex]" = lambda index: index,
    shown: bool = True,
) -> "list[ShardIndex]":
    """Return the index of every shard that `shards` names, read and `screen`ed under a bar; `digest`: with SHA-256."""
    from ..datasets.shards.files import expand
    from ..datasets.shards.index import index_shards

    mirror = mirror_for(shards, tell=shown)
    urls = expand(shards)
    with bar("reading shards", None, "shards", shown=shown) as reporter:
        return index_shards(urls, digest=digest, screen=screen, mirror=mirror, reporter=reporter)


def screened_index(
    shards: Sequence[str], crew: "Crew", *, skip: bool, excluded: "Excluded | None" = None
) -> "list[ShardIndex]":
    """Return the index of every shard once each image was decoded; bad ones end the command, or are left out.

    The ranks of a crew read a share each; the first returns what all of them found. Those that are `excluded` are left
    out before. Raises ValueError if that names a sample that no shard has.
    """
    from ..datasets.augment import pixels
    from ..datasets.shards.excluded import REASON
    from ..datasets.shards.index import ShardIndex, without_bad_images

    def screen(index: "ShardIndex") -> "ShardIndex":
        wanted = excluded.without(index) if excluded else index
        return without_bad_images(wanted, pixels.decode, skip=skip)

    rank, world = crew.rank.rank, crew.world
    own = read_index(shards[rank::world], digest=True, screen=screen, shown=crew.first) if rank < len(shards) else []
    shares = crew.gather("indexes", json.dumps([asdict(index) for index in own]))
    if not crew.first:
        return own
    indexes = own
    if world > 1:
        read = [[ShardIndex.from_dict(index) for index in json.loads(share)] for share in shares]
        indexes = [read[number % world][number // world] for number in range(len(shards))]
    skipped = [sample for index in indexes for sample in index.skipped]
    left_out = [(sample.shard, sample.key) for sample in skipped if sample.reason == REASON]
    if excluded:
        excluded.require_known(left_out)
        say(f"left out: {len(left_out):,} samples that {excluded.path} names", err=True)
    for sample in skipped:
        if sample.reason != REASON:
            say(f"skipped: shard {sample.shard}, key {sample.key}: {sample.reason}", err=True)
    return indexes


def held_out(shards: Sequence[str]) -> "Samples | None":
    """Return the samples of held-out shards, if any are named."""
    from ..datasets.samples import samples_of

    return samples_of(read_index(shards, digest=False), 0, mirror_for(shards)) if shards else None


@contextlib.contextmanager
def finding(store: "Store", *, tell: bool = True) -> "Iterator[Reporter]":
    """Yield what counts a store's images, under a bar, while they are looked for in a copy that is not its shards."""
    from ..runtime.reporting import SILENT

    if not tell:
        yield SILENT
        return
    with bar("finding images", int(store.counts.sum()), "images") as shown:
        yield shown


def stored_samples(store: "Store", shards: Sequence[str]) -> "Samples":
    """Return the samples of a store, to be read from any copy of its images, which may lack some."""
    from ..cache.matching import find_samples

    with finding(store) as shown:
        return find_samples(store, shards, mirror_for(shards), missing="drop", reporter=shown)
