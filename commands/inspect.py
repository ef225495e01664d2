"""`distillcache inspect`: looking into a store."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from .options import as_json_flag, shards_option, store_argument, with_options


@click.group()
def inspect() -> None:
    """Look into a store."""


@inspect.command("info")
@with_options(store_argument, as_json_flag)
def inspect_info(cache: Path, as_json: bool) -> None:
    """Say what the store is, how full, and how large.

    \b
    Example: distillcache inspect info regnety.zarr
    """
    from ..cache.inspect import info, info_text
    from ..cache.store import Store

    store = Store(cache)
    click.echo(json.dumps(info(store), indent=2) if as_json else info_text(store))


@inspect.command("label")
@with_options(store_argument, click.argument("key"), as_json_flag)
def inspect_label(cache: Path, key: str, as_json: bool) -> None:
    """Print what the teacher said of each view of the sample KEY.

    \b
    Example: distillcache inspect label regnety.zarr n01440764_10026
    """
    from dataclasses import asdict

    from ..cache.inspect import label, label_text
    from ..cache.store import Store

    found = label(Store(cache), key)
    click.echo(json.dumps(asdict(found), indent=2) if as_json else label_text(found))


@inspect.command("show")
@with_options(store_argument, click.argument("keys", nargs=-1, required=True), shards_option)
@click.option("--out", type=click.Path(path_type=Path), default=Path("grid.png"), show_default=True, help="A PNG file.")
@click.option("--views", type=click.IntRange(1), default=8, show_default=True, help="Views of each sample.")
def inspect_show(cache: Path, keys: Sequence[str], shards: Sequence[str], out: Path, views: int) -> None:
    """Draw the samples KEYS and their views, as the teacher saw them, into one picture.

    \b
    Example: distillcache inspect show regnety.zarr n01440764_10026 --shards 'train-*.tar' --out grid.png
    """
    from ..cache.inspect import show
    from ..cache.store import Store
    from ..datasets.shards import expand

    store = Store(cache)
    show(store, keys, store.samples(expand(shards)), views).save(out, "PNG")
    click.echo(f"{out}: {len(keys)} sample{'s' * (len(keys) > 1)}")
