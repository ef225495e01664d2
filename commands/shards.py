"""`distillcache make-shards`, and reading shards with a bar."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .mirror import mirror_for
from .options import SEED, exclude_option, say, with_options
from .paths import LOCAL_FOLDER, NAME
from .progress import bar

if TYPE_CHECKING:
    from ..cache.store import Store
    from ..datasets.samples import Samples
    from ..datasets.shards.excluded import Excluded
    from ..datasets.shards.index import ShardIndex
    from ..runtime.crew import Crew


@click.command("make-shards")
@click.argument("source", type=NAME)
@click.argument("out", type=LOCAL_FOLDER)
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True, help="Samples in a shard.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the shuffle.")
@with_options(exclude_option)
def make_shards(source: str, out: Path, per_shard: int, seed: int, exclude: Path | None) -> None:
    """Pack SOURCE, a folder of class folders or `digits`, into WebDataset tars in the folder OUT.

    \b
    Example: distillcache make-shards imagenet/train shards/ --per-shard 1252
    """
    from ..datasets.shards import writing
    from ..datasets.shards.excluded import Excluded

    excluded = Excluded.read(exclude) if exclude else None

    with bar("make-shards", None, "shards") as shown:
        samples = writing.make_shards(source, out, per_shard=per_shard, seed=seed, excluded=excluded, reporter=shown)
    say(f"{out}: " + ", ".join(f"{n} {split} samples" for split, n in samples.items()))


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


def stored_samples(store: "Store", shards: Sequence[str]) -> "Samples":
    """Return the samples of a store, to be read from `shards`; ValueError if those are others."""
    from ..datasets.shards.files import expand

    mirror = mirror_for(shards)
    return store.samples(expand(shards), mirror)
