"""`distillcache upgrade`."""

from collections.abc import Sequence

import click

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from .mirror import mirror_for, mirror_options
from .options import say, shards_option, store_argument, take_over_option, with_options
from .progress import bar


@click.command("upgrade")
@with_options(store_argument, shards_option, take_over_option, *mirror_options)
def upgrade(cache: AnyPath, shards: Sequence[str], take_over: bool) -> None:
    """Bring an older store to today's format, so that any copy of its images will do, and not its shards alone.

    The images of the shards that it was made from are read once, for their digests; nothing else changes.

    \b
    Example: distillcache upgrade regnety.zarr --shards 'train-*.tar'
    """
    from ..cache.claims import claims_on
    from ..cache.upgrade import upgrade as keep_digests
    from ..datasets.shards.files import expand
    from .opening import open_store

    store = open_store(cache)
    if not store.storage.writable:
        raise InputError(cache, "a store that can be written", "one that can't", "unpack it: distillcache unpack")
    images = f"{int(store.counts.sum()):,} images"
    if store.digests() is not None:
        say(f"{cache}: has the digests of its {images} already")
        return
    samples = store.samples(expand(shards), mirror_for(shards))
    with claims_on(cache, take_over=take_over) as claims, bar("upgrade", len(store.counts), "shards") as shown:
        keep_digests(store, samples, claims, reporter=shown)
    say(f"{cache}: digests of {images} kept")
