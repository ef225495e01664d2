"""`distillcache make-shards`, and reading shards with a bar."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from .mirror import mirror_for, mirror_options
from .options import SEED, exclude_option, say, was_given, with_options
from .paths import LOCAL_FOLDER, NAME, PATH
from .progress import Bar, bar

if TYPE_CHECKING:
    from ..cache.store import Store
    from ..datasets.samples import Samples


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


def finding(store: "Store") -> Bar:
    """Return a bar that counts a store's images, while they are looked for in a copy that is not its shards."""
    return bar("finding images", int(store.counts.sum()), "images")


def stored_samples(store: "Store", shards: Sequence[str]) -> "Samples":
    """Return the samples of a store, to be read from any copy of its images, which may lack some."""
    from ..cache.matching import find_samples

    with finding(store) as shown:
        return find_samples(store, shards, mirror_for(shards), missing="drop", reporter=shown)
