"""`distillcache pack` and `unpack`: a store in one file."""

import click

from ..runtime.paths import AnyPath
from .mirror import mirror_options
from .options import say, store_argument, with_options
from .paths import PATH
from .progress import bar


@click.command("pack")
@with_options(store_argument, click.argument("out", type=PATH), *mirror_options)
def pack(cache: AnyPath, out: AnyPath) -> None:
    """Write a finished store to the zip file OUT, which every command, Zarr and xarray read as it is.

    Its SHA-256 goes into the SHA256SUMS beside it.

    \b
    Example: distillcache pack regnety.zarr regnety.zarr.zip
    """
    from ..cache.pack import pack as pack_store
    from .opening import open_store

    store = open_store(cache)
    with bar("pack", sum(store.chunks.nbytes().values()), "B") as shown:
        digest = pack_store(store, out, reporter=shown)
    say(f"{out}: SHA-256 {digest}")


@click.command("unpack")
@with_options(store_argument, click.argument("out", type=PATH), *mirror_options)
def unpack(cache: AnyPath, out: AnyPath) -> None:
    """Write the files of a packed store to the folder OUT, as they were before.

    \b
    Example: distillcache unpack https://example.org/regnety.zarr.zip regnety.zarr
    """
    from ..cache.pack import unpack as unpack_store
    from .opening import open_store

    store = open_store(cache)
    with bar("unpack", sum(store.chunks.nbytes().values()), "B") as shown:
        unpack_store(store, out, reporter=shown)
    say(f"{out}: {len(store.counts):,} shards, {store.views:,} views")
